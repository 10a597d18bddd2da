"""What does somebody see who may not see what is personal? An answer with identifiers and traits masked.

An e-mail shows its first letters, any other identifier its last two characters, so do traits that are such; all other
traits show nothing: what they say of a person (a city, a name, an income) is not told apart from what they do not. Ids,
sources, times and counts stay. So does what a score is made of, but for features of traits: their values are not said,
nor what a reason tells of them.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

HIDDEN = "***"
LEAST = 6  # characters of an identifier that shows two of them


def identifier(text: str) -> str:
    """An identifier in normal form, "type:value".

    >>> identifier("email:jo.smith@mail.home.org"), identifier("phone:+4755500042"), identifier("card:123")
    ('email:j…@m….org', 'phone:…42', 'card:…')
    """
    kind, _, value = text.partition(":")
    return f"{kind}:{email(value) if kind == 'email' else ending(value)}"


def email(value: str) -> str:
    """
    >>> email("jo@home.org"), email("jo@localhost"), email("no address")
    ('j…@h….org', 'j…@l…', '***')
    """
    name, at, domain = value.rpartition("@")
    if not (name and at and domain):
        return HIDDEN
    first, dot, last = domain.rpartition(".")
    return f"{name[0]}…@{first[0]}….{last}" if dot and first else f"{name[0]}…@{domain[0]}…"


def ending(value: str) -> str:
    """
    >>> ending("+4755500042"), ending("1234")
    ('…42', '…')
    """
    return "…" + (value[-2:] if len(value) >= LEAST else "")


def trait(attribute: str, value: str) -> str:
    """
    >>> trait("email", "jo@home.org"), trait("phone", "+4755500042"), trait("city", "Oslo")
    ('j…@h….org', '…42', '***')
    """
    return email(value) if attribute == "email" else ending(value) if attribute == "phone" else HIDDEN


def masked(body: bytes, features: Collection[str] | None) -> bytes:
    """The JSON of an answer without what is personal. features: those that are made of traits; None: it is not known
    which are."""
    return _dump(_walk(json.loads(body), features))


def without_scores(body: bytes) -> bytes:
    """The JSON of a profile for somebody who may not see scores: each is a problem that says so."""
    found = json.loads(body)
    problems = [
        {"task": score["task"], "problem": "the scope score is needed", "fix": "ask with a key that has it"}
        for score in found.pop("scores")
    ]
    return _dump({**found, "scores": [], "problems": [*found.get("problems", []), *problems]})


def _dump(found: Any) -> bytes:
    return json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode()


def _walk(found: Any, features: Collection[str] | None) -> Any:
    if isinstance(found, list):
        return [_walk(item, features) for item in found]
    if not isinstance(found, dict):
        return found
    made = {key: _walk(value, features) for key, value in found.items()}
    if isinstance(made.get("identifier"), str):
        made["identifier"] = identifier(made["identifier"])
    if "attribute" in made and "value" in made:
        made["value"] = trait(made["attribute"], str(made["value"]))
    if "feature" in made and "text" in made and _tells(made["feature"], features):
        made |= {"value": None, "text": HIDDEN}
    if isinstance(row := made.get("features"), dict):
        made["features"] = {name: None if _tells(name, features) else value for name, value in row.items()}
    return made


def _tells(name: str, features: Collection[str] | None) -> bool:
    return features is None or name in features

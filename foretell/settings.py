"""What is configured, and where does each value come from? Environment, then foretell.toml, then the default."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from foretell.errors import DefinitionError, unknown

FILE = "foretell.toml"
ENGINES = ("duckdb", "spark")


@dataclass(frozen=True)
class Value:
    """A setting and its origin: "environment FORETELL_HOME", "foretell.toml" or "default"."""

    value: Any
    origin: str


@dataclass(frozen=True)
class _Spec:
    default: Any
    parse: Any
    help: str


def _instant(text: Any) -> datetime | None:
    if text in (None, "", "now"):
        return None
    at = text if isinstance(text, datetime) else datetime.fromisoformat(str(text))
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def _count(text: Any, least: int = 1) -> int:
    if not str(text).lstrip("+-").isdigit() or (n := int(text)) < least:
        raise ValueError(f"expected a whole number, at least {least}")
    return n


def _probability(text: Any) -> float:
    if not 0 < (p := float(text)) < 1:
        raise ValueError("expected a probability between 0 and 1")
    return p


def _names(text: Any) -> tuple[str, ...]:
    found = text.split(",") if isinstance(text, str) else text
    if not isinstance(found, list | tuple) or not all(isinstance(name, str) for name in found):
        raise ValueError("expected names, as a list or separated by commas")
    return tuple(name.strip() for name in found if name.strip())


def _counts(text: Any) -> dict[str, int]:
    """A table of TOML, or "device=3, email=10" from the environment."""
    pairs = text.items() if isinstance(text, Mapping) else [p.split("=", 1) for p in str(text).split(",") if p.strip()]
    return {str(name).strip(): _count(str(n).strip(), least=0) for name, n in sorted(pairs)}


def _texts(text: Any) -> list[str]:
    return sorted(map(str, text) if isinstance(text, list) else filter(None, map(str.strip, str(text).split(","))))


def _purposes(said: Any) -> dict[str, str]:
    """Purpose -> "opt-in" or "opt-out", from a table, or from text: "email=opt-in, retention=opt-out"."""
    if isinstance(said, str):
        said = dict(pair.split("=", 1) for pair in said.split(",") if pair.strip())
    found = {}
    for purpose, text in said.items():
        rule = str(text).strip().partition(":")[0].strip()
        if rule not in ("opt-in", "opt-out"):
            raise ValueError(f"{purpose}: expected opt-in or opt-out, and after a colon perhaps why, got {text!r}")
        found[purpose.strip()] = rule
    return found


def _online(said: Any) -> str:
    """Where features are online. What names a variable is read when it is needed: a password is never in a setting."""
    text = str(said).strip()
    parts = urlsplit(text)
    if parts.scheme in ("redis", "rediss") and (parts.password or "password=" in parts.query):
        raise ValueError('the address holds a password: put it into an environment variable, and say "env:NAME"')
    address = parts.scheme in ("redis", "rediss") and parts.hostname
    if text != "sqlite" and not address and not re.fullmatch(r"env:[A-Za-z_]\w*", text):
        raise ValueError('expected "sqlite", "redis://host:port/db" or "env:NAME"')
    return text


def _engine(text: Any) -> str:
    if text not in ENGINES:
        raise ValueError(f"expected {' or '.join(ENGINES)}")
    return str(text)


def _master(text: Any) -> str:
    if str(text).startswith("sc://"):
        raise ValueError("expected a master such as local[2], not Spark Connect")
    return str(text)


def _conf(said: Any) -> dict[str, str]:
    """A table of TOML, or "spark.executor.memory=4g, …" from the environment; true and false as Spark writes them."""
    if isinstance(said, str):
        said = dict(pair.split("=", 1) for pair in said.split(",") if pair.strip())
    found = {str(k).strip(): str(v).lower() if isinstance(v, bool) else str(v).strip() for k, v in said.items()}
    if stray := [name for name in found if not name.startswith("spark.")]:
        raise ValueError(f"expected names that begin with spark., got {', '.join(stray)}")
    return found


def _oidc(said: Any) -> dict[str, Any]:
    """A table of TOML, or the same as JSON from the environment; {}: tokens are not taken."""
    found = json.loads(said) if isinstance(said, str) and said.strip() else said or {}
    if not isinstance(found, Mapping):
        raise ValueError("expected a table")
    texts, needed = ("issuer", "audience", "jwks_url", "jwks_file", "claim"), ("issuer", "audience")
    if stray := sorted(found.keys() - {*texts, "roles"}):
        raise ValueError(f"expected {', '.join(texts)} and roles, got {', '.join(stray)}")
    if found and (missing := [name for name in needed if name not in found]):
        raise ValueError(f"expected {' and '.join(missing)}")
    if found and ("jwks_url" in found) == ("jwks_file" in found):
        raise ValueError("expected jwks_url or jwks_file, one of them")
    if wrong := [name for name in texts if not isinstance(found.get(name, "-"), str)]:
        raise ValueError(f"{wrong[0]}: expected text, got {found[wrong[0]]!r}")
    roles = {str(role): list(_names(scopes)) for role, scopes in dict(found.get("roles", {})).items()}
    return {**found, "roles": roles} if found else {}


SPECS: dict[str, _Spec] = {
    "home": _Spec(".foretell", str, "folder of everything Foretell keeps, relative to the project"),
    "lake": _Spec("", str, "address of the bucket for the lake's tables, s3://bucket/prefix; default: in the home"),
    "registry": _Spec(
        "", str, "database of Feast's registry, postgresql://user@host/name or env:NAME; default: a file in the home"
    ),
    "mlflow": _Spec(
        "",
        str,
        "MLflow's database, postgresql://user@host/name, or server, https://host, or env:NAME; default: a "
        "file in the home; the variable MLFLOW_TRACKING_URI comes before it",
    ),
    "exports": _Spec("exports", str, "folder the sources' file globs start from, relative to the project"),
    "as_of": _Spec(None, _instant, "the project's now, for data that end in the past (ISO time); default: the clock"),
    "cutoffs": _Spec(6, _count, "how many past cutoffs a model is trained on"),
    "folds": _Spec(6, _count, "at how many past cutoffs candidates are judged"),
    "trials": _Spec(
        10, partial(_count, least=0), "how many sets of parameters the learned model may try for each task; 0: none"
    ),
    "threads": _Spec(2, _count, "threads of the engine and of model training"),
    "memory": _Spec("3GB", str, "memory limit of the embedded engine"),
    "engine": _Spec("duckdb", _engine, "what aggregates facts and scores everyone: duckdb (embedded) or spark"),
    "offline": _Spec("duckdb", _engine, "what Feast joins features to rows of the past with: duckdb or spark"),
    "spark_master": _Spec("local[2]", _master, "the Spark that is asked: local[2], spark://host:7077, yarn, k8s://…"),
    "spark_conf": _Spec({}, _conf, 'further settings of Spark: {"spark.executor.memory" = "4g"}'),
    "identity_max": _Spec(50, _count, "most identifiers one profile may gather before a link is quarantined"),
    "personal_domains": _Spec(
        None, _names, "e-mail domains that are no company's, beside the free and disposable ones known everywhere"
    ),
    "identity_most": _Spec(
        {}, _counts, "most identifiers of a type that one profile may gather, by type: {user_id = 1}; 0: no limit"
    ),
    "identity_shared": _Spec(
        {"anonymous_id": 3, "device": 3, "*": 20},
        _counts,
        "an identifier of a type that is met with more than so many of another type is shared, and links nobody, "
        "by type, * for all others: {device = 3}; 0: no limit",
    ),
    "identity_blocked": _Spec(
        [], _texts, 'identifiers that link nobody, with their type; * stands for anything: ["email:*@test.example"]'
    ),
    "online": _Spec(
        "sqlite", _online, 'where features are online: "sqlite", "redis://host:port/db", or "env:NAME" that holds one'
    ),
    "match_at": _Spec(0.95, _probability, "probability from which `identity match` links two profiles"),
    "review_at": _Spec(0.5, _probability, "probability from which it asks in `identity review`; match_at: never"),
    "purposes": _Spec({}, _purposes, 'purpose = "opt-in" (needs a grant) or "opt-out" (ended by a withdrawal)'),
    "oidc": _Spec(
        {},
        _oidc,
        "whose tokens the service takes: {issuer, audience, jwks_url or jwks_file, claim, roles = {role = [scopes]}}",
    ),
    "rate_per_second": _Spec(1_000, partial(_count, least=0), "requests a second that the service answers one caller"),
    "burst": _Spec(2_000, _count, "requests that a caller may send at once before the rate counts"),
}


def load(folder: Path, environ: Mapping[str, str] | None = None) -> dict[str, Value]:
    """Every setting of a project folder. Unknown keys and unreadable values are refused, naming their origin."""
    environ = os.environ if environ is None else environ
    file = folder / FILE
    try:
        tables = tomllib.loads(file.read_text()) if file.exists() else {}
    except tomllib.TOMLDecodeError as error:
        raise DefinitionError(FILE, f"not valid TOML: {error}", "mend that line", where=str(file)) from None
    if stray := sorted(tables.keys() - {"foretell"}):
        raise DefinitionError(
            FILE, f"expected settings under [foretell], got {stray}", "begin the file with [foretell]"
        )
    written = tables.get("foretell", {})
    for key in written:
        if key not in SPECS:
            raise unknown("setting", key, SPECS, where=FILE)
    return {name: _value(name, spec, written, environ) for name, spec in SPECS.items()}


def _value(name: str, spec: _Spec, written: Mapping[str, Any], environ: Mapping[str, str]) -> Value:
    variable = f"FORETELL_{name.upper()}"
    if variable in environ:
        raw, origin = environ[variable], f"environment {variable}"
    elif name in written:
        raw, origin = written[name], FILE
    else:
        return Value(spec.default, "default")
    try:
        return Value(spec.parse(raw), origin)
    except (ValueError, TypeError) as error:
        # no password is shown
        shown = re.sub(r"(?<=//)[^/@]*(?=@)|(?<=password=)[^&]*", "…", raw) if isinstance(raw, str) else raw
        raise DefinitionError(name, f"cannot read {shown!r} ({error})", spec.help, where=origin) from None

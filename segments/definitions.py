"""Segments as files: each `*.yaml` of a folder names one rule.

name: at-risk            # the file's stem unless given
rule: churn > 0.6 and top(clv, 0.2)
description: The best customers we are about to lose.
purpose: marketing       # only who agreed to it is a member; without it nobody's consent is asked
control: 0.1             # a tenth of the audience is held out, so that what the rest earns can be measured
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from foretell.errors import DefinitionError, did_you_mean
from segments.predicate import EXAMPLE, Predicate, parse

KEYS = ("name", "rule", "description", "purpose", "control")
NAME = r"\w[\w-]*"


@dataclass(frozen=True)
class Segment:
    """A named rule, and the file that declares it."""

    name: str
    rule: Predicate
    description: str
    path: Path
    purpose: str = ""
    control: float = 0.0


def load_segment(path: Path) -> Segment:
    """The segment that one file declares."""
    try:
        said = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        what = " ".join(str(error).split())
        raise DefinitionError(str(path), f"expected YAML, got {what}", "quote texts that contain : or #") from None
    if not isinstance(said, dict):
        got = "an empty file" if said is None else f"a {type(said).__name__}"
        raise DefinitionError(str(path), f"expected keys and values, got {got}", f"write e.g. rule: {EXAMPLE}")
    for key in said:
        if key not in KEYS:
            problem = f"expected the keys {', '.join(KEYS)}, got {key!r}"
            raise DefinitionError(str(path), problem, did_you_mean(str(key), KEYS))
    if "rule" not in said:
        raise DefinitionError(str(path), "expected a rule, got none", f"add e.g. rule: {EXAMPLE}")
    values = {"name": path.stem, "description": "", "purpose": "", **said}
    control = _control(path, values.pop("control", None))
    for key, value in values.items():
        if not isinstance(value, str):
            problem = f"expected text as {key}, got {value!r} ({type(value).__name__})"
            raise DefinitionError(
                str(path), problem, f"put the {key} in quotes, or leave the key out if it has a default"
            )
    if not re.fullmatch(NAME, values["name"]):
        problem = f"expected a name of letters, digits, - and _, got {values['name']!r}"
        raise DefinitionError(str(path), problem, "add e.g. name: at-risk")
    rule = parse(values["rule"], where=str(path))
    description, purpose = values["description"].strip(), values["purpose"].strip()
    return Segment(values["name"], rule, description, path, purpose, control)


def _control(path: Path, said: object) -> float:
    """The share that is held out, 0.0 if the file does not say one."""
    if said is None:
        return 0.0
    if isinstance(said, bool) or not isinstance(said, int | float) or not 0 < said < 0.5:
        problem = f"expected a share above 0 and below 0.5 as control, got {said!r}"
        raise DefinitionError(str(path), problem, "write control: 0.1 to hold out a tenth, or leave the key out")
    return float(said)


def load_segments(folder: Path) -> dict[str, Segment]:
    """The segments of a folder, by name, in the order of names. A folder that does not exist holds none."""
    found: dict[str, Segment] = {}
    for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
        if path.suffix == ".yml":
            raise DefinitionError(str(path), "expected a file ending in .yaml, got .yml", f"rename it {path.stem}.yaml")
        segment = load_segment(path)
        if other := found.get(segment.name):
            problem = f"expected one segment of the name {segment.name!r}, got a second one beside {other.path}"
            raise DefinitionError(str(path), problem, "rename one of the two")
        found[segment.name] = segment
    return dict(sorted(found.items()))

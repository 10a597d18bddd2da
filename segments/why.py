"""Why is a profile in a segment, or why not? Each condition with the profile's own value, down to what is behind it.

A trait leads to the source that said it, a feature to the events that it is made of, a score to its contract and
reasons, a consent to who said what when. Of who refused the segment's purpose nothing is told but that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import duckdb

from features.compiling import versioned
from features.explain import behind
from foretell.errors import ForetellError
from foretell.project import Project
from lake.catalogue import CONSENT
from lake.engine import session, table
from segments import attributes
from segments.attributes import SCORE_COLUMNS, Attributes
from segments.audience import asked, bind, consented, declared
from segments.control import TABLE as EXPOSURES
from segments.control import exposures
from segments.history import changes_of
from segments.predicate import Predicate
from segments.ranking import thresholds
from unification.consent import history as consents
from unification.consent import without
from unification.golden import GRAPH
from unification.identity import resolve

EVENTS = 20  # behind a feature are listed, the latest
_CONTRACT = (
    "score_id", "value", "percentile", "base_rate", "estimator", "model_version", "cutoff", "expires_at", "purpose",
    "reasons",
)  # fmt: skip


def why(project: Project, name: str, who: str, events: int = EVENTS) -> dict[str, Any]:
    """Whether a profile is in a segment (or satisfies a rule) now, and why.

    segment, rule, purpose, profile_id, member. refused: it did not agree to the purpose; then only `consents` follow.
    conditions: the tree of the rule: text, operator ("and", "or", "not", "" of a single one), holds (None: unknown),
    parts, and of a single one values (attribute -> value) and ranks (place among how many). attributes: name -> value
    and where it comes from, by its kind: trait, identifier, feature, score or consent. changes: when it entered and
    left. side: "treated" or "control" of the last export.

    who: a profile id, an old one, or any identifier. events: how many are listed behind a feature.
    """
    rule, purpose = asked(project, name)
    with session(project) as con:
        profile = resolve(con, project, who)
        known = attributes.known(con, project)
        bind(project, rule, known.schema)
        known.create({*rule.columns, CONSENT + purpose})
        found: dict[str, Any] = {
            "segment": name if name in declared(project) else None, "rule": rule.text, "purpose": purpose or None,
            "profile_id": profile, "member": False, "refused": False,
        }  # fmt: skip
        ranks = thresholds(con, [rule])
        listed = [f"({node.condition(ranks=ranks)})" for node in _nodes(rule)]
        row = con.execute(
            f"SELECT {', '.join([consented(known, purpose), *listed])} FROM attributes WHERE profile_id = ?", [profile]
        ).fetchall()[0]
        if not row[0]:
            said = [dict(fact) for fact in consents(con, project, profile) if fact["purpose"] == purpose]
            return found | {"refused": True, "consents": said}
        names = sorted(rule.columns)
        columns = ", ".join(f'"{column}"' for column in names)
        mine = con.execute(f"SELECT {columns} FROM attributes WHERE profile_id = ?", [profile]).fetchall()[0]
        values = dict(zip(names, mine, strict=True))
        found["member"] = row[1] is True
        found["conditions"] = _tree(con, rule, iter(row[1:]), values)
        found["attributes"] = {n: _origin(con, project, known, profile, n, value) for n, value in values.items()}
        if found["segment"]:
            found["changes"] = changes_of(con, project, profile, name)
            found["side"] = _side(con, project, profile, name)
    for column, said in found["attributes"].items():
        if said["kind"] == "feature":
            said |= _events(project, profile, column, said["cutoff"], events)
    return found


def _nodes(rule: Predicate) -> Iterator[Predicate]:
    """The rule and all that it is made of, each before its parts."""
    yield rule
    for part in rule.parts:
        yield from _nodes(part)


def _tree(
    con: duckdb.DuckDBPyConnection, node: Predicate, holds: Iterator[bool | None], values: dict[str, Any]
) -> dict[str, Any]:  # fmt: skip
    """holds: what the nodes are for the profile, in the order of `_nodes`, this one's first."""
    said: dict[str, Any] = {"text": node.text, "operator": node.operator, "holds": next(holds)}
    if node.operator:
        return said | {"parts": [_tree(con, part, holds, values) for part in node.parts]}
    said["values"] = {name: values[name] for name in sorted(node.columns)}
    places = {rank.attribute: _place(con, rank.attribute, rank.best, values[rank.attribute]) for rank in node.ranks}
    return said | ({"ranks": places} if places else {})


def _place(con: duckdb.DuckDBPyConnection, column: str, best: str, value: Any) -> dict[str, int] | None:
    """The place of a value, 1 for the best, and among how many; profiles of one value share the first place."""
    if value is None:
        return None
    better = ">" if best == "top" else "<"
    place, among = con.execute(
        f'SELECT count(*) FILTER ("{column}" {better} ?) + 1, count("{column}") FROM attributes', [value]
    ).fetchall()[0]
    return {"place": place, "among": among}


def _origin(
    con: duckdb.DuckDBPyConnection, project: Project, known: Attributes, profile: str, name: str, value: Any
) -> dict[str, Any]:  # fmt: skip
    """Where a value comes from, but for the events behind a feature."""
    if name.startswith(CONSENT):
        purpose = name.removeprefix(CONSENT)
        said = [fact for fact in consents(con, project, profile) if fact["purpose"] == purpose]
        return {"kind": "consent", "value": value, "purpose": purpose, "said": said}
    for view, (_, features) in known.views.items():
        if name in {feature.lower() for feature in features}:
            version = versioned(project.definitions.views[view], dict(project.definitions.sources))
            return {"kind": "feature", "value": value, "view": version, "cutoff": known.cutoff}
    task = next((t for t in known.tasks if name in {t + suffix for suffix in SCORE_COLUMNS}), None)
    if task is not None:
        return {"kind": "score", "value": value, "task": task, **_contract(con, project, known, profile, task)}
    rows = con.execute(
        "SELECT source, known_at, event_at, fact_id, rule FROM golden WHERE profile_id = ? AND lower(attribute) = ?",
        [profile, name],
    ).fetchall()
    if not rows:
        own = name in ("profile_id", "identifiers")
        return {"kind": "identifier" if own else "trait", "value": value, "source": GRAPH if own else None}
    source, known_at, event_at, fact, rule = rows[0]
    kind = "identifier" if source == GRAPH else "trait"
    return {"kind": kind, "value": value, "source": source, "known_at": known_at.astimezone(UTC),
            "event_at": event_at and event_at.astimezone(UTC), "fact_id": fact, "kept_by": rule}  # fmt: skip


def _contract(
    con: duckdb.DuckDBPyConnection, project: Project, known: Attributes, profile: str, task: str
) -> dict[str, Any]:  # fmt: skip
    for score in attributes.scores_of(con, project, profile):
        if score["task"] == task:
            return {"contract": {name: score[name] for name in _CONTRACT}}
    for purpose in sorted(known.tasks[task]):
        if without(con, project, purpose, project.now, [profile]):
            return {"missing": f"no consent to {purpose}, which it is made for"}
    return {"missing": "has no live score: it was not in the population, or nobody scored it since"}


def _side(con: duckdb.DuckDBPyConnection, project: Project, profile: str, name: str) -> dict[str, Any] | None:
    """The last export that the profile was drawn for: side, exported_at."""
    if not table(project, EXPOSURES).exists:
        return None
    rows = con.execute(
        f"SELECT side, exported_at FROM ({exposures(project, name)}) WHERE profile_id = ? ORDER BY 2 DESC, recorded",
        [profile],
    ).fetchall()
    return {"side": rows[0][0], "exported_at": rows[0][1].astimezone(UTC)} if rows else None


def _events(project: Project, profile: str, feature: str, cutoff: datetime, most: int) -> dict[str, Any]:
    """The latest events behind a feature, how many there are, and what it would be without any."""
    try:
        found = behind(project, profile, feature, cutoff)
    except ForetellError as error:  # of everybody's facts, or the profile was not known at the cutoff
        return {"events": [], "behind": 0, "note": str(error)}
    return {"events": found.facts[:most], "behind": len(found.facts), "without_any": found.empty}


def lines(node: dict[str, Any], depth: int = 0) -> Sequence[tuple[int, str, bool | None, str]]:
    """The tree of conditions as rows to print: depth, text, holds, what the profile has."""
    if not node["operator"]:
        said = [f"{name} is {_said(value)}" for name, value in node["values"].items()]
        for name, place in node.get("ranks", {}).items():
            said += [f"place {place['place']:,} of {place['among']:,} by {name}"] if place else []
        return [(depth, node["text"], node["holds"], "; ".join(said))]
    words = {"and": "all of", "or": "any of", "not": "not"}
    inner = [line for part in node["parts"] for line in lines(part, depth + 1)]
    return [(depth, words[node["operator"]], node["holds"], ""), *inner]


def _said(value: Any) -> str:
    return "missing" if value is None else f"{value:,.4g}" if isinstance(value, float) else str(value)

"""Are these two one person? Pairs that wait for an answer, and what an answer becomes.

"same" links the two from now on, as evidence of the source `review`; "different" is a veto. Both are decisions like
any other: `identity decisions` lists them, `identity undo` takes them back, and a pair that was answered is not
asked again.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from foretell.errors import DataError, NotReady, unknown
from foretell.project import Project
from lake.engine import session
from unification.decisions import SAME, decide, decisions
from unification.graph import VETO
from unification.identity import members_at
from unification.matching import kept
from unification.matching.kept import Pair

SHOWN_NOT = ("profile_id", "identifiers")
ANSWERS = {"same": SAME, "different": VETO}


@dataclass(frozen=True)
class Waiting:
    """A pair to be answered, its two profiles now, and both people's attributes, side by side."""

    pair: Pair
    profile_a: str
    profile_b: str
    values: dict[str, tuple[str, str]]


def waiting(project: Project) -> list[Waiting]:
    """The pairs that wait, strongest first: of two profiles about which nobody has decided."""
    pairs = [pair for pair in kept.pairs(project) if pair.state != kept.LINKED]
    if not pairs:
        return []
    made = decisions(project)
    with session(project) as con:
        owner = dict(con.execute(f"SELECT node, profile_id FROM ({members_at(project.now)})").fetchall())
        asked_for = con.execute("FROM profiles")
        names = [column for column, *_ in asked_for.description or []]
        rows = {}
        for values in asked_for.fetchall():
            row = dict(zip(names, values, strict=True))
            rows[row["profile_id"]] = {k: "" if v is None else str(v) for k, v in row.items() if k not in SHOWN_NOT}
    settled = {frozenset((owner.get(a), owner.get(b))) for a, b in made[made["known_to"].isna()][["a", "b"]].to_numpy()}
    found: list[Waiting] = []
    asked: set[frozenset[str]] = set()
    for pair in pairs:
        one, other = owner.get(pair.a), owner.get(pair.b)
        both = frozenset((one, other))
        if one is None or other is None or one == other or both in settled or both in asked:
            continue
        asked.add(frozenset((one, other)))
        left, right = rows.get(one, {}), rows.get(other, {})
        values = {k: (left[k], right.get(k, "")) for k in left if left[k] or right.get(k)}
        found.append(Waiting(pair, one, other, values))
    return found


def answer(project: Project, said: Mapping[str, str], because: str = "") -> list[str]:
    """Write down answers, pair id -> "same" or "different". Returns the ids of the decisions. Nothing is written if one
    of them is no such pair or no such answer."""
    if not said:
        return []
    there = {one.pair.match_id: one.pair for one in waiting(project)}
    if not there:
        raise NotReady("review", "no pair waits for an answer", "`foretell identity match` finds pairs")
    chosen = []
    for name, text in said.items():
        if name not in there:
            raise unknown("pair that waits for an answer", name, there)
        if text not in ANSWERS:
            raise unknown("answer", text, ANSWERS)
        chosen.append((ANSWERS[text], there[name]))
    return [decide(project, kind, pair.a, pair.b, because or f"review of {pair.match_id}") for kind, pair in chosen]


def write(pairs: Sequence[Waiting], file: Path) -> int:
    """A CSV with one row a pair, its column `answer` empty: for somebody to fill in. Returns how many."""
    names = list(dict.fromkeys(name for one in pairs for name in one.values))
    with file.open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        head = ["pair", "answer", "probability", "weight", "reason"]
        rows.writerow([*head, *(f"{name}_{side}" for name in names for side in "ab")])
        for one in pairs:
            values = [value for name in names for value in one.values.get(name, ("", ""))]
            pair = one.pair
            rows.writerow([pair.match_id, "", f"{pair.probability:.4f}", f"{pair.weight:.2f}", pair.reason, *values])
    return len(pairs)


def read(file: Path) -> dict[str, str]:
    """The answers in such a file; rows without one are left out."""
    if not file.exists():
        raise DataError(str(file), "expected a file with the columns pair and answer, got none", "`--to` writes one")
    with file.open(newline="", encoding="utf-8-sig") as stream:
        rows = csv.DictReader(stream)
        if not {"pair", "answer"} <= set(rows.fieldnames or []):
            got = ", ".join(rows.fieldnames or []) or "an empty file"
            raise DataError(str(file), f"expected the columns pair and answer, got {got}", "`--to` writes such a file")
        return {row["pair"].strip(): row["answer"].strip().lower() for row in rows if (row["answer"] or "").strip()}

"""How many would it be, and how much do segments overlap? Asked before anything is saved or sent.

Who must not be used for the purpose is in no count but the one that says how many consent costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foretell.errors import ForetellError
from foretell.project import Project
from lake.catalogue import CONSENT
from lake.engine import session
from segments import attributes
from segments.audience import asked, consented, one_pass, prepared

_ROWS = 100_000  # are counted at once


@dataclass(frozen=True)
class Step:
    """A condition of a rule: how many profiles satisfy it alone, in turn (it and all before it), and for how many it
    is unknown, for want of a value; all of those who may be used."""

    text: str
    alone: int
    in_turn: int
    unknown: int


@dataclass(frozen=True)
class Size:
    """total: all profiles. agreed: those that may be used for the purpose. members: those of them that satisfy the
    rule. without_consent: how many more satisfy it. steps: the conditions joined by the outermost `and`."""

    rule: str
    purpose: str
    total: int
    agreed: int
    members: int
    without_consent: int
    steps: list[Step]


def size(project: Project, name: str, purpose: str | None = None) -> Size:
    """How many satisfy a segment or a rule now, and what each of its conditions leaves, by itself and in turn.

    purpose: what they would be chosen for; None: as the segment says.
    """
    rule, purpose = asked(project, name, purpose)
    conditions = rule.parts if rule.operator == "and" else [rule]
    with session(project) as con:
        known = attributes.known(con, project)
        whole, *parts = prepared(con, project, known, [rule, *conditions], {CONSENT + purpose})
        agreed, turn = consented(known, purpose), "true"
        counts = ["true", agreed, f"{agreed} AND ({whole})", f"NOT {agreed} AND ({whole})"]
        for part in parts:
            turn += f" AND ({part})"
            counts += [f"{agreed} AND ({part})", f"{agreed} AND {turn}", f"{agreed} AND ({part}) IS NULL"]
        listed = ", ".join(f"count(*) FILTER ({count})" for count in counts)
        total, may, members, refused, *rest = con.execute(f"SELECT {listed} FROM attributes").fetchall()[0]
    steps = [Step(p.text, *rest[3 * i : 3 * i + 3]) for i, p in enumerate(conditions)]
    return Size(rule.text, purpose, total, may, members, refused, steps)


@dataclass(frozen=True)
class Overlap:
    """counts[i, j]: how many are in both of two segments; on the diagonal, the size of one. total: all profiles."""

    names: list[str]
    counts: np.ndarray
    total: int
    problems: dict[str, ForetellError]

    @property
    def shares(self) -> np.ndarray:
        """[i, j]: of the members of i, the share that is in j too; NaN if i has none."""
        sizes = self.counts.diagonal()[:, None]
        return np.divide(self.counts, sizes, out=np.full(self.counts.shape, np.nan), where=sizes > 0)

    @property
    def likeness(self) -> np.ndarray:
        """[i, j]: of those in either, the share in both (Jaccard); NaN if there are none."""
        sizes = self.counts.diagonal()
        either = sizes[:, None] + sizes[None, :] - self.counts
        return np.divide(self.counts, either, out=np.full(self.counts.shape, np.nan), where=either > 0)


def overlap(project: Project, names: Sequence[str] = ()) -> Overlap:
    """How many people any two of these declared segments share (default: all of them), each with its own consent.

    Those whose rule cannot be answered yet are left out, and named in `problems`.
    """
    with session(project) as con:
        found = one_pass(con, project, list(dict.fromkeys(names)) or None)
        ready = found.ready
        if names:  # as they were asked for
            ready = sorted(ready, key=lambda pair: list(names).index(pair[0].name))
        counts, total = np.zeros((len(ready), len(ready)), dtype=np.int64), 0
        listed = ", ".join(f"coalesce({condition}, false)::UTINYINT" for _, condition in ready) or "0"
        for rows in con.sql(f"SELECT {listed} FROM attributes").to_arrow_reader(_ROWS):
            inside = np.column_stack([column.to_numpy(zero_copy_only=False) for column in rows.columns])
            inside = inside[:, : len(ready)].astype(np.float32)  # exact: a count of these rows is below 2^24
            counts += (inside.T @ inside).astype(np.int64)
            total += len(rows)
    problems = {name: said for name, said in found.conditions.items() if not isinstance(said, str)}
    return Overlap([segment.name for segment, _ in ready], counts, total, problems)

"""Whose score comes with its reasons? They cost many times what the score does, and most are never read.

The others' are worked out when somebody asks: `foretell score explain` says why of any score, old or new.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from foretell.errors import DataError
from foretell.project import Project
from segments.audience import audience

FEW = 50_000  # scores of a task, up to which all have their reasons unless somebody says otherwise
SHARE = 0.05  # of more of them


@dataclass(frozen=True)
class Chosen:
    """Who gets reasons. share: the top of each task by value, from 0 (nobody) to 1 (all). members: these profiles
    instead. text: as it was said."""

    text: str
    share: float = 0.0
    members: pa.Array | None = None

    @property
    def nobody(self) -> bool:
        return self.members is None and not self.share

    def among(self, profiles: pa.Array, values: np.ndarray) -> np.ndarray:
        """The places of those chosen, in order. Of equal values the first by profile_id are taken."""
        if self.members is not None:
            return np.flatnonzero(is_among(profiles, self.members))
        count = math.ceil(self.share * len(values) - 1e-9)
        return np.sort(np.argsort(-values, kind="stable")[:count])


def is_among(profiles: pa.Array, members: pa.Array) -> np.ndarray:
    """(n,): whether each profile is one of the members."""
    found = pc.call_function("is_in", [profiles], pc.SetLookupOptions(value_set=members))
    return found.to_numpy(zero_copy_only=False)


def choose(project: Project, text: str | None, most: int) -> Chosen:
    """What `--reasons` says: all, none, top:0.05, or a segment or rule; None: by how many scores there are at most."""
    if text is None:
        return Chosen("all", 1.0) if most <= FEW else Chosen(f"top:{SHARE}", SHARE)
    if text in ("all", "none"):
        return Chosen(text, float(text == "all"))
    if text.startswith("top:"):
        try:
            share = float(text.removeprefix("top:"))
        except ValueError:
            share = math.nan
        if not 0 < share <= 1:
            raise DataError(text, "expected a share above 0 and up to 1 after top:", "say --reasons top:0.05")
        return Chosen(text, share)
    members = audience(project, text, ["profile_id"]).members["profile_id"]
    return Chosen(text, members=pa.array(members.tolist(), pa.string()))

"""The identity graph for tests: a store in memory or in a folder, and its tables kept as patched, as plain frames."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from unification.graph import NEVER
from unification.store import Decided, Limits, Store

NO_LIMIT = 10_000


@dataclass
class Graph:
    member: pd.DataFrame
    alias: pd.DataFrame
    refused: pd.DataFrame


def high(name: str) -> int:
    """Stands for a birth id; sorts as names do."""
    return int.from_bytes(name.encode().ljust(8, b"\0"), "big")


def text(name: str) -> str:
    """The identifier of a type that is the name's first letter."""
    return f"{name[0]}:{name}"


def plain(table: pa.Table) -> pd.DataFrame:
    """A table of the store with names as tests have them, without the type."""
    frame = table.to_pandas()
    for column in {"node", "a", "b", "reason"} & set(frame.columns):
        frame[column] = frame[column].str.replace(r"\b\w:", "", n=1, regex=True)
    return frame


def birth(name: str) -> str:
    return f"p{high(name):016x}0000"


def micros(instants: pd.Series) -> np.ndarray:
    naive = pd.DatetimeIndex(instants).tz_convert("UTC").tz_localize(None).to_numpy("datetime64[us]")
    return np.where(np.isnat(naive), NEVER, naive.astype(np.int64))


class Kept:
    """A store, and what a reader of its patched tables sees."""

    def __init__(self, limits: Limits, folder: Path | None = None) -> None:
        self.store = Store(limits, folder, anew=True)
        self.rows: dict[str, dict[Any, list[dict]]] = {"member": {}, "alias": {}, "refused": {}}
        self.births: dict[str, str] = {}
        self.owners: set[str] = set()

    def add(
        self,
        nodes: pd.DataFrame,
        edges: pd.DataFrame,
        decisions: pd.DataFrame | None = None,
        blocked: set[str] = frozenset(),
    ) -> None:  # type: ignore[assignment]
        """nodes: node, known_at; edges: a, b, known_at; ends of edges that nodes leave out are taken from there."""
        self.births |= {birth(n): f"p-{n}" for n in nodes["node"]}
        made = [
            Decided(f"{d.kind} {d.a} {d.b} {d.known_at}", int(d.kind == "unlink"), text(d.a), text(d.b), start, end)
            for d, start, end in zip(
                decisions.itertuples(), micros(decisions["known_at"]), micros(decisions["known_to"]), strict=True
            )
        ] if decisions is not None and len(decisions) else []  # fmt: skip

        def describe(names: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            plain = [name.partition(":")[2] for name in names.to_pylist()]
            kept_out = np.array([n in blocked for n in plain], bool)
            return np.array([high(n) for n in plain], np.uint64), np.zeros(len(plain), np.uint16), kept_out

        self.store.meet(pa.array(map(text, nodes["node"]), pa.string()), micros(nodes["known_at"]))
        ends = [self.store.find(list(map(text, edges[end]))) for end in ("a", "b")]
        self.store.link(*ends, micros(edges["known_at"]))
        changed = self.store.walk(describe, made)
        member, alias, refused = (plain(table) for table in self.store.tables(changed))
        births = self.store.birth_ids(changed.nodes).to_pylist()
        names = [name.partition(":")[2] for name in self.store.names(changed.nodes).to_pylist()]
        self.owners = set(self.store.birth_ids(changed.owners).to_pylist())
        for name, frame, key, keys in (
            ("member", member, "node", names), ("alias", alias, "loser", births),
            ("refused", refused, "edge", changed.edges.tolist()),
        ):  # fmt: skip
            for each in keys:
                self.rows[name].pop(each, None)
            for row in frame.to_dict("records"):
                self.rows[name].setdefault(row[key], []).append(row)

    def frames(self) -> Graph:
        shown = {}
        for name, columns, order in (
            ("member", ["node", "birth_id", "profile_id", "known_from", "known_to"], ["node", "known_from"]),
            ("alias", ["loser", "winner", "known_at", "known_to", "a", "b"], ["known_at", "loser"]),
            ("refused", ["a", "b", "known_at", "reason"], ["known_at", "a", "b"]),
        ):
            rows = [row for rows in self.rows[name].values() for row in rows]
            frame = pd.DataFrame(rows, columns=columns)
            for column in columns:
                if column.startswith("known"):
                    frame[column] = pd.to_datetime(frame[column], utc=True).astype("datetime64[us, UTC]")
                if column == "a":  # which end is called a says nothing
                    ends = [sorted(pair) for pair in zip(frame["a"], frame["b"], strict=True)]
                    frame["a"], frame["b"] = [e[0] for e in ends], [e[1] for e in ends]
                if not column.startswith("known"):
                    frame[column] = frame[column].astype(object)
                if column in ("birth_id", "profile_id", "loser", "winner"):
                    frame[column] = frame[column].map(self.births)
            shown[name] = frame.sort_values(order, ignore_index=True)
        return Graph(**shown)


def connect(
    nodes: pd.DataFrame, edges: pd.DataFrame, largest: int = 50, decisions: pd.DataFrame | None = None, *,
    limits: Limits | None = None, blocked: set[str] = frozenset(),
) -> Graph:  # fmt: skip  # type: ignore[assignment]
    """The graph of all of it at once."""
    kept = Kept(limits or Limits(largest))
    kept.add(nodes, edges, decisions, blocked)
    return kept.frames()

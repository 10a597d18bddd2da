"""What do boosted trees say about a row? LightGBM's own answer to the last bit, many times as fast, by compiled loops.

A row's way through a tree cannot be foretold, and a processor that guesses wrong waits. So nothing here branches on a
value. Of many rows each split chooses for all of them at once between what is found below it on its left and on its
right; that is done for several rows in a step, for the splits that a row never comes to as well, and still costs least.
Of few rows each walks by itself, as many steps as its tree is deep: who arrives early steps in place.

The rules of a split (what is unknown, what is a category) are those of LightGBM's include/LightGBM/tree.h. They are
read into the values beforehand: what goes left whatever the threshold becomes -inf, what goes right NaN.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import lightgbm as lgb
import numpy as np
from numba import njit

COLUMN = np.dtype([("feature", "i8"), ("unknown", "f8"), ("zero", "f8"), ("codes", "i8")], align=True)
"""A feature as some splits see it. unknown, zero: what stands for NaN and for 0. codes: where the set of codes begins
that go left, -1 of a number."""
CHOICE = np.dtype(
    [("threshold", "f8"), ("first", "f8"), ("second", "f8"), ("column", "u8"), ("slot", "u8"), ("kind", "i4"),
     ("first_is_left", "i4")], align=True,
)  # fmt: skip
"""A split as a step of a calculation on many rows. first, second: the values of the sides that are leaves; others lie
in the slot and in the one behind it. The result goes to the slot. kind: how many sides are no leaves."""
NODE = np.dtype([("threshold", "f8"), ("value", "f8"), ("column", "u4"), ("left", "u4")], align=True)
"""A split or a leaf as a place on a way: the right one lies behind the left one, and a leaf leads to itself."""
TREE = np.dtype([("root", "u4"), ("steps", "i4"), ("choices", "i8")], align=True)
"""choices: where its own end."""
NEVER_NAN = (0, "None", False)  # the first column: what leaves and trees of one leaf look at
ZERO = float(np.float32(1e-35))  # LightGBM's kZeroThreshold: nothing is nearer to 0 than this, but 0
TOGETHER = 128  # rows of which all columns and slots stay in the nearest caches
LANES = 32  # rows of a step of the loops, unrolled: a block is calculated up to a multiple of them
DEARER = 2  # how many times as long as a step of one row a choice takes, however few the rows are


class Columns:
    """What the splits of a booster look at: each feature as often as splits see it in another way."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, str, bool | str], int] = {NEVER_NAN: 0}

    def of(self, split: dict[str, Any]) -> int:
        """The place of the column that a split reads."""
        way = split["threshold"] if split["decision_type"] == "==" else split["default_left"]
        return self._known.setdefault((split["split_feature"], split["missing_type"], way), len(self._known))

    def made(self) -> tuple[np.ndarray, np.ndarray]:
        """(columns, codes): a COLUMN each, and the sets of codes that they speak of."""
        sets, columns = [np.zeros(0, dtype=np.uint64)], []
        for feature, missing, way in self._known:
            apart = -np.inf if way is True else np.nan
            unknown, zero = {"NaN": (apart, 0.0), "Zero": (apart, apart)}.get(missing, (0.0, 0.0))
            columns.append((feature, unknown, zero, sum(map(len, sets)) if isinstance(way, str) else -1))
            if isinstance(way, str):
                sets.append(_bits([int(code) for code in way.split("||")]))
        return np.array(columns, COLUMN), np.concatenate(sets)


class Forest:
    """The trees of a booster, with one output."""

    def __init__(self, booster: lgb.Booster):
        self._columns = Columns()
        nodes: list[tuple[float, float, int, int]] = []
        choices: list[tuple[float, float, float, int, int, int, bool]] = []
        trees = []
        for tree in booster.dump_model()["tree_info"]:
            root, steps = len(nodes), self._add_nodes(tree["tree_structure"], nodes)
            choices += self._choices(tree["tree_structure"]) or [_constant(tree["tree_structure"]["leaf_value"])]
            trees.append((root, steps, len(choices)))
        self.trees, self.nodes, self.choices = np.array(trees, TREE), np.array(nodes, NODE), np.array(choices, CHOICE)
        self.choices["slot"] *= TOGETHER
        self.room = int(self.choices["slot"].max(initial=0)) + 2 * TOGETHER  # for the slots; the last has one behind it
        self.few = DEARER * len(choices) // max(int(self.trees["steps"].sum()), 1)
        self.columns, self.codes = self._columns.made()

    def _add_nodes(self, tree: dict[str, Any], nodes: list) -> int:
        """Write the places of a tree, level by level, behind what is there; how many steps the longest way has."""
        start, steps = len(nodes), 0
        waiting = [(tree, 0)]
        for here, steps in waiting:  # it grows meanwhile; the last one is the farthest
            if "leaf_value" in here:
                nodes.append((np.inf, here["leaf_value"], 0, len(nodes)))  # column 0 is never NaN
            else:
                nodes.append((threshold(here), 0.0, self._columns.of(here), start + len(waiting)))
                waiting += [(here["left_child"], steps + 1), (here["right_child"], steps + 1)]
        return steps

    def _choices(self, tree: dict[str, Any]) -> list[tuple[float, float, float, int, int, int, bool]]:
        """The calculation of a tree, whose result is in slot 0; nothing of a leaf. The larger side comes first, so that
        of n leaves no more than log n slots wait."""
        if "leaf_value" in tree:
            return []
        left, right = self._choices(tree["left_child"]), self._choices(tree["right_child"])
        sides = [(left, tree["left_child"]), (right, tree["right_child"])]
        straight = len(left) >= len(right)
        (before, first), (after, second) = sides if straight else sides[::-1]
        values = first.get("leaf_value", 0.0), second.get("leaf_value", 0.0)
        own = threshold(tree), *values, self._columns.of(tree), 0, bool(before) + bool(after), straight
        return before + [(*done[:4], done[4] + 1, *done[5:]) for done in after] + [own]

    def sum(self, A: np.ndarray, threads: int = 1) -> np.ndarray:
        """(n,): the sum of the leaves that each row of A (n, features) ends in, tree by tree."""
        A, found = np.ascontiguousarray(A, dtype=float), np.zeros(len(A))
        made = self.columns, self.codes, self.trees, self.nodes, self.choices, self.room, self.few
        if threads == 1:
            _sum(A, *made, found)
            return found
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda part: _sum(A[part], *made, found[part]), _parts(len(A), threads)))
        return found


def threshold(split: dict[str, Any]) -> float:
    """What is compared. A dump says ±1e300 of a threshold beyond: inf, where only the unknown goes right, or beside
    -inf the least number."""
    if split["decision_type"] == "==":
        return 0.0
    said = float(split["threshold"])
    return said if abs(said) < 1e300 else np.inf if said > 0 else -sys.float_info.max


def _constant(value: float) -> tuple[float, float, float, int, int, int, bool]:
    """A tree of one leaf: a choice between the same."""
    return np.inf, value, value, 0, 0, 0, True


def _parts(rows: int, many: int) -> Iterator[slice]:
    ends = np.linspace(0, rows, many + 1).astype(int)
    yield from (slice(start, end) for start, end in pairwise(ends))


def _bits(codes: list[int]) -> np.ndarray:
    """A set of codes as 64 bit words, how many of them first."""
    words = np.zeros(max(codes) // 64 + 1, dtype=np.uint64)
    for code in codes:
        words[code // 64] |= np.uint64(1) << np.uint64(code % 64)
    return np.concatenate([np.array([len(words)], dtype=np.uint64), words])


@njit(cache=True, nogil=True)
def _sum(
    A: Any, columns: Any, codes: Any, trees: Any, nodes: Any, choices: Any, room: int, few: int, found: Any
) -> None:  # fmt: skip
    """Add up what all trees say of each row of A, in their order. few: up to how many rows had better walk."""
    for start in range(0, len(A), TOGETHER):
        n = min(TOGETHER, len(A) - start)
        wide = n if n <= few else (n + LANES - 1) // LANES * LANES
        seen = np.empty(len(columns) * wide)
        read(A[start : start + n], columns, codes, wide, seen)
        if n <= few:
            _walk(seen, wide, trees, nodes, found[start : start + n])
        else:
            _choose(seen, wide, trees, choices, np.empty(room), found[start : start + n])


@njit(cache=True, nogil=True)
def read(A: Any, columns: Any, codes: Any, wide: int, seen: Any) -> None:
    """Write the columns of all rows, one after another, each as wide as said."""
    for place in range(len(columns)):
        column = columns[place]
        for row in range(len(A)):
            x = A[row, column.feature]
            if column.codes >= 0:
                x = -np.inf if _among(x, column.codes, codes) else np.nan
            else:
                x = column.zero if abs(x) <= ZERO else (column.unknown if x != x else x)
            seen[place * wide + row] = x


@njit(cache=True, nogil=True)
def _among(x: float, first: int, codes: Any) -> bool:
    if not (x > -1.0 and x < 2147483648.0):  # no code, or unknown
        return False
    code = int(x)
    if code // 64 >= int(codes[first]):
        return False
    return (codes[first + 1 + code // 64] >> np.uint64(code % 64)) & np.uint64(1) == np.uint64(1)


@njit(cache=True, nogil=True)
def _walk(seen: Any, wide: int, trees: Any, nodes: Any, found: Any) -> None:
    for row in range(len(found)):
        total = 0.0
        for tree in trees:
            at = np.uint64(tree.root)
            for _ in range(tree.steps):
                node = nodes[at]
                right = not seen[np.uint64(node.column) * np.uint64(wide) + np.uint64(row)] <= node.threshold
                at = np.uint64(node.left) + np.uint64(right)
            total += nodes[at].value
        found[row] = total


@njit(cache=True, nogil=True)
def _choose(seen: Any, wide: int, trees: Any, choices: Any, slots: Any, found: Any) -> None:
    """All indices are unsigned: a signed one may count from the end, and loops that have to look are not vectorised."""
    total, rows, done = np.zeros(wide), np.uint64(wide), 0
    for tree in trees:
        for at in range(done, tree.choices):
            choice = choices[at]
            threshold, kept, other, left = choice.threshold, choice.first, choice.second, choice.first_is_left == 1
            x, slot = choice.column * rows, choice.slot
            if choice.kind == 0:
                for row in range(rows):
                    slots[slot + row] = kept if (seen[x + row] <= threshold) == left else other
            elif choice.kind == 1:
                for row in range(rows):
                    below = slots[slot + row]
                    slots[slot + row] = below if (seen[x + row] <= threshold) == left else other
            else:
                for row in range(rows):
                    below, beside = slots[slot + row], slots[slot + np.uint64(TOGETHER) + row]
                    slots[slot + row] = below if (seen[x + row] <= threshold) == left else beside
        done = tree.choices
        for row in range(rows):
            total[row] += slots[row]
    for row in range(len(found)):
        found[row] = total[row]

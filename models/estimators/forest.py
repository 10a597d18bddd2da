"""What do boosted trees say about a row? LightGBM's own answer to the last bit, from flat arrays by a compiled walk.

LightGBM's predict takes tens of microseconds before it looks at the first tree, and longer than this for many rows.
The rules of a split (what is unknown, what is a category) are those of LightGBM's include/LightGBM/tree.h.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import lightgbm as lgb
import numpy as np
from numba import njit

NODE = np.dtype([("threshold", "f8"), ("feature", "i4"), ("left", "i4"), ("right", "i4"), ("kind", "i4")], align=True)
"""One split. left, right: where to go on; below 0 a leaf, ~ of its place. kind: of the flags below. threshold: of a
category, where its set of codes begins."""
LEFT, UNKNOWN_APART, ZERO_APART, CATEGORY = 1, 2, 4, 8
ZERO = 1e-35  # LightGBM's kZeroThreshold
TOGETHER = 256  # rows that go through one tree after another while it is at hand


class Forest:
    """The trees of a booster, with one output."""

    def __init__(self, booster: lgb.Booster):
        nodes: list[tuple[float, int, int, int, int]] = []
        roots, leaves, codes = [], [], [np.zeros(0, dtype=np.uint64)]
        for tree in booster.dump_model()["tree_info"]:
            roots.append(self._add(tree["tree_structure"], nodes, leaves, codes))
        self.nodes = np.array(nodes, dtype=NODE)
        self.roots, self.leaves = np.array(roots, dtype=np.int32), np.array(leaves, dtype=float)
        self.codes = np.concatenate(codes)

    def _add(self, tree: dict[str, Any], nodes: list, leaves: list[float], codes: list[np.ndarray]) -> int:
        """Write a tree behind what is there; its root."""
        if "leaf_value" in tree:
            leaves.append(tree["leaf_value"])
            return ~(len(leaves) - 1)
        place = len(nodes)
        nodes.append(None)
        kind = LEFT * tree["default_left"] | {"None": 0, "NaN": UNKNOWN_APART, "Zero": ZERO_APART}[tree["missing_type"]]
        threshold = tree["threshold"]
        if tree["decision_type"] == "==":
            kind |= CATEGORY
            threshold = float(sum(map(len, codes)))
            codes.append(_bits([int(code) for code in tree["threshold"].split("||")]))
        left, right = (self._add(tree[side], nodes, leaves, codes) for side in ("left_child", "right_child"))
        nodes[place] = (threshold, tree["split_feature"], left, right, kind)
        return place

    def sum(self, A: np.ndarray, threads: int = 1) -> np.ndarray:
        """(n,): the sum of the leaves that each row of A (n, features) ends in, tree by tree."""
        A, found = np.ascontiguousarray(A, dtype=float), np.zeros(len(A))
        if threads == 1:
            _walk(A, self.roots, self.nodes, self.leaves, self.codes, found)
            return found
        with ThreadPoolExecutor(threads) as pool:
            trees = self.roots, self.nodes, self.leaves, self.codes
            list(pool.map(lambda part: _walk(A[part], *trees, found[part]), _parts(len(A), threads)))
        return found


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
def _walk(A: Any, roots: Any, nodes: Any, leaves: Any, codes: Any, found: Any) -> None:
    for start in range(0, len(A), TOGETHER):
        end = min(start + TOGETHER, len(A))
        for root in roots:
            for row in range(start, end):
                at = root
                while at >= 0:
                    node = nodes[at]
                    x, kind = A[row, node.feature], node.kind
                    if kind & CATEGORY:
                        goes_left = False
                        if x == x and x > -1.0 and x < 2147483648.0:  # a code; unknown and others go right
                            first, code = int(node.threshold), int(x)
                            if code // 64 < int(codes[first]):
                                word = codes[first + 1 + code // 64]
                                goes_left = (word >> np.uint64(code % 64)) & np.uint64(1) == np.uint64(1)
                    else:
                        if x != x and not kind & UNKNOWN_APART:
                            x = 0.0
                        if (kind & UNKNOWN_APART and x != x) or (kind & ZERO_APART and abs(x) <= ZERO):
                            goes_left = kind & LEFT != 0
                        else:
                            goes_left = x <= node.threshold
                    at = node.left if goes_left else node.right
                found[row] += leaves[~at]

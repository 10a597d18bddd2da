"""What does each feature add to what trees say, of thousands of rows? TreeSHAP, with all that is no row's own prepared.

The values are those of Lundberg et al., From local explanations to global understanding (Nature Machine Intelligence
2020), over the training rows that reached each node, as LightGBM's `pred_contrib` gives them. What a leaf adds hangs on
a row only by which of the features on its path agree with it: for each of these 2^d patterns it is worked out once, and
a row looks it up (the idea of Yang, Fast TreeSHAP, 2022). Shallow trees have few patterns. Rows are asked many at a
time, in step, as models.estimators.forest does it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import factorial
from typing import Any

import numpy as np
from numba import njit

from models.estimators.forest import LANES, TOGETHER, Columns, read, threshold

MOST_CELLS = 8_000_000  # of the tables; a model of deep trees is left to LightGBM
MOST_FEATURES = 12  # on one path


@dataclass(frozen=True)
class Tables:
    """The trees of a booster, ready to be asked. See `tables`.

    columns, codes: of models.estimators.forest. Of each inner node: which of the columns it reads (node), and its
    threshold. begin: of each tree its first node and first leaf. Of each leaf: the first of its features and of its
    table. Of each of a leaf's features: its place among those of a row, and the nodes of the tree that speak of it on
    the path, as bits, with the answers that lead to the leaf. base: the mean answer of all rows.
    """

    columns: np.ndarray
    codes: np.ndarray
    node: np.ndarray
    threshold: np.ndarray
    begin: np.ndarray
    leaf_features: np.ndarray
    leaf_table: np.ndarray
    feature: np.ndarray
    asked: np.ndarray
    wanted: np.ndarray
    cells: np.ndarray
    base: float
    features: int


def tables(booster: Any) -> Tables | None:
    """The tables of a LightGBM booster, None if its trees are too deep for them."""
    columns = Columns()
    nodes: dict[str, list[Any]] = {"column": [], "threshold": [], "begin": []}
    leaves: dict[str, list[Any]] = {name: [] for name in ("features", "table", "feature", "asked", "wanted")}
    cells: list[np.ndarray] = []
    size, base = 0, 0.0
    dump = booster.dump_model()
    for tree in dump["tree_info"]:
        nodes["begin"].append([len(nodes["column"]), len(leaves["features"])])
        inner: list[dict[str, Any]] = []
        paths = list(_paths(tree["tree_structure"], inner, []))
        if len(inner) > 63:
            return None
        nodes["column"] += [columns.of(node) for node in inner]
        nodes["threshold"] += [threshold(node) for node in inner]
        total = sum(weight for _, weight, _ in paths) or 1.0
        for value, weight, path in paths:
            base += value * weight / total
            of: dict[int, list[tuple[int, bool, float]]] = {}
            for place, to_left, share in path:
                of.setdefault(inner[place]["split_feature"], []).append((place, to_left, share))
            if len(of) > MOST_FEATURES or (size := size + (len(of) << len(of))) > MOST_CELLS:
                return None
            leaves["features"].append(len(leaves["feature"]))
            leaves["table"].append(sum(map(len, cells)) if not cells else leaves["table"][-1] + len(cells[-1]))
            for feature, steps in of.items():
                leaves["feature"].append(feature)
                leaves["asked"].append(sum(1 << place for place, _, _ in steps))
                leaves["wanted"].append(sum(1 << place for place, to_left, _ in steps if to_left))
            shares = [float(np.prod([share for *_, share in steps])) for steps in of.values()]
            cells.append(_patterns(float(value), np.array(shares, dtype=float), _weights(len(shares))))
    nodes["begin"].append([len(nodes["column"]), len(leaves["features"])])
    leaves["features"].append(len(leaves["feature"]))
    return Tables(
        *columns.made(), np.array(nodes["column"], np.uint64), np.array(nodes["threshold"], np.float64),
        np.array(nodes["begin"], np.int64), np.array(leaves["features"], np.int64),
        np.array(leaves["table"], np.uint64), np.array(leaves["feature"], np.uint64),
        np.array(leaves["asked"], np.uint64), np.array(leaves["wanted"], np.uint64),
        np.concatenate(cells) if cells else np.empty(0), base, int(dump["max_feature_idx"]) + 1,
    )  # fmt: skip


def _paths(node: dict[str, Any], inner: list[dict[str, Any]], path: list[tuple[int, bool, float]]) -> Any:
    """(value, weight, path) of each leaf below; path: (place of a node, whether it goes left there, share of its rows).
    Inner nodes are numbered as they come."""
    if "split_feature" not in node:
        yield node["leaf_value"], float(node.get("leaf_count", 1)), path
        return
    place, count = len(inner), float(node["internal_count"])
    inner.append(node)
    for side in ("left_child", "right_child"):
        child = node[side]
        share = float(child.get("internal_count", child.get("leaf_count"))) / count
        yield from _paths(child, inner, [*path, (place, side == "left_child", share)])


@njit(cache=True)
def _patterns(value, shares, weights):
    """(d * 2^d,): what each of d features adds at a leaf, by which of them agree with it (bit i: the i-th does).

    shares: of each feature the part of the rows that goes on at its nodes, which stands for it where it is not known.
    weights: (d,), what a subset of the others counts, by its size.
    """
    d = len(shares)
    made = np.empty(d << d)
    by_size = np.empty(d)  # of subsets of the others, by size, the sum of what they let through
    for pattern in range(1 << d):
        for i in range(d):
            by_size[:] = 0.0
            by_size[0] = 1.0
            for j in range(d):
                if j == i:
                    continue
                agrees = (pattern >> j) & 1
                for s in range(d - 1, -1, -1):
                    grown = by_size[s] * shares[j]
                    if s and agrees:
                        grown += by_size[s - 1]
                    by_size[s] = grown
            through = 0.0
            for s in range(d):
                through += weights[s] * by_size[s]
            made[(i << d) + pattern] = through * (((pattern >> i) & 1) - shares[i]) * value
    return made


def _weights(d: int) -> np.ndarray:
    return np.array([factorial(s) * factorial(d - s - 1) / factorial(d) for s in range(d)])


def split(made: Tables, X: np.ndarray) -> np.ndarray:
    """(n, features): what each feature adds to the raw score of each row; row sum + base = raw score."""
    out = np.zeros((len(X), made.features))
    _split(
        np.ascontiguousarray(X, dtype=np.float64), made.columns, made.codes, made.node, made.threshold, made.begin,
        made.leaf_features, made.leaf_table, made.feature, made.asked, made.wanted, made.cells, out,
    )  # fmt: skip
    return out


@njit(cache=True, nogil=True)
def _split(
    X, columns, codes, node, threshold, begin, leaf_features, leaf_table, feature, asked, wanted, cells, out
):  # fmt: skip
    """All places are unsigned: see models.estimators.forest."""
    for start in range(0, len(X), TOGETHER):
        n = min(TOGETHER, len(X) - start)
        wide = n if n < LANES else (n + LANES - 1) // LANES * LANES
        rows = np.uint64(wide)
        seen, found = np.empty(len(columns) * wide), np.zeros(out.shape[1] * wide)
        read(X[start : start + n], columns, codes, wide, seen)
        went, pattern = np.empty(wide, dtype=np.uint64), np.empty(wide, dtype=np.uint64)
        for tree in range(len(begin) - 1):
            went[:] = 0
            for place in range(begin[tree, 0], begin[tree + 1, 0]):
                bit = np.uint64(1) << np.uint64(place - begin[tree, 0])
                x, most = node[place] * rows, threshold[place]
                for row in range(rows):
                    went[row] |= bit if seen[x + row] <= most else np.uint64(0)
            for leaf in range(begin[tree, 1], begin[tree + 1, 1]):
                first, last = leaf_features[leaf], leaf_features[leaf + 1]
                pattern[:] = leaf_table[leaf]
                for i in range(first, last):
                    bit, of, to = np.uint64(1) << np.uint64(i - first), asked[i], wanted[i]
                    for row in range(rows):
                        pattern[row] += bit if went[row] & of == to else np.uint64(0)
                many = np.uint64(1) << np.uint64(last - first)
                for i in range(first, last):
                    x, table = feature[i] * rows, np.uint64(i - first) * many
                    for row in range(rows):
                        found[x + row] += cells[table + pattern[row]]
        for row in range(n):
            for place in range(out.shape[1]):
                out[start + row, place] = found[place * wide + row]

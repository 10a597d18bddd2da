"""What does each feature add to what trees say, of thousands of rows? TreeSHAP, with all that is no row's own prepared.

The values are those of Lundberg et al., From local explanations to global understanding (Nature Machine Intelligence
2020), over the training rows that reached each node, as LightGBM's `pred_contrib` gives them. What a leaf adds hangs on
a row only by which of the features on its path agree with it: for each of these 2^d patterns it is worked out once, and
a row looks it up (the idea of Yang, Fast TreeSHAP, 2022). Shallow trees have few patterns.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import factorial
from typing import Any

import numpy as np
from numba import njit

MOST_CELLS = 8_000_000  # of the tables; a model of deep trees is left to LightGBM
MOST_FEATURES = 12  # on one path
_ZERO = 1e-35  # LightGBM's: nearer to 0 than this is 0, where a zero counts as missing
_NONE, _ZERO_MISSING, _NAN_MISSING = 0, 1, 2


@dataclass(frozen=True)
class Tables:
    """The trees of a booster, ready to be asked. See `tables`.

    Of each inner node: feature, threshold, whether unknown goes left, what is missing, where its codes are (text; -1:
    a number). begin: of each tree its first node and first leaf. Of each leaf: the first of its features and of its
    table. Of each of a leaf's features: its place among the columns, and the nodes of the tree that speak of it on the
    path, as bits, with the answers that lead to the leaf. base: the mean answer of all rows.
    """

    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    missing: np.ndarray
    codes: np.ndarray
    sets: np.ndarray
    begin: np.ndarray
    leaf_features: np.ndarray
    leaf_table: np.ndarray
    column: np.ndarray
    asked: np.ndarray
    wanted: np.ndarray
    cells: np.ndarray
    base: float
    columns: int


def tables(booster: Any) -> Tables | None:
    """The tables of a LightGBM booster, None if its trees are too deep for them."""
    nodes: dict[str, list[Any]] = {
        name: [] for name in ("feature", "threshold", "left", "missing", "codes", "begin")
    }  # fmt: skip
    leaves: dict[str, list[Any]] = {name: [] for name in ("features", "table", "column", "asked", "wanted")}
    sets: list[int] = [0]
    cells: list[np.ndarray] = []
    size, base = 0, 0.0
    dump = booster.dump_model()
    for tree in dump["tree_info"]:
        nodes["begin"].append([len(nodes["feature"]), len(leaves["features"])])
        inner: list[dict[str, Any]] = []
        paths = list(_paths(tree["tree_structure"], inner, []))
        if len(inner) > 63:
            return None
        for node in inner:
            _node(node, nodes, sets)
        total = sum(weight for _, weight, _ in paths) or 1.0
        for value, weight, path in paths:
            base += value * weight / total
            of: dict[int, list[tuple[int, bool, float]]] = {}
            for place, to_left, share in path:
                of.setdefault(inner[place]["split_feature"], []).append((place, to_left, share))
            if len(of) > MOST_FEATURES or (size := size + (len(of) << len(of))) > MOST_CELLS:
                return None
            leaves["features"].append(len(leaves["column"]))
            leaves["table"].append(sum(map(len, cells)) if not cells else leaves["table"][-1] + len(cells[-1]))
            for column, steps in of.items():
                leaves["column"].append(column)
                leaves["asked"].append(sum(1 << place for place, _, _ in steps))
                leaves["wanted"].append(sum(1 << place for place, to_left, _ in steps if to_left))
            shares = [float(np.prod([share for *_, share in steps])) for steps in of.values()]
            cells.append(_patterns(float(value), np.array(shares, dtype=float), _weights(len(shares))))
    nodes["begin"].append([len(nodes["feature"]), len(leaves["features"])])
    leaves["features"].append(len(leaves["column"]))
    return Tables(
        np.array(nodes["feature"], np.int32), np.array(nodes["threshold"], np.float64),
        np.array(nodes["left"], np.bool_), np.array(nodes["missing"], np.int8), np.array(nodes["codes"], np.int32),
        np.array(sets, np.uint32), np.array(nodes["begin"], np.int32), np.array(leaves["features"], np.int32),
        np.array(leaves["table"], np.int64), np.array(leaves["column"], np.int32),
        np.array(leaves["asked"], np.int64), np.array(leaves["wanted"], np.int64),
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


def _node(node: dict[str, Any], nodes: dict[str, list[Any]], sets: list[int]) -> None:
    nodes["feature"].append(node["split_feature"])
    nodes["left"].append(bool(node["default_left"]))
    nodes["missing"].append({"None": _NONE, "Zero": _ZERO_MISSING, "NaN": _NAN_MISSING}[node["missing_type"]])
    if node["decision_type"] == "==":  # text: these codes go left
        codes = [int(code) for code in str(node["threshold"]).split("||")]
        words = [0] * (max(codes) // 32 + 1)
        for code in codes:
            words[code // 32] |= 1 << (code % 32)
        nodes["codes"].append(len(sets))
        nodes["threshold"].append(0.0)
        sets += [len(words), *words]
    else:
        nodes["codes"].append(-1)
        nodes["threshold"].append(float(node["threshold"]))


@njit(cache=True)
def _patterns(value, shares, weights):
    """(2^d * d,): what each of d features adds at a leaf, by which of them agree with it (bit i: the i-th does).

    shares: of each feature the part of the rows that goes on at its nodes, which stands for it where it is not known.
    weights: (d,), what a subset of the others counts, by its size.
    """
    d = len(shares)
    made = np.empty((1 << d) * d)
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
            made[pattern * d + i] = through * (((pattern >> i) & 1) - shares[i]) * value
    return made


def _weights(d: int) -> np.ndarray:
    return np.array([factorial(s) * factorial(d - s - 1) / factorial(d) for s in range(d)])


def split(made: Tables, X: np.ndarray) -> np.ndarray:
    """(n, columns): what each column adds to the raw score of each row; row sum + base = raw score."""
    out = np.zeros((len(X), made.columns))
    _split(
        np.ascontiguousarray(X, dtype=np.float64), made.feature, made.threshold, made.left, made.missing, made.codes,
        made.sets, made.begin, made.leaf_features, made.leaf_table, made.column, made.asked, made.wanted, made.cells,
        out,
    )  # fmt: skip
    return out


@njit(cache=True)
def _split(
    X, feature, threshold, left, missing, codes, sets, begin, leaf_features, leaf_table, column, asked, wanted, cells,
    out,
):  # fmt: skip
    for tree in range(len(begin) - 1):  # a tree at a time: its tables stay in the processor's cache
        first, last = begin[tree, 0], begin[tree + 1, 0]
        for row in range(len(X)):
            went = np.int64(0)
            for node in range(first, last):
                if _goes_left(X[row, feature[node]], threshold[node], left[node], missing[node], codes[node], sets):
                    went |= np.int64(1) << np.int64(node - first)
            for leaf in range(begin[tree, 1], begin[tree + 1, 1]):
                start, end = leaf_features[leaf], leaf_features[leaf + 1]
                pattern = 0
                for i in range(start, end):
                    if went & asked[i] == wanted[i]:
                        pattern |= 1 << (i - start)
                cell = leaf_table[leaf] + pattern * (end - start)
                for i in range(start, end):
                    out[row, column[i]] += cells[cell + i - start]


@njit(cache=True)
def _goes_left(value, threshold, left, missing, codes, sets):
    """LightGBM's decisions, tree.h: NumericalDecision and CategoricalDecision."""
    if codes >= 0:
        if np.isnan(value):
            return False
        code = np.int64(value)
        if code < 0 or code >= 32 * np.int64(sets[codes]):
            return False
        return (np.int64(sets[codes + 1 + code // 32]) >> (code % 32)) & 1 == 1
    if np.isnan(value) and missing != 2:
        value = 0.0
    if (missing == 1 and -_ZERO <= value <= _ZERO) or (missing == 2 and np.isnan(value)):
        return left
    return value <= threshold

"""Pair and B-cubed scores against loops over all pairs and all items."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from unification.quality import compare


def naive(predicted: list[int], truth: list[int]) -> dict[str, float]:
    items = range(len(predicted))
    together = {(i, j) for i, j in combinations(items, 2) if predicted[i] == predicted[j]}
    belong = {(i, j) for i, j in combinations(items, 2) if truth[i] == truth[j]}
    found = {
        "pair_precision": len(together & belong) / len(together) if together else 1.0,
        "pair_recall": len(together & belong) / len(belong) if belong else 1.0,
    }
    precision, recall = [], []
    for i in items:
        p = {j for j in items if predicted[j] == predicted[i]}
        t = {j for j in items if truth[j] == truth[i]}
        precision.append(len(p & t) / len(p))
        recall.append(len(p & t) / len(t))
    found |= {"b3_precision": float(np.mean(precision)), "b3_recall": float(np.mean(recall))}
    for kind in ("pair", "b3"):
        p, r = found[f"{kind}_precision"], found[f"{kind}_recall"]
        found[f"{kind}_f1"] = 2 * p * r / (p + r) if p + r else 0.0
    return found


@pytest.mark.parametrize("seed", range(30))
def test_scores_equal_loops_over_pairs_and_items(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 40))
    predicted, truth = (rng.integers(0, rng.integers(1, n + 1), n).tolist() for _ in range(2))
    assert compare(pd.Series(predicted), pd.Series(truth)) == pytest.approx(naive(predicted, truth), abs=1e-12)


def test_labels_and_index_do_not_matter() -> None:
    predicted, truth = pd.Series(["x", "x", "y"], index=[5, 6, 7]), pd.Series([1, 1, 2])
    assert set(compare(predicted, truth).values()) == {1.0}


def test_one_cluster_of_everything_recalls_all_and_is_imprecise() -> None:
    scores = compare(pd.Series([0] * 4), pd.Series([0, 0, 1, 1]))
    assert scores["pair_precision"] == pytest.approx(2 / 6)
    assert scores["b3_precision"] == 0.5
    assert scores["pair_recall"] == scores["b3_recall"] == 1.0


def test_clusters_of_one_are_precise_and_recall_no_pair() -> None:
    scores = compare(pd.Series(range(4)), pd.Series([0, 0, 1, 1]))
    assert (scores["pair_precision"], scores["pair_recall"], scores["pair_f1"]) == (1.0, 0.0, 0.0)
    assert (scores["b3_precision"], scores["b3_recall"]) == (1.0, 0.5)

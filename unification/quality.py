"""How well did unification do, where the truth is known? Pairwise and B-cubed precision, recall and F1."""

from __future__ import annotations

import pandas as pd


def compare(predicted: pd.Series, truth: pd.Series) -> dict[str, float]:
    """Agreement of two partitions of the same items: aligned Series of cluster labels.

    pair_*: over unordered pairs of items in one cluster. b3_*: B-cubed (Bagga and Baldwin 1998), averaged over items.
    """
    sizes = pd.DataFrame({"p": predicted.to_numpy(), "t": truth.to_numpy()}).value_counts().rename("n").reset_index()
    p_size, t_size = sizes.groupby("p")["n"].transform("sum"), sizes.groupby("t")["n"].transform("sum")

    def pairs(n: pd.Series) -> float:
        return float((n * (n - 1) / 2).sum())

    both = pairs(sizes["n"])
    in_predicted, in_truth = pairs(sizes.groupby("p")["n"].sum()), pairs(sizes.groupby("t")["n"].sum())
    total = sizes["n"].sum()
    scores = {
        "pair_precision": both / in_predicted if in_predicted else 1.0,
        "pair_recall": both / in_truth if in_truth else 1.0,
        "b3_precision": float((sizes["n"] ** 2 / p_size).sum() / total),
        "b3_recall": float((sizes["n"] ** 2 / t_size).sum() / total),
    }
    for kind in ("pair", "b3"):
        precision, recall = scores[f"{kind}_precision"], scores[f"{kind}_recall"]
        scores[f"{kind}_f1"] = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return scores

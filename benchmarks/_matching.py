"""How well are people found in a table, unsupervised? Our matcher beside Splink in its documented set-up.

Truth is read for the figures only. Each contestant has a process of its own, so that memory is its own too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from benchmarks import _matching_splink, report
from unification.matching import matcher

FEW = 50_000  # rows up to which three rounds are measured


def connect(file: Path) -> duckdb.DuckDBPyConnection:
    """The table `given` of a Parquet or CSV file."""
    con = duckdb.connect()
    con.execute(
        "SET threads=2; SET memory_limit='8GB'; SET enable_progress_bar=false; SET python_enable_replacements=false"
    )
    reader = "read_csv" if file.suffix.lower() in (".csv", ".tsv") else "read_parquet"
    path = str(file).replace("'", "''")
    con.execute(f"CREATE TABLE given AS FROM {reader}('{path}')")
    return con


def ours(file: Path, truth: str, named: Mapping[str, str], at: float) -> dict[str, Any]:
    """Labels of the rows and what was used; in details how the pairs did and how many true ones blocking brought up."""
    con = connect(file)

    def run() -> tuple[Any, ...]:
        understood, columns = matcher.read(con, "given", named=named, never=[truth])
        model = matcher.train(con, columns, report.progress)
        matcher.predict(con, model)
        return understood, model, matcher.group(con, model, at)

    used, (understood, model, clustered) = report.measure(run)
    people = _truth(con, truth)
    pairs: Any = con.execute(f"SELECT l, r FROM pairs WHERE probability >= {at}").fetchnumpy()
    brought: Any = con.execute("SELECT join_key_l::BIGINT AS l, join_key_r::BIGINT AS r FROM _blocked").fetchnumpy()
    true = pairs_in(people[people >= 0])
    return {
        "used": used, "label": clustered.label, "people": people, "understood": understood.lines(),
        "household": _household(con, understood.household),
        "details": {
            "pairs_compared": len(brought["l"]), "rules": len(model.blocking), "true_pairs": true,
            "blocking_recall": _same(people, brought["l"], brought["r"]) / true if true else 1.0,
            **pair_scores(people, pairs["l"], pairs["r"]), "refused": len(clustered.refused),
            "left_out": len(understood.left_out),
        },
    }  # fmt: skip


def splink(file: Path, truth: str, named: Mapping[str, str]) -> dict[str, Any]:
    """The same by Splink's documented set-up, of the same columns."""
    con = connect(file)
    understood = matcher.understand(con, "given", named=named, never=[truth])
    used, (label, pairs) = report.measure(lambda: _matching_splink.link(con, "given", understood.kinds))
    found: Any = con.execute(f"SELECT unique_id_l::BIGINT AS l, unique_id_r::BIGINT AS r FROM {pairs}").fetchnumpy()
    return {"used": used, "label": label, "details": pair_scores(_truth(con, truth), found["l"], found["r"])}


def _truth(con: duckdb.DuckDBPyConnection, truth: str) -> np.ndarray:
    """Each row's person as a number, -1 where it is not known."""
    name = truth.replace('"', '""')
    return pd.factorize(con.execute(f'SELECT "{name}"::VARCHAR AS x FROM given').df()["x"])[0]


def _household(con: duckdb.DuckDBPyConnection, column: str) -> np.ndarray | None:
    return pd.factorize(con.execute(f'SELECT "{column}"::VARCHAR AS x FROM given').df()["x"])[0] if column else None


def _same(people: np.ndarray, left: np.ndarray, right: np.ndarray) -> int:
    return int(((people[left] == people[right]) & (people[left] >= 0)).sum())


def pairs_in(labels: np.ndarray) -> int:
    n = np.unique(labels, return_counts=True)[1].astype(np.int64)
    return int((n * (n - 1) // 2).sum())


def pair_scores(people: np.ndarray, left: np.ndarray, right: np.ndarray) -> dict[str, float]:
    """Precision, recall and F1 of pairs, those of which a person is not known left out."""
    known = (people[left] >= 0) & (people[right] >= 0)
    hit, said, true = _same(people, left, right), int(known.sum()), pairs_in(people[people >= 0])
    return {
        "pair_precision": hit / said if said else 1.0, "pair_recall": hit / true if true else 1.0,
        "pair_f1": 2 * hit / (said + true) if said + true else 1.0,
    }  # fmt: skip


def cluster_scores(people: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """B³ precision, recall and F1, and F1 of the pairs within clusters (1 where there are none in truth and answer)."""
    known = people >= 0
    people, label = people[known], np.unique(label[known], return_inverse=True)[1]
    _, both = np.unique(np.stack([people, label]), axis=1, return_inverse=True)
    sizes = [np.bincount(x)[x] for x in (both.ravel(), label, people)]
    precision, recall = float((sizes[0] / sizes[1]).mean()), float((sizes[0] / sizes[2]).mean())
    hit, said, true = (pairs_in(x) for x in (both.ravel(), label, people))
    return {
        "b3_precision": precision, "b3_recall": recall, "b3_f1": 2 * precision * recall / (precision + recall),
        "cluster_f1": 2 * hit / (said + true) if said + true else 1.0,
    }  # fmt: skip


def household_merges(people: np.ndarray, label: np.ndarray, household: np.ndarray) -> tuple[int, int]:
    """Pairs of members of a household of whom two records fell together, and pairs of members in all."""
    rows = pd.DataFrame({"p": people, "c": label, "h": household}).query("p >= 0 and h >= 0")
    members = rows.groupby("h").p.nunique()
    together = rows.drop_duplicates(["h", "c", "p"]).merge(rows.drop_duplicates(["h", "c", "p"]), on=["h", "c"])
    wrong = together[together.p_x < together.p_y].drop_duplicates(["h", "p_x", "p_y"])
    return len(wrong), int((members * (members - 1) // 2).sum())


def measure(file: Path, truth: str, named: Mapping[str, str], at: float, repeats: int | None) -> report.Report:
    """Both contestants on a file, and what is reported."""
    matcher.understand(connect(file), "given", named=named, never=[truth])  # what is wrong with it is said here
    rows = int(connect(file).execute("SELECT count(*) FROM given").fetchall()[0][0])
    kept: dict[str, Any] = {}

    def contest(name: str, function: Any, *arguments: Any) -> Any:
        def run() -> report.Usage:
            kept[name] = report.apart(function, *arguments)
            return kept[name]["used"]

        return run

    usages = report.interleaved(
        {
            "splink": contest("splink", splink, file, truth, named),
            "ours": contest("ours", ours, file, truth, named, at),
        },
        repeats or (3 if rows <= FEW else 1),
    )
    mine, theirs = kept["ours"], kept["splink"]
    people = mine["people"]
    scores, others = (cluster_scores(people, found["label"]) for found in (mine, theirs))
    details: dict[str, Any] = {"ours": {**scores, **mine["details"]}, "splink": {**others, **theirs["details"]}}
    if mine["household"] is not None:
        for name, found in (("ours", mine), ("splink", theirs)):
            wrong, members = household_merges(people, found["label"], mine["household"])
            details[name] |= {"household_wrong_merges": wrong, "household_rate": wrong / members if members else 0.0}
            details["household_member_pairs"] = members
    for line in mine["understood"]:
        report.progress(line)
    wall = {name: [u.wall for u in used] for name, used in usages.items()}
    rss = {name: [float(u.rss) for u in used] for name, used in usages.items()}
    bars = [
        report.bar("identity.b3_f1", [scores["b3_f1"]], f">={others['b3_f1']:.9g}"),
        report.bar("identity.b3_precision", [scores["b3_precision"]], ">=0.98"),
        report.bar("identity.cluster_f1", [scores["cluster_f1"]], f">={others['cluster_f1']:.9g}"),
        report.bar("identity.splink_b3_f1", [others["b3_f1"]], f"<={scores['b3_f1']:.9g}"),
        report.ratio("identity.wall_vs_splink", wall["ours"], wall["splink"], "<=1.25"),
        report.ratio("identity.rss_vs_splink", rss["ours"], rss["splink"], "<=1.3"),
    ]  # fmt: skip
    sizes = {"rows": rows, "people": len(np.unique(people[people >= 0])), "threshold": at}
    details["usage"] = report.medians(usages)
    return report.Report("identity", sizes, bars, report.versions("splink", "duckdb", "numpy"), details)

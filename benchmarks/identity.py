"""How fast does the identity graph form, and take in what is new?

Generated people with two to forty identifiers each, linked as events and records would; a few links are wrong.

  identity.stitch_speedup_vs_splink      Splink's clustering of the same encoded links, over ours of all times at once
  identity.raw_stitch_speedup_vs_splink  the same peer given the identifiers as text, over ours from the same text, both
                                         in memory (details, disk_vs_splink: the peer of encoded links over ours from
                                         text to the tables on the disk)
  identity.batch_speedup_vs_full         ours from text to the tables on the disk, over a batch of 10,000 links of which
                                         each brings something new: look-up and the patched tables on the disk included
  identity.batch_growth_1m_to_10m        a batch onto ten times as many links, over the same batch onto fewer

With --speed also what stands beside the graph, as their own benchmarks (golden, collector) measure it:

  identity.golden_vs_group_by            golden profiles from scratch, over one GROUP BY of the same rows
  identity.collector_vs_raw              events a second of the collector, over a bare route that appends and fsyncs

With FILE.parquet --truth COLUMN (or --people N, generated) instead how well people are found in a table, unsupervised,
beside Splink in its documented set-up at .5 (benchmarks/_matching.py):

  identity.b3_f1, identity.b3_precision, identity.cluster_f1   of our clusters; details: recall, pairs, households
  identity.splink_b3_f1                                        Splink's
  identity.wall_vs_splink, identity.rss_vs_splink              ours from the table to the clusters, over Splink's

Splink says who belongs together; ours also since when, who was who before, and what each profile's lasting id is.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks import _matching, _matching_people, collector, golden, report
from benchmarks.report import Usage, measure, progress
from foretell.errors import ForetellError
from unification.graph import Rules, Walked, by_part, shared_since, walk, with_turns
from unification.identity import describing, evidence, show, take_in
from unification.matching import matcher
from unification.store import Changed, Limits, Store

FULL, QUICK = 5_000_000, 50_000
LIMITS = Limits(50, {}, {"device": 3, "*": 20})
SAME = {"golden.vs_group_by": "identity.golden_vs_group_by", "collector.single_vs_bare": "identity.collector_vs_raw"}
KEY = "0" * 64
GIVEN = "SELECT a, b, known_at, 'shop' AS source, '' AS fact_id, {batch}::BIGINT AS batch FROM given"
KINDS = ("email", "phone", "device", "loyalty_card", "user_id")


@dataclass(frozen=True)
class Links:
    """nodes: how many. person: of each. a, b: links as numbers. at: microseconds, ascending."""

    nodes: int
    person: np.ndarray
    a: np.ndarray
    b: np.ndarray
    at: np.ndarray

    def names(self) -> pa.Array:
        """The identifiers as text."""
        return pa.array(_names(np.arange(self.nodes)))

    def text(self) -> pa.Table:
        """The same with identifiers as text: a, b, known_at."""
        names = self.names()
        return pa.table({
            "a": names.take(self.a), "b": names.take(self.b),
            "known_at": pa.array(self.at).cast(pa.timestamp("us", tz="UTC")),
        })  # fmt: skip


def _names(numbers: np.ndarray) -> list[str]:
    return [f"{KINDS[n % len(KINDS)]}:{n:x}@customers.example" for n in numbers.tolist()]


def links(count: int, seed: int = 0) -> Links:
    """People whose identifiers are met together, five each on average and up to forty; 0.3% of the links are wrong.

    Half of the links bring a new identifier, to one of the last three that the person had; the others link known ones.
    """
    draw = np.random.default_rng(seed)
    people = int(count / 8)
    size = 1 + draw.geometric(0.25, people).clip(1, 39)
    begin = np.concatenate([[0], np.cumsum(size)])
    nodes = int(begin[-1])
    owner = np.repeat(np.arange(people), size)
    place = np.arange(nodes) - begin[owner]
    b = np.flatnonzero(place)
    a = b - 1 - (draw.random(len(b)) * np.minimum(place[b], 3)).astype(np.int64)
    more = max(0, count - len(b))
    who = draw.integers(0, people, more)
    x = begin[who] + (draw.random(more) * size[who]).astype(np.int64)
    y = begin[who] + (draw.random(more) * size[who]).astype(np.int64)
    wrong = draw.random(more) < 0.006
    y[wrong] = draw.integers(0, nodes, wrong.sum())
    order = draw.permutation(len(b) + more)[:count]
    a, b = np.concatenate([a, x])[order], np.concatenate([b, y])[order]
    there = a != b
    a, b = a[there].astype(np.int32), b[there].astype(np.int32)
    return Links(nodes, owner, a, b, np.sort(draw.integers(10**15, 15 * 10**14, int(there.sum()))))


def splink(given: Links, names: pa.Array | None = None) -> int:
    """Splink's clustering on DuckDB: how many clusters. names: the identifiers as text, which are linked then."""
    import logging

    from splink import DuckDBAPI
    from splink.clustering import cluster_pairwise_predictions_at_threshold

    logging.getLogger("splink").setLevel(logging.ERROR)
    api = DuckDBAPI()
    unique = pa.array(np.arange(given.nodes)) if names is None else names
    nodes = api.register(pa.table({"unique_id": unique}))
    edges = api.register(pa.table({"unique_id_l": unique.take(given.a), "unique_id_r": unique.take(given.b)}))
    found = cluster_pairwise_predictions_at_threshold(nodes, edges, api, "unique_id")
    return int(api._con.execute(f"SELECT count(DISTINCT cluster_id) FROM {found.physical_name}").fetchall()[0][0])


def stitch(given: Links) -> Walked:
    """Our walk of encoded links: who belonged to whom at any time, and by which link they merged."""
    since = np.full(given.nodes, given.at[-1])
    for end in (given.a, given.b):
        first = np.full(given.nodes, given.at[-1])
        first[end[::-1]] = given.at[::-1]  # the last write is the earliest
        np.minimum(since, first, out=since)
    high, low = np.arange(given.nodes, dtype=np.uint64), np.zeros(given.nodes, np.uint16)
    graph = by_part(given.a, given.b, given.at, since, high, low, np.empty((0, 2), np.int32))
    kind = (graph.members % len(KINDS)).astype(np.int32)
    most, many = np.zeros(len(KINDS), np.int32), np.array([LIMITS.shared.get(k, 20) for k in KINDS], np.int32)
    shared = shared_since(kind, graph.left, graph.right, graph.times, many, np.zeros(given.nodes, bool))
    return walk(with_turns(graph, kind, shared, np.empty((0, 5), np.int64)), Rules(LIMITS.largest, most, many))


def stitch_text(text: pa.Table) -> pa.Table:
    """Ours from identifiers as text: who belonged to whom at any time, by lasting ids."""
    con, store = _connect(), Store(LIMITS)
    con.register("given", text)
    take_in(con, store, [GIVEN.format(batch=1)])
    return store.members(store.walk(describing(con, KEY)))


class Home:
    """A graph with its tables on the disk."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.con, self.store, self.batch = folder, _connect(), Store(LIMITS), 0
        self.rebuild = True

    def add(self, text: pa.Table) -> Changed:
        """Take in links as text; the tables on the disk are whole when it returns."""
        self.batch += 1
        if self.rebuild:
            self.store = Store(LIMITS, self.folder / "graph", anew=True)
        self.con.register("given", text)
        self.store.open()
        take_in(self.con, self.store, [GIVEN.format(batch=self.batch)])
        changed = self.store.walk(describing(self.con, KEY))
        evidence(self.con)
        show(self.con, self.folder / "derived", self.store, changed, anew=self.rebuild)
        self.store.close()
        self.rebuild = False
        return changed


def _connect() -> Any:
    import duckdb

    con = duckdb.connect()
    con.execute("SET TimeZone='UTC'; SET threads=2; SET memory_limit='8GB'; SET enable_progress_bar=false")
    return con


def batch(given: Links, size: int, number: int) -> pa.Table:
    """Links as the next hour would bring them: half to an identifier never met, half between known ones of a person
    (neighbours of one number), 0.3% of them wrong."""
    draw = np.random.default_rng(1000 + number)
    known = draw.integers(0, given.nodes, size)
    other = np.minimum(known[: size // 2] + 1, given.nodes - 1)
    other = np.where(given.person[other] == given.person[known[: size // 2]], other, known[: size // 2] - 1)
    wrong = draw.random(len(other)) < 0.006
    other[wrong] = draw.integers(0, given.nodes, wrong.sum())
    new = given.nodes + number * size + np.arange(size - size // 2)
    at = 15 * 10**14 + number * 10**6 + np.arange(size)
    return pa.table({
        "a": _names(known), "b": _names(np.concatenate([np.abs(other), new])),
        "known_at": pa.array(at).cast(pa.timestamp("us", tz="UTC")),
    })  # fmt: skip


def speed(count: int, size: int, repeats: int) -> tuple[list[report.Bar], dict[str, Any]]:
    """The bars of speed at `count` links, batches of `size`."""
    progress(f"{count:,} links are made")
    given = links(count)
    text, names = given.text(), given.names()
    little = links(2_000, seed=1)
    stitch(little)  # compile what is compiled
    folder = Path(tempfile.mkdtemp())
    found: dict[str, Any] = {}

    def timed(name: str, what: Callable[[], Any]) -> Callable[[], Usage]:
        def run() -> Usage:
            used, found[name] = measure(what)
            return used

        return run

    def raw() -> Home:
        shutil.rmtree(folder / "raw", ignore_errors=True)
        home = Home(folder / "raw")
        home.add(text)
        return home

    try:
        Home(folder / "little").add(little.text())
        contestants = {
            "splink": timed("splink", lambda: splink(given)),
            "encoded": timed("encoded", lambda: stitch(given)),
            "splink from text": timed("splink from text", lambda: splink(given, names)),
            "from text": timed("from text", lambda: stitch_text(text)),
            "to the disk": timed("to the disk", raw),
        }
        usages = report.interleaved(contestants, repeats)
        wall = {name: [u.wall for u in used] for name, used in usages.items()}
        home = found.pop("to the disk")
        batches, touched = _batches(home, given, size, max(5, repeats) + 2)
        bars = [
            report.ratio("identity.stitch_speedup_vs_splink", wall["splink"], wall["encoded"], ">=10"),
            report.ratio("identity.raw_stitch_speedup_vs_splink", wall["splink from text"], wall["from text"], ">=4"),
            report.bar(
                "identity.batch_speedup_vs_full",
                [statistics.median(wall["to the disk"]) / b.wall for b in batches], ">=100",
            ),
        ]  # fmt: skip
        del home
        grown = []
        for many in (count // 5, 2 * count):
            other, larger = links(many, seed=2), Home(folder / f"grown{many}")
            larger.add(other.text())
            grown.append([b.wall for b in _batches(larger, other, size, max(5, repeats) + 2)[0]])
            shutil.rmtree(folder / f"grown{many}")
        bars.append(report.ratio("identity.batch_growth_1m_to_10m", grown[1], grown[0], "<=2"))
        details = {
            "clusters_splink": found["splink"], **report.medians(usages),
            "batch_ms": 1e3 * statistics.median(b.wall for b in batches),
            "batch_cpu_ms": 1e3 * statistics.median(b.cpu for b in batches), "identifiers_touched": touched,
            "disk_vs_splink": statistics.median(wall["splink"]) / statistics.median(wall["to the disk"]),
            "batch_vs_encoded": statistics.median(wall["encoded"]) / statistics.median(b.wall for b in batches),
        }  # fmt: skip
        return bars, details
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _batches(home: Home, given: Links, size: int, repeats: int) -> tuple[list[Usage], int]:
    """A batch several times, without the first two, which find cold memory."""
    used, touched = [], 0
    for number in range(repeats):
        one = batch(given, size, number)
        took, changed = measure(lambda one=one: home.add(one))
        used.append(took)
        touched = len(changed.nodes)
        progress(f"batch {number + 1}: {took.wall * 1e3:.0f} ms, {took.cpu * 1e3:.0f} ms of CPU")
    return used[2:], touched


def matching(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """Report how well people are found in a file, or among generated ones."""
    if not 0 < given.threshold < 1:
        parser.error(f"--threshold: expected a probability between 0 and 1, got {given.threshold}")
    if stray := [pair for pair in given.map if pair.count("=") != 1]:
        parser.error(f"--map: expected COLUMN=KIND, got {stray[0]}")
    named = dict(pair.split("=") for pair in given.map)
    with tempfile.TemporaryDirectory() as folder:
        if given.people:
            given.file, given.truth = _matching_people.write(Path(folder) / "people.parquet", given.people), "person"
        if not given.truth:
            parser.error("FILE needs --truth COLUMN")
        if not given.file.exists():
            parser.error(f"FILE: expected a file, got {given.file}, which is not there")
        columns = [name for name, *_ in _matching.connect(given.file).execute("DESCRIBE given").fetchall()]
        if given.truth not in columns:
            parser.error(f"--truth: expected one of {', '.join(columns)}, got {given.truth}")
        try:
            _matching.measure(given.file, given.truth, named, given.threshold, given.repeats).show()
        except ForetellError as error:
            parser.error(str(error))


def main() -> None:
    """Read the command line, measure, report."""
    parser = report.options(__doc__ or "", "identity")
    parser.add_argument("--speed", action="store_true", help="golden profiles and the collector too")
    parser.add_argument("--links", type=int, help=f"how many links (default: {FULL:,}, quick: {QUICK:,})")
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="a table of people, Parquet or CSV")
    parser.add_argument("--truth", metavar="COLUMN", help="FILE's column that says who is who")
    parser.add_argument(
        "--map", nargs="+", action="extend", default=[], metavar="COLUMN=KIND", help="what a column is, where its name "
        "does not say it: given_name=first_name; KIND - leaves it out",
    )  # fmt: skip
    parser.add_argument(
        "--threshold", type=float, default=matcher.MATCH_AT, metavar="P", help="probability (default: %(default)s)"
    )
    parser.add_argument(
        "--people", "--generate", type=int, metavar="N", help="so many generated records in place of FILE"
    )
    parser.add_argument("--json", action="store_true", help="the last line is JSON in any case")
    given = parser.parse_args()
    if given.file or given.people:
        matching(parser, given)
        return
    count = given.links or (QUICK if given.quick else FULL)
    size = 10_000 if not given.quick else 500
    bars, details = speed(count, size, 1 if given.quick else (given.repeats or 3))
    sizes = {"links": count, "batch": size}
    if given.speed:
        rounds = report.repeats(given)
        for other in (
            golden.found(golden.QUICK if given.quick else golden.FULL, rounds),
            collector.run(given.quick, rounds),
        ):
            bars += [replace(bar, id=SAME.get(bar.id, bar.id)) for bar in other.bars]
            details[other.benchmark] = dict(other.details)
    report.Report("identity", sizes, bars, report.versions("splink", "numba", "duckdb", "numpy"), details).show()


if __name__ == "__main__":
    sys.exit(main())

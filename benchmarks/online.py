"""What does it cost to bring features online and to read them, packed, against Feast's own SQLite and Redis stores?

A built cutoff of four views of ten features each (whole numbers, amounts, a yes or no, a text; a tenth is null) is
brought online by `FeatureStore.materialize`: through this project's provider into its packed store, and through Feast's
provider into Feast's stores, everybody in a process of their own and into an empty store. Then, on what they wrote:

  online.write_cpu_speedup_sqlite  CPU seconds of Feast's SQLite store over the packed one's, with all reading
  online.write_cpu_speedup_redis   the same on Redis, of the client; what the server took is in the details
  online.sqlite_size_ratio         bytes of the packed file over those of Feast's
  online.read1_speedup, read10, read100  seconds of Feast's `get_online_features` of so many profiles, all 40 features,
                                   over those of the packed store's: of SQLite and Redis the worse
  online.direct_read_vs_raw        seconds of the packed store's own read, values unpacked, over `SELECT value … WHERE
                                   key = ?` for each row, or an MGET for each view; the worst of 1, 10 and 100 profiles
  online.rss_gb                    the most memory that a process held that wrote packed rows, in GB

Feast's writes take minutes at full size, so writes have rounds of their own, and fewer. Values are compared.
Without redis-server its bars are left out.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb

from benchmarks import report
from benchmarks.report import Usage, apart, measure, progress

FULL, QUICK = 300_000, 2_000
VIEWS, WRITES, AT = 4, 3, datetime(2024, 6, 1, tzinfo=UTC)
MANY = (1, 10, 100)
PACKED, PROVIDER = "features.store.packed_store.PackedOnlineStore", "features.store.provider.PackedProvider"
SECONDS, QUICK_SECONDS = 0.6, 0.1  # of reads in a round of one contestant


def generate(folder: Path, profiles: int) -> None:
    """A Parquet file for each view: counts that are mostly small, amounts of cents, days with nulls, a flag, a text."""
    for view in range(VIEWS):
        seed = f"hash(p || '{view}"
        counts, floats = [], []
        for i in range(4):
            counts.append(f"(pow({seed}c{i}') / 1.8446744073709552e19, 4) * 100)::BIGINT AS v{view}_count_{i}")
            cents = f"round({seed}f{i}') % 1000000 / 100.0, 2)"
            floats.append(f"CASE WHEN {seed}n{i}') % 4 = 0 THEN NULL ELSE {cents} END AS v{view}_amount_{i}")
        duckdb.execute(
            f"""COPY (SELECT p AS profile_id, TIMESTAMPTZ '2024-06-01 00:00:00+00' AS event_timestamp,
                    TIMESTAMPTZ '2024-06-01 00:00:00+00' AS created, {", ".join(counts + floats)},
                    {seed}b') % 2 = 0 AS v{view}_flag, 'category ' || {seed}t') % 30 AS v{view}_text
                FROM (SELECT 'p' || md5(range::VARCHAR)[:20] AS p FROM range({int(profiles)})) ORDER BY p)
                TO '{folder / f"view{view}.parquet"}' (FORMAT parquet)"""
        )


def opened(folder: Path, name: str, online: dict[str, Any]) -> Any:
    """The Feast store of a contestant, with the four views and a service of all of them."""
    import feast
    from feast import types
    from feast.repo_config import RepoConfig

    kinds = {"count": types.Int64, "amount": types.Float64, "flag": types.Bool, "text": types.String}
    profile = feast.Entity(name="profile", join_keys=["profile_id"], value_type=feast.ValueType.STRING)
    views = []
    for view in range(VIEWS):
        file = folder / f"view{view}.parquet"
        columns = [row[0] for row in duckdb.execute(f"DESCRIBE FROM '{file}'").fetchall()][3:]
        source = feast.FileSource(
            name=f"view{view}", path=str(file), timestamp_field="event_timestamp", created_timestamp_column="created"
        )
        schema = [feast.Field(name=c, dtype=kinds[c.split("_")[1]]) for c in columns]
        views.append(
            feast.FeatureView(
                name=f"view{view}", entities=[profile], ttl=timedelta(days=2), schema=schema, source=source
            )
        )
    store = feast.FeatureStore(config=RepoConfig(
        project=name, provider=PROVIDER if online["type"] == PACKED else "local",
        registry=str(folder / f"{name}.registry"), online_store=online, offline_store={"type": "duckdb"},
        entity_key_serialization_version=3, repo_path=folder,
        materialization={"online_write_batch_size": 5_000},  # else Feast holds an object of every value at once
    ))  # fmt: skip
    store.apply([profile, *views, feast.FeatureService(name="all", features=views)])
    return store


def write(folder: Path, name: str, online: dict[str, Any]) -> Usage:
    """Bring everybody online, into an empty store."""
    store = opened(folder, name, online)
    warnings.simplefilter("ignore", DeprecationWarning)  # ibis 12 on DuckDB 2
    with contextlib.redirect_stdout(io.StringIO()):
        used, _ = measure(lambda: store.materialize(AT - timedelta(days=1), AT))
    if (rows := getattr(store.provider.online_store, "rows", None)) is not None:
        rows(store.config).settle()
    return used


# Redis


class Server:
    """A redis-server without files, on a free port."""

    def __init__(self, folder: Path):
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port = sock.getsockname()[1]
        self._process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip

    def client(self, db: int = 0) -> Any:
        import redis

        return redis.Redis(port=self.port, db=db)

    def wait(self) -> None:
        import redis

        for _ in range(200):
            with contextlib.suppress(redis.RedisError):
                self.client().ping()
                return
            time.sleep(0.05)
        raise RuntimeError("redis-server does not answer")

    def cpu(self) -> float:
        """CPU seconds it has taken so far."""
        found = self.client().info("cpu")
        return float(found["used_cpu_user"]) + float(found["used_cpu_sys"])

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


def stores(folder: Path, server: Server | None) -> dict[str, dict[str, Any]]:
    """Contestant -> its online store as feature_store.yaml has it."""
    found: dict[str, dict[str, Any]] = {
        "packed_sqlite": {"type": PACKED, "path": str(folder / "packed_sqlite.db")},
        "feast_sqlite": {"type": "sqlite", "path": str(folder / "feast_sqlite.db")},
    }
    if server:
        found["packed_redis"] = {"type": PACKED, "url": f"redis://127.0.0.1:{server.port}/0"}
        found["feast_redis"] = {"type": "redis", "connection_string": f"127.0.0.1:{server.port},db=1"}
    return found


def emptied(folder: Path, name: str, server: Server | None) -> None:
    for file in folder.glob(f"{name}.*"):
        file.unlink()
    if server and name.endswith("redis"):
        server.client(int(name.startswith("feast"))).flushdb()


def size(folder: Path, name: str) -> int:
    return sum(file.stat().st_size for file in folder.glob(f"{name}.db*"))


# Reads


def typical(function: Callable[[list[str]], Any], draws: Sequence[list[str]], seconds: float) -> float:
    """Median seconds of a call, over as many as fit into the time; the first does not count."""
    function(draws[0])
    took, until = [], time.perf_counter() + seconds
    for draw in draws:
        began = time.perf_counter()
        function(draw)
        took.append(time.perf_counter() - began)
        if took and time.perf_counter() > until:
            break
    return statistics.median(took)


def readers(folder: Path, online: dict[str, dict[str, Any]]) -> dict[str, Callable[[list[str]], Any]]:
    """Contestant -> how it reads these profiles: through Feast, directly, and with nothing of ours."""
    found: dict[str, Callable[[list[str]], Any]] = {}
    for name, said in online.items():
        store = opened(folder, name, said)
        service = store.get_feature_service("all")

        def through_feast(who: list[str], store: Any = store, service: Any = service) -> Any:
            return store.get_online_features(service, [{"profile_id": p} for p in who])

        found[name] = through_feast
        if name.startswith("packed"):
            packed, views = store.provider.packed, [store.get_feature_view(f"view{v}") for v in range(VIEWS)]

            def directly(who: list[str], store: Any = store, packed: Any = packed, views: Any = views) -> Any:
                return [packed.read(store.config, view, who) for view in views]

            found[f"{name} directly"] = directly
            found[f"{name} raw"] = raw(packed.rows(store.config), f"{name}_view")
    return found


def raw(rows: Any, table: str) -> Callable[[list[str]], Any]:
    """The rows' bytes by the database's own means, on a connection as the store's is."""
    if hasattr(rows, "file"):
        con = rows._connected()
        queries = [f'SELECT value FROM "{table}{v}" WHERE key = ?' for v in range(VIEWS)]
        return lambda who: [[con.execute(query, [p]).fetchone() for p in who] for query in queries]
    client = rows._connected()
    heads = [rows._head(f"{table}{v}") for v in range(VIEWS)]
    return lambda who: [client.mget([head + p for p in who]) for head in heads]


def read(
    folder: Path, online: dict[str, dict[str, Any]], repeats: int, seconds: float
) -> dict[str, dict[int, list[float]]]:
    """Contestant -> profiles asked for at once -> typical seconds of each round. ValueError if answers differ."""
    everyone = [p for (p,) in duckdb.execute(f"SELECT profile_id FROM '{folder / 'view0.parquet'}'").fetchall()]
    draw, ways = random.Random(0), readers(folder, online)
    through = [name for name in ways if name in online]
    who = draw.sample(everyone, 100)
    answers = [ways[name](who).to_df(include_event_timestamps=True) for name in through]
    if any(not answer.equals(answers[0]) for answer in answers):
        raise ValueError("the stores answer differently")
    took: dict[str, dict[int, list[float]]] = {name: {many: [] for many in MANY} for name in ways}
    for n in range(repeats):
        for many in MANY:
            draws = [draw.sample(everyone, many) for _ in range(2_000 // many + 20)]
            for name in list(ways)[:: 1 if n % 2 == 0 else -1]:
                took[name][many].append(typical(ways[name], draws, seconds))
        progress(f"reads, round {n + 1} of {repeats}")
    return took


def _here(function: Callable, *arguments: Any) -> Any:
    return function(*arguments)


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Server | None]:
    if not shutil.which("redis-server"):
        progress("redis-server is not installed: bars of Redis are left out")
        yield None
        return
    server = Server(folder)
    try:
        server.wait()
        yield server
    finally:
        server.stop()


def bars(
    usages: dict[str, list[Usage]], sizes: dict[str, list[int]], took: dict[str, dict[int, list[float]]]
) -> list[report.Bar]:
    kinds = [kind for kind in ("sqlite", "redis") if f"packed_{kind}" in usages]
    found = [
        report.ratio(
            f"online.write_cpu_speedup_{kind}", [u.cpu for u in usages[f"feast_{kind}"]],
            [u.cpu for u in usages[f"packed_{kind}"]], {"sqlite": ">=15", "redis": ">=10"}[kind],
        )
        for kind in kinds
    ]  # fmt: skip
    found.append(report.ratio("online.sqlite_size_ratio", sizes["packed_sqlite"], sizes["feast_sqlite"], "<=0.1"))
    for many in MANY:
        each = [
            report.ratio(f"online.read{many}_speedup", took[f"feast_{kind}"][many], took[f"packed_{kind}"][many], ">=3")
            for kind in kinds
        ]
        found.append(min(each, key=lambda bar: bar.value))
    each = [
        report.ratio("online.direct_read_vs_raw", took[f"packed_{k} directly"][m], took[f"packed_{k} raw"][m], "<=2")
        for k in kinds for m in MANY
    ]  # fmt: skip
    found.append(max(each, key=lambda bar: bar.value))
    peaks = [used.rss / 1e9 for kind in kinds for used in usages[f"packed_{kind}"]]
    found.append(report.bar("online.rss_gb", [max(peaks)], "<=1"))
    return found


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, write, read, report."""
    parser = report.options(__doc__ or "", "online")
    parser.add_argument("--profiles", type=int, help=f"profiles to bring online (default: {FULL:,}; quick: {QUICK:,})")
    parser.add_argument("--writes", type=int, help=f"rounds of writes (default: {WRITES}; quick: 1)")
    given = parser.parse_args(arguments)
    profiles = given.profiles or (QUICK if given.quick else FULL)
    writes, repeats = given.writes or (1 if given.quick else WRITES), report.repeats(given)
    usages: dict[str, list[Usage]] = {}
    sizes: dict[str, list[int]] = {}
    server_cpu: dict[str, list[float]] = {}
    loads = [os.getloadavg()]
    with tempfile.TemporaryDirectory(prefix="foretell-bench-") as temporary, serving(Path(temporary)) as server:
        folder = Path(temporary)
        call: Callable = _here if given.quick else apart  # most of a quick run would be importing Feast
        generate(folder, profiles)
        online = stores(folder, server)

        def run(name: str) -> Usage:
            emptied(folder, name, server)
            before = server.cpu() if server else 0.0
            used = call(write, folder, name, online[name])
            if server and name.endswith("redis"):
                server_cpu.setdefault(name, []).append(server.cpu() - before)
            else:
                sizes.setdefault(name, []).append(size(folder, name))
            return used

        usages = report.interleaved({name: lambda name=name: run(name) for name in online}, writes)
        took = call(read, folder, online, repeats, QUICK_SECONDS if given.quick else SECONDS)
        loads.append(os.getloadavg())
    milliseconds = {
        name: {str(many): 1e3 * statistics.median(some) for many, some in each.items()} for name, each in took.items()
    }
    report.Report(
        benchmark="online",
        versions=report.versions("feast", "redis", "pyarrow", "duckdb"),
        sizes={"profiles": profiles, "views": VIEWS, "features": 40, "writes": writes, "rounds_of_reads": repeats,
               "quick": given.quick},
        bars=bars(usages, sizes, took),
        details={
            "writes": report.medians(usages),
            "redis_server_cpu_s": {name: statistics.median(some) for name, some in server_cpu.items()},
            "file_mb": {name: statistics.median(some) / 1e6 for name, some in sizes.items()},
            "reads_ms": milliseconds, "load_before": list(loads[0]), "load_after": list(loads[1]),
        },
    ).show()  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())

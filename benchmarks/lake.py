"""What does it cost that the lake's tables lie in a bucket? Appends, scans and anti-joins, beside those in a folder.

Contestants: a table in a folder; the same in a bucket, read by copies that are kept (what Foretell does), for the first
time and again; and the bucket read anew at each query, as an Arrow dataset over deltalake's own store. The bucket is
that of moto, a test server in one Python process on this machine: it has neither the latency of a network nor the
throughput of a real store, so what it says is how much work each way asks for, not what S3 will do.
"""

from __future__ import annotations

import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from deltalake import DeltaTable

from benchmarks import report
from lake.bucket import Bucket
from lake.tables import Table

FULL, QUICK = 1_000_000, 40_000
BATCHES = 4
NEW = 10_000


@contextmanager
def store() -> Iterator[Bucket]:
    """A bucket of a moto server of its own."""
    import boto3

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    os.environ.update(
        AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="b", AWS_REGION="us-east-1", AWS_ALLOW_HTTP="true",
        AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}",
    )  # fmt: skip
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for _ in range(300):
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="lake")
        yield Bucket("s3://lake/bench")
    finally:
        server.kill()
        server.wait()


def facts(con: duckdb.DuckDBPyConnection, first: int, count: int, batch: int) -> pa.Table:
    """Facts as a load makes them: an id, an identifier, an instant of one of three months, an amount, the payload."""
    return con.sql(
        f"""SELECT md5(i::VARCHAR) AS fact_id, 'card:' || (hash(i) % {max(count // 20, 1)}) AS node,
            TIMESTAMPTZ '2024-01-01 00:00:00+00' + to_seconds(hash(i, 1) % 7776000) AS event_at,
            ((hash(i, 2) % 9000) / 100)::DECIMAL(18,4) AS amount, {batch}::BIGINT AS batch,
            '{{"line": ' || hash(i, 3) || '}}' AS payload,
            strftime(event_at, '%Y-%m-01') AS event_month FROM range({first}, {first + count}) r(i)"""
    ).to_arrow_table()


def scan(con: duckdb.DuckDBPyConnection, source: str) -> list[tuple]:
    return con.execute(f"SELECT node, count(*), sum(amount) FROM {source} GROUP BY 1 ORDER BY 1 LIMIT 5").fetchall()


def anti_join(con: duckdb.DuckDBPyConnection, source: str) -> list[tuple]:
    """Which of a batch are new: what every load asks."""
    return con.execute(f"SELECT count(*) FROM fresh ANTI JOIN {source} USING (fact_id)").fetchall()


def dataset(con: duckdb.DuckDBPyConnection, table: Table) -> str:
    """The table read from its bucket, whenever a query runs."""
    assert table.at
    con.register("remote", DeltaTable(table.uri, storage_options=table.at.options).to_pyarrow_dataset())
    return "remote"


def forgotten(table: Table) -> str:
    """The table as one sees it who has no copies yet."""
    shutil.rmtree(table.path, ignore_errors=True)
    return table.scan()


def measured(rows: int, rounds: int, folder: Path, bucket: Bucket) -> dict[str, list[float]]:
    """What -> seconds of each round."""
    con = duckdb.connect()
    con.execute("SET TimeZone='UTC'; SET threads=2")
    local, remote = Table(folder / "facts"), Table(folder / "copies", bucket / "facts")
    for batch in range(BATCHES):
        made = facts(con, batch * rows // BATCHES, rows // BATCHES, batch)
        for table in (local, remote):
            table.append(made, partition_by=["event_month"], why="load")
    took: dict[str, list[float]] = {}

    def time_it(name: str, work: Callable[[], Any]) -> Any:
        usage, result = report.measure(work)
        took.setdefault(name, []).append(usage.wall)
        return result

    for number in range(rounds):
        fresh = facts(con, rows + (number - 1) * NEW // 2, NEW, BATCHES + number)
        con.register("fresh", fresh)
        asks = {"scan": scan, "anti_join": anti_join}
        for name, ask in asks.items():
            said = [
                time_it(f"{name}.folder", lambda ask=ask: ask(con, local.scan())),
                time_it(f"{name}.bucket_first", lambda ask=ask: ask(con, forgotten(remote))),
                time_it(f"{name}.bucket", lambda ask=ask: ask(con, remote.scan())),
                time_it(f"{name}.bucket_each_time", lambda ask=ask: ask(con, dataset(con, remote))),
            ]
            assert all(one == said[0] for one in said), name
        for where, table in (("folder", local), ("bucket", remote)):
            time_it(f"append.{where}", partial(table.append, fresh, partition_by=["event_month"], why="load"))
            time_it(f"open.{where}", table.version)
    return took


def main() -> None:
    given = report.options(__doc__ or "", "lake").parse_args()
    rows, rounds = QUICK if given.quick else FULL, report.repeats(given)
    with tempfile.TemporaryDirectory() as folder, store() as bucket:
        took = measured(rows, rounds, Path(folder), bucket)
    bars = [  # a scan of this size takes as long as a few requests: asking for the log may double it, no more
        report.ratio("lake.scan_bucket_vs_folder", took["scan.bucket"], took["scan.folder"], "<=1.5"),
        report.ratio("lake.anti_join_bucket_vs_folder", took["anti_join.bucket"], took["anti_join.folder"], "<=1.5"),
        report.ratio("lake.copies_speedup_scan", took["scan.bucket_each_time"], took["scan.bucket"], ">=1.5"),
        report.ratio(
            "lake.copies_speedup_anti_join", took["anti_join.bucket_each_time"], took["anti_join.bucket"], ">=1.5"
        ),
    ]
    details = {f"{name}_ms": statistics.median(seconds) * 1000 for name, seconds in sorted(took.items())}
    report.Report(
        "lake", {"rows": rows, "new": NEW, "batches": BATCHES, "rounds": rounds}, bars,
        report.versions("deltalake", "duckdb", "pyarrow", "moto"), details,
    ).show()  # fmt: skip


if __name__ == "__main__":
    main()

"""A table in a bucket is what the same table in a folder is; its copies are never older than its log."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

sys.path.append(str(Path(__file__).parent))
from bucket_server import BucketServer, bucket  # pyright: ignore[reportMissingImports]

from foretell.errors import DataError
from lake import held
from lake.bucket import Bucket, Unreachable, parse
from lake.tables import Table

__all__ = ["bucket"]

ROOT = str(Path(__file__).parents[2])


@pytest.fixture
def remote(bucket: BucketServer, tmp_path: Path) -> Table:
    return Table(tmp_path / "copies" / "facts", Bucket(bucket.address()) / "it's facts")


def rows_of(table: Table) -> list[tuple]:
    names = sorted(n for n, *_ in duckdb.execute(f"DESCRIBE FROM {table.scan()}").fetchall())
    return duckdb.execute(f"SELECT {', '.join(names)} FROM {table.scan()} ORDER BY ALL").fetchall()


# --- the same as in a folder: every operation, in turn --------------------------------------------------------------

STEPS: dict[str, Callable[[Table, Path], Any]] = {
    "append": lambda t, _: t.append(
        pa.table({"batch": [1, 1, 2], "node": ["a", "b", "c"], "event_month": ["2024-01-01"] * 2 + ["2024-02-01"]}),
        partition_by=["event_month"], why="first",
    ),
    "a column more": lambda t, _: t.append(
        pa.table({"batch": [3], "node": ["b"], "event_month": ["2024-02-01"], "city": ["Oslo"]}),
        partition_by=["event_month"], why="second",
    ),
    "roll back": lambda t, _: t.roll_back(2),
    "rewrite": lambda t, _: t.rewrite(
        duckdb.connect(), "t.node = 'a'", changed="t.node = 'c'", columns={"node": "'*'"}, why="erase"
    ),
    "vacuum": lambda t, _: t.vacuum() > 0,
    "compact": lambda t, _: t.compact(),
    "of nobody": lambda t, _: t.rewrite(duckdb.connect(), "t.node = 'nobody'", why="erase"),
    "of all": lambda t, _: t.rewrite(duckdb.connect(), "true", why="erase"),
}  # fmt: skip


def test_every_operation_does_what_it_does_in_a_folder(remote: Table, tmp_path: Path) -> None:
    local = Table(tmp_path / "folder" / "it's facts")
    for table in (local, remote):
        assert (table.exists, table.files(), table.rows(), table.version(), table.vacuum()) == (False, [], 0, None, 0)
    for name, step in STEPS.items():
        said = [step(table, tmp_path) for table in (local, remote)]
        assert said[0] == said[1], name
        facts = [
            (t.exists, t.rows(), t.version(), len(t.files()), len(t.uris()), len(t.history())) for t in (local, remote)
        ]
        assert facts[0] == facts[1], name
        if local.exists:
            assert rows_of(local) == rows_of(remote), name
    assert not remote.exists


def test_files_written_elsewhere_are_adopted_once(remote: Table, tmp_path: Path) -> None:
    schema = pa.schema([("k", pa.string()), ("v", pa.int64())])
    file = tmp_path / "one.parquet"
    pq.write_table(pa.table({"k": ["a", "b"], "v": [1, 2]}, schema), file)
    assert remote.adopt([file], schema, why="first") == 1
    assert remote.adopt([file], schema, why="again") == 0
    more = tmp_path / "two.parquet"
    pq.write_table(pa.table({"k": ["c"], "v": [3], "w": [4]}), more)
    assert remote.adopt([file, more], pq.read_schema(more), why="more") == 1
    assert rows_of(remote) == [("a", 1, None), ("b", 2, None), ("c", 3, 4)]


def test_a_file_of_a_former_name_is_another_file(remote: Table, tmp_path: Path) -> None:
    """Adopted, erased, and adopted again under its name with as many bytes: the old copy is not taken for it."""
    schema, file = pa.schema([("batch", pa.int64()), ("k", pa.string())]), tmp_path / "scores.parquet"
    pq.write_table(pa.table({"batch": [1], "k": ["jo"]}, schema), file)
    remote.adopt([file], schema, why="first")
    assert rows_of(remote) == [(1, "jo")]
    kept = {path: path.read_bytes() for path in remote.path.rglob("*.parquet")}
    remote.rewrite(duckdb.connect(), "t.k = 'jo'", why="erase")
    remote.vacuum()
    assert list(remote.path.rglob("*.parquet")) == []
    for path, data in kept.items():  # as the home of another machine may have it still
        path.write_bytes(data)
    time.sleep(0.01)
    pq.write_table(pa.table({"batch": [1], "k": ["mo"]}, schema), file)
    remote.adopt([file], schema, why="second")
    assert rows_of(remote) == [(1, "mo")]


# --- copies ----------------------------------------------------------------------------------------------------------


def test_a_file_is_fetched_once(remote: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []
    fetch = Bucket.fetch
    monkeypatch.setattr(Bucket, "fetch", lambda self, key, to: fetched.append(key) or fetch(self, key, to))
    for batch in range(3):
        remote.append(pa.table({"batch": [batch]}), why="load")
        assert remote.exists  # asks the log alone
    assert fetched == []
    assert remote.rows() == 3
    assert remote.rows() == 3
    assert len(fetched) == len(set(fetched)) == 3


@pytest.mark.parametrize("damage", ["gone", "cut short", "another's"])
def test_a_copy_that_is_not_the_file_is_fetched_again(remote: Table, damage: str) -> None:
    remote.append(pa.table({"batch": [1, 2]}), why="load")
    file = Path(remote.files()[0])
    if damage == "gone":
        file.unlink()
    elif damage == "cut short":
        file.write_bytes(file.read_bytes()[:-10])
    else:
        file.write_bytes(b"x" * file.stat().st_size)
    assert rows_of(remote) == [(1,), (2,)]


def test_copies_of_older_versions_go_after_their_last_use(remote: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    remote.append(pa.table({"batch": [1, 2]}), why="load")
    old = Path(remote.files()[0])
    remote.roll_back(1)
    new = Path(remote.files()[0])
    assert old.exists()  # a query of another process may read it
    monkeypatch.setattr(held, "STALE", -1)
    remote.files()
    assert (old.exists(), new.exists()) == (False, True)


def test_a_vacuum_empties_the_copies_too(remote: Table) -> None:
    remote.append(pa.table({"batch": [1], "node": ["email:jo@home.org"]}), why="load")
    old = Path(remote.files()[0])
    (old.parent / ".draft.parquet.12ab.1").write_bytes(old.read_bytes())  # of a reader that was killed
    remote.append(pa.table({"batch": [2], "node": ["email:mo@home.org"]}), why="load")
    remote.rewrite(duckdb.connect(), "t.node = 'email:jo@home.org'", why="erase")
    remote.vacuum()
    remote.files()
    assert all(b"jo@home" not in file.read_bytes() for file in remote.path.rglob("*") if file.is_file())
    assert rows_of(remote) == [(2, "email:mo@home.org")]


def test_a_reader_whose_version_is_vacuumed_away_reads_the_next(remote: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    remote.append(pa.table({"batch": [1, 2]}), why="load")
    other, hold = Table(remote.path.with_name("elsewhere"), remote.at), held.hold

    def late(*args: Any) -> list[str]:
        monkeypatch.setattr(held, "hold", hold)
        other.roll_back(1)
        other.vacuum()
        return hold(*args)

    monkeypatch.setattr(held, "hold", late)
    assert rows_of(remote) == [(1,)]


def test_what_another_process_commits_is_seen_at_once(bucket: BucketServer, remote: Table) -> None:
    """A table is opened once, and asked for what is new."""
    assert remote.at
    assert not remote.exists
    for n in range(3):
        one = writer(remote.at.url, remote.path.with_name("elsewhere"), f"w{n}", 2)
        go(one)
        assert one.wait(60) == 0
        assert len(rows_of(remote)) == remote.rows() == 2 * n + 2
    remote.roll_back(0)
    assert len(rows_of(Table(remote.path.with_name("third"), remote.at))) == len(rows_of(remote)) == 3


# --- several writers -------------------------------------------------------------------------------------------------

WRITER = """
import json, sys, time
import pyarrow as pa
from pathlib import Path
from lake.bucket import Bucket
from lake.tables import Table
url, copies, name, count = sys.argv[1:]
table = Table(Path(copies), Bucket(url))
print("ready", flush=True)
sys.stdin.readline()
for n in range(int(count)):
    table.append(pa.table({"batch": [n], "who": [name]}), why=f"{name} {n}")
    print(n, flush=True)
"""


def writer(url: str, copies: Path, name: str, count: int) -> subprocess.Popen:
    made = subprocess.Popen(
        [sys.executable, "-c", WRITER, url, str(copies), name, str(count)], text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": ROOT},
    )  # fmt: skip
    assert made.stdout
    assert made.stdout.readline() == "ready\n"
    return made


def go(*writers: subprocess.Popen) -> None:
    for one in writers:
        assert one.stdin
        one.stdin.write("\n")
        one.stdin.flush()


def test_of_two_writers_none_loses_a_row(bucket: BucketServer, tmp_path: Path) -> None:
    """From the table's first commit on: each version is committed by one of them, and the other tries the next."""
    url = bucket.address()
    writers = [writer(url, tmp_path / name, name, 12) for name in ("a", "b")]
    go(*writers)
    assert [one.wait(120) for one in writers] == [0, 0]
    table = Table(tmp_path / "c", Bucket(url))
    assert rows_of(table) == sorted((n, name) for name in ("a", "b") for n in range(12))
    assert table.version() == 23
    assert sorted(entry["why"] for entry in table.history()) == sorted(f"{w} {n}" for w in "ab" for n in range(12))


def test_a_version_that_is_there_is_not_written_again(bucket: BucketServer, remote: Table) -> None:
    """The store itself refuses it: no lock table is needed."""
    remote.append(pa.table({"batch": [1]}), why="load")
    assert remote.at
    assert remote.at.options["conditional_put"] == "etag"
    key = remote.at.url.split("/", 3)[3] + "/_delta_log/00000000000000000000.json"
    with pytest.raises(Exception, match="PreconditionFailed"):
        bucket.client.put_object(Bucket=bucket.BUCKET, Key=key, Body=b"{}", IfNoneMatch="*")


def test_a_writer_that_is_killed_leaves_whole_commits(bucket: BucketServer, tmp_path: Path) -> None:
    url, draw, acknowledged = bucket.address(), random.Random(3), 0
    for attempt in range(5):
        one = writer(url, tmp_path / "copies", f"w{attempt}", 500)
        go(one)
        assert one.stdout
        before = [one.stdout.readline() for _ in range(draw.randint(1, 6))]
        time.sleep(draw.uniform(0, 0.1))  # somewhere in the next one
        one.kill()
        said, _ = one.communicate()
        acknowledged += len(before) + len(said.split())
    table = Table(tmp_path / "c", Bucket(url))
    found = rows_of(table)
    assert acknowledged <= len(found) <= acknowledged + 5  # the last of each may be committed, and not said
    assert len(set(found)) == len(found)
    assert table.version() == len(found) - 1
    table.vacuum()
    files = [key for key in bucket.objects(url) if ".parquet" in key and "_delta_log" not in key]
    assert len(files) == len(table.files()) == len(found)


# --- what can go wrong -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ask", ["files", "rows", "version", "append", "exists", "folders", "objects"])
def test_a_server_that_is_down(ask: str, bucket: BucketServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://me:hidden@127.0.0.1:9")
    place = Bucket("s3://lake/shop")
    table = Table(tmp_path, place / "facts")
    asks: dict[str, Callable[[], Any]] = {
        "append": lambda: table.append(pa.table({"batch": [1]}), why="load"), "exists": lambda: table.exists,
        "folders": place.folders, "objects": place.objects,
    }  # fmt: skip
    began = time.monotonic()
    with pytest.raises(Unreachable) as error:
        asks.get(ask, getattr(table, ask, lambda: None))()
    assert time.monotonic() - began < 30
    said = str(error.value)
    assert said.startswith("lake s3://lake/shop")
    assert "expected an answer of its store at http://127.0.0.1:9, got: Connection refused" in said
    assert "run the same command again" in said
    assert "hidden" not in said


def test_a_bucket_that_is_not_there(bucket: BucketServer, tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="got: NoSuchBucket: The specified bucket does not exist; start it, or mend"):
        Table(tmp_path, Bucket("s3://nobodys/shop/facts")).append(pa.table({"batch": [1]}), why="load")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lake", "lake: expected an address like s3://bucket/prefix (s3, gs, az), got 'lake'; or leave it out"),
        ("https://s3.example/lake", "expected an address like s3://bucket/prefix"),
        ("s3://", "expected an address like s3://bucket/prefix"),
        ("s3://key:secret@lake/shop", "lake: the address holds credentials or a query; put them into the environment"),
        ("s3://lake/shop?key=secret", "the address holds credentials or a query"),
    ],
)
def test_addresses_that_are_refused(text: str, said: str) -> None:
    with pytest.raises(DataError) as error:
        parse(text)
    assert said in str(error.value)
    assert "secret" not in str(error.value).replace("SECRET", "")


def test_a_file_that_the_bucket_has_lost(bucket: BucketServer, remote: Table) -> None:
    remote.append(pa.table({"batch": [1]}), why="load")
    assert remote.at
    key = remote.at.url.split("/", 3)[3] + "/" + remote.active()[0].key
    bucket.client.delete_object(Bucket=bucket.BUCKET, Key=key)
    with pytest.raises(DataError, match="expected the files that its log names, got none"):
        remote.files()


def test_an_address_is_the_same_with_a_slash_at_its_end() -> None:
    assert parse("s3://lake/shop/") == parse("s3://lake/shop") == Bucket("s3://lake/shop")
    assert parse("gs://lake").options == {k: v for k, v in parse("s3://lake").options.items() if k != "conditional_put"}


def test_what_the_log_of_a_table_says_is_what_a_folder_says(remote: Table, bucket: BucketServer) -> None:
    """No minimum or maximum of anybody's, in a bucket neither."""
    remote.append(pa.table({"batch": [1], "node": ["email:jo@home.org"]}), why="load")
    assert remote.at
    logged = b"".join(d for key, d in bucket.objects(remote.at.url).items() if "_delta_log" in key)
    assert b"jo@home" not in logged
    assert json.loads(logged.splitlines()[0])

"""Tables: what is appended is read back, personal values stay out of the log, what we cannot read is refused."""

from __future__ import annotations

import json
import tempfile
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st

from foretell.errors import DataError
from lake import derived
from lake.tables import Table


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Table(tmp_path / "facts")


def rows(table: Table, what: str = "*", rest: str = "") -> list[tuple]:
    return duckdb.connect().execute(f"SELECT {what} FROM {table.scan()} {rest}").fetchall()


def test_before_the_first_append(table):
    assert (table.exists, table.files(), table.rows(), table.version(), table.history()) == (False, [], 0, None, [])


def test_append_and_scan(table):
    table.append(pa.table({"batch": [1, 1], "name": ["a", "b"]}), why="first")
    table.append(pa.table({"batch": [2], "name": ["c"]}), why="second")
    assert table.exists
    assert (table.rows(), table.version(), len(table.files())) == (3, 1, 2)
    assert rows(table, "batch, name", "ORDER BY name") == [(1, "a"), (1, "b"), (2, "c")]
    assert [entry["why"] for entry in table.history()] == ["second", "first"]


def test_a_new_column_is_null_in_older_rows(table):
    table.append(pa.table({"batch": [1], "name": ["a"]}), why="first")
    table.append(pa.table({"batch": [2], "city": ["Oslo"], "name": ["b"]}), why="a column more")
    table.append(pa.table({"batch": [3]}), why="a column less")
    found = rows(table, "batch, name, city", "ORDER BY batch")
    assert found == [(1, "a", None), (2, "b", "Oslo"), (3, None, None)]


@pytest.mark.parametrize("name", ["a folder", "it's", "ünïcode", "a+b&c"])
def test_any_folder_name(tmp_path, name):
    table = Table(tmp_path / name / "facts")
    table.append(pa.table({"batch": [1]}), why="first")
    assert table.rows() == 1


def test_partitions_are_read_as_dates(table):
    months = [date(2024, 1, 1), date(2024, 2, 1), date(2024, 2, 1)]
    table.append(pa.table({"batch": [1, 1, 1], "event_month": months}), partition_by=["event_month"], why="first")
    table.append(pa.table({"batch": [2], "event_month": months[:1]}), partition_by=["event_month"], why="second")
    assert all("event_month=2024-0" in file for file in table.files())
    found = rows(table, "event_month, typeof(event_month), count(*)", "GROUP BY ALL ORDER BY ALL")
    assert found == [(months[0], "DATE", 2), (months[1], "DATE", 2)]
    assert rows(table, "count(*)", "WHERE event_month = DATE '2024-02-01'") == [(2,)]


def test_the_rows_of_a_deleted_file_are_gone(table):
    for batch in (1, 2):
        table.append(pa.table({"batch": [batch]}), why="load")
    DeltaTable(table.path).delete("batch = 1")
    assert rows(table, "batch") == [(2,)]
    assert table.rows() == 1


STAMP = pa.timestamp("us", tz="UTC")


@pytest.mark.parametrize("stamped", [True, False])
def test_personal_values_never_reach_the_log(table, stamped):
    """Neither as statistics nor otherwise, from the first commit to a checkpoint, however the schema grows."""
    secrets = [f"someone{n}@example.org" for n in range(5)]
    for n, secret in enumerate(secrets):
        columns = {"email": [secret], f"trait_{n}": [f"{secret} again"], "batch": [n]}
        if stamped:
            columns["event_at"] = pa.array([datetime(2024, 1, 1 + n, tzinfo=UTC)], STAMP)
        elif n == 0:
            del columns["batch"]
        table.append(pa.table(columns), why="load")
    DeltaTable(table.path).create_checkpoint()
    log = sorted((table.path / "_delta_log").iterdir())
    assert any(file.suffix == ".parquet" for file in log)
    for file in log:
        text = file.read_bytes()
        if file.suffix == ".parquet":  # compressed: a search for bytes would find nothing
            text = repr(duckdb.execute("SELECT * FROM read_parquet(?)", [str(file)]).fetchall()).encode()
        assert b"example.org" not in text
    adds = [
        json.loads(line)["add"] for file in log if file.suffix == ".json" for line in file.open() if '"add"' in line
    ]
    seen = {column for add in adds for column in json.loads(add["stats"]).get("maxValues", {})}
    assert seen <= {"batch", "event_at"}
    assert seen or not stamped


@pytest.mark.parametrize("feature", ["deletionVectors", "columnMapping"])
def test_a_table_whose_files_are_not_the_table(table, feature):
    table.append(pa.table({"batch": [1]}), why="first")
    protocol = {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": [feature], "writerFeatures": [feature]}
    commit(table, {"protocol": protocol})
    refused(table, feature)


def test_column_mapping_of_older_tables(table):
    table.append(pa.table({"batch": [1]}), why="first")
    lines = (table.path / "_delta_log" / f"{0:020}.json").read_text().splitlines()
    metadata = next(json.loads(line)["metaData"] for line in lines if '"metaData"' in line)
    metadata["configuration"]["delta.columnMapping.mode"] = "name"
    metadata["configuration"]["delta.columnMapping.maxColumnId"] = "1"
    schema = json.loads(metadata["schemaString"])
    schema["fields"][0]["metadata"] = {"delta.columnMapping.id": 1, "delta.columnMapping.physicalName": "batch"}
    metadata["schemaString"] = json.dumps(schema)
    commit(table, {"protocol": {"minReaderVersion": 2, "minWriterVersion": 5}}, {"metaData": metadata})
    refused(table, "columnMapping")


def commit(table: Table, *actions: dict) -> None:
    """Write a commit that no writer at hand would make."""
    text = "".join(json.dumps(action) + "\n" for action in actions)
    (table.path / "_delta_log" / f"{1:020}.json").write_text(text)


def refused(table: Table, feature: str) -> None:
    for ask in (table.files, table.rows, table.version, lambda: table.exists):
        with pytest.raises(DataError) as error:
            ask()
        assert str(error.value) == (
            f"{table.path}: uses {feature}; its Parquet files alone are not the table; "
            "rewrite it without (REORG … APPLY PURGE) before Foretell reads it"
        )


def test_a_derived_table_is_replaced_whole_or_not_at_all(tmp_path):
    con, file = duckdb.connect(), tmp_path / "it's" / "golden.parquet"
    assert derived.write(con, "SELECT range AS n FROM range(3)", file, {"batch": "7"}) == 3
    with pytest.raises(duckdb.Error, match="not a number"):
        derived.write(con, "SELECT error('not a number') AS n FROM range(3)", file)
    assert con.execute("SELECT count(*) FROM read_parquet(?)", [str(file)]).fetchall() == [(3,)]
    assert con.execute("SELECT key, value FROM parquet_kv_metadata(?)", [str(file)]).fetchall() == [(b"batch", b"7")]
    assert [f.name for f in file.parent.iterdir()] == ["golden.parquet"]


# Patches.


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 99)), max_size=9), max_size=8), st.integers(0, 60)
)
def test_a_patched_table_is_what_a_dictionary_would_be(patches: list[list[tuple[int, int]]], size: int) -> None:
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as con:
        file = Path(folder) / "golden.parquet"
        derived.write(con, f"SELECT range % 15 AS k, range AS v FROM range({size})", file)
        expected: dict[int, list[int]] = {}
        for n in range(size):
            expected.setdefault(n % 15, []).append(n)
        for rows in patches:
            keys = {k for k, _ in rows}
            expected |= {k: [v for key, v in rows if key == k and v > 30] for k in keys}
            values = ", ".join(str(row) for row in rows) or "(NULL, NULL)"
            fresh = f"SELECT k, v FROM (VALUES {values}) t(k, v) WHERE v > 30"
            derived.patch(con, fresh, file, key="k", keys=f"SELECT k FROM (VALUES {values}) t(k, v) WHERE v >= 0")
            found: dict[int, list[int]] = {}
            for k, v in con.execute(f"SELECT k, v FROM {derived.scan(file)} ORDER BY k, v").fetchall():
                found.setdefault(k, []).append(v)
            assert found == {k: sorted(v) for k, v in expected.items() if v}
        derived.write(con, "SELECT 1 AS k, 2 AS v", file)
        assert con.execute(f"SELECT k, v FROM {derived.scan(file)}").fetchall() == [(1, 2)]


def test_small_patches_are_kept_beside_a_large_table_and_large_ones_written_into_it(tmp_path: Path) -> None:
    con, file = duckdb.connect(), tmp_path / "golden.parquet"
    derived.write(con, "SELECT range AS k, 0 AS v FROM range(1000)", file)
    before = file.stat()
    derived.patch(con, "SELECT 5 AS k, 1 AS v, 'new' AS more", file, key="k", keys="SELECT 5 AS k UNION SELECT 6")
    assert file.stat() == before
    assert con.execute(f"SELECT count(*), sum(v), max(more) FROM {derived.scan(file)}").fetchall() == [(999, 1, "new")]
    derived.patch(
        con, "SELECT range AS k, 2 AS v FROM range(300)", file, key="k", keys="SELECT range AS k FROM range(300)"
    )
    assert [f.name for f in tmp_path.iterdir()] == ["golden.parquet"]
    assert con.execute(f"SELECT count(*), sum(v) FROM {derived.scan(file)}").fetchall() == [(1000, 600)]

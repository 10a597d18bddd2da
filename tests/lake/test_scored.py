"""Features of scores are kept once for all tasks, tables of before are read as they were, and nobody pays unasked."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lake import scored
from lake.tables import Table

MAP = pa.map_(pa.string(), pa.float64())
OLD = pa.table({
    "score_id": ["a1", "a2"], "task": ["churn", "clv"], "profile_id": ["p1", "p1"],
    "features": pa.array([[("x", 1.0), ("y", None)], [("y", 2.0)]], MAP), "value": [0.1, 10.0],
})  # fmt: skip
NEW = pa.table({
    "score_id": ["b1", "b2", "b3"], "task": ["churn", "churn", "clv"], "profile_id": ["p1", "p2", "p2"],
    "rows": ["r1"] * 3, "value": [0.2, 0.3, 20.0],
})  # fmt: skip
ROWS = pa.table({"rows": ["r1"] * 2, "profile_id": ["p1", "p2"], "values": [[1.0, 2.0, 3.0], [4.0, float("nan"), 6.0]]})
COLUMNS = pa.table(
    {"rows": ["r1"] * 2, "task": ["churn", "clv"], "columns": [["x", "z"], ["y", "x"]], "places": [[1, 3], [2, 1]]},
    schema=scored.COLUMNS,
)
SAID = {
    "b1": {"x": 1.0, "z": 3.0}, "b2": {"x": 4.0, "z": 6.0}, "b3": {"y": float("nan"), "x": 4.0},
    "a1": {"x": 1.0, "y": None}, "a2": {"y": 2.0},
}  # fmt: skip


def file_of(folder: Path, name: str, rows: pa.Table) -> Path:
    file = folder / f"{name}.parquet"
    pq.write_table(rows, file, store_schema=False)
    return file


def tables(home: Path) -> tuple[Table, Table, Table]:
    scores, rows, columns = (Table(home / "lake" / name) for name in scored.TABLES)
    return scores, rows, columns


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with scores of before and of now."""
    scores, rows, columns = tables(tmp_path)
    scores.append(OLD, why="of before")
    rows.adopt([file_of(tmp_path, "rows", ROWS)], scored.ROWS, why="rows")
    columns.append(COLUMNS, why="columns")
    scores.adopt([file_of(tmp_path, "scores", NEW)], NEW.schema, why="scores")
    return tmp_path


def session(home: Path) -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    scored.create_view(con, *tables(home))
    return con


def features(con: duckdb.DuckDBPyConnection) -> dict[str, dict]:
    return dict(con.execute("SELECT score_id, features FROM scores").fetchall())


def test_old_and_new_scores_say_their_features_by_name(home: Path) -> None:
    con = session(home)
    assert {i: repr(f) for i, f in features(con).items()} == {i: repr(f) for i, f in SAID.items()}
    found = scored.of_scores(con, list(SAID))
    assert {i: repr(f) for i, f in found.items()} == {i: repr(f) for i, f in SAID.items()}
    assert scored.of_scores(con, ["nobody"]) == {}
    assert scored.of_scores(con, []) == {}
    names = [name for name, *_ in con.execute("DESCRIBE scores").fetchall()]
    assert sorted(names) == sorted(OLD.column_names)


def test_a_table_of_before_alone_and_one_of_now_alone(tmp_path: Path) -> None:
    con = duckdb.connect()
    scored.create_view(con, *tables(tmp_path))
    assert con.execute("SELECT count(*) FROM duckdb_views() WHERE NOT internal").fetchall() == [(0,)]
    scores, rows, columns = tables(tmp_path)
    scores.append(OLD, why="of before")
    con = session(tmp_path)
    assert features(con) == {i: SAID[i] for i in ("a1", "a2")}
    assert scored.of_scores(con, ["a2"]) == {"a2": SAID["a2"]}
    other = tmp_path / "other"
    scores, rows, columns = tables(other)
    rows.adopt([file_of(tmp_path, "rows", ROWS)], scored.ROWS, why="rows")
    columns.append(COLUMNS, why="columns")
    scores.adopt([file_of(tmp_path, "scores", NEW)], NEW.schema, why="scores")
    con = session(other)
    assert repr(features(con)) == repr({i: SAID[i] for i in ("b1", "b2", "b3")})
    names = [name for name, *_ in con.execute("DESCRIBE scores").fetchall()]
    assert names == [name if name != "rows" else "features" for name in NEW.column_names]


def test_who_does_not_ask_for_features_does_not_pay_for_them(home: Path) -> None:
    con = session(home)

    def plan(query: str) -> str:
        return con.execute(f"EXPLAIN {query}").fetchall()[0][1].lower()

    assert "join" not in plan("SELECT max(value) FROM scores WHERE task = 'churn'")
    assert "join" in plan("SELECT features FROM scores")


def test_files_are_adopted_once_and_whole(home: Path) -> None:
    scores, *_ = tables(home)
    version, file = scores.version(), home / "scores.parquet"
    assert scores.adopt([file], NEW.schema, why="again") == 0
    assert (scores.version(), scores.rows()) == (version, 5)
    file.unlink()  # the table has its own
    assert scores.rows() == 5
    more = file_of(home, "more", NEW.slice(0, 1))
    (scores.path / "more.parquet").write_bytes(b"left by a killed commit")
    assert scores.rows() == 5
    assert scores.adopt([more], NEW.schema, why="more") == 1
    assert scores.rows() == 6
    assert [h["why"] for h in scores.history()[:2]] == ["more", "scores"]
    log = "".join(p.read_text() for p in (scores.path / "_delta_log").glob("*.json"))
    assert "numRecords" in log
    assert "p2" not in log  # no minimum and maximum of anybody's


def test_a_person_is_removed_from_both_kinds(home: Path) -> None:
    scores, rows, _ = tables(home)
    con = duckdb.connect()
    assert scores.rewrite(con, "t.profile_id = 'p2'", why="erase") == 2
    assert rows.rewrite(con, "t.profile_id = 'p2'", why="erase") == 1
    for table in (scores, rows):
        table.vacuum()
    assert features(session(home)) == {i: SAID[i] for i in ("a1", "a2", "b1")}
    left = b"".join(file.read_bytes() for file in (home / "lake").rglob("*.parquet"))
    assert b"p2" not in left


def test_a_column_that_no_file_has_yet_is_no_obstacle(tmp_path: Path) -> None:
    """A commit that was cut short after the column was added to the table, and before its first file."""
    from deltalake import DeltaTable
    from deltalake.schema import Field, PrimitiveType

    scores, *_ = tables(tmp_path)
    scores.append(OLD, why="of before")
    DeltaTable(scores.path).alter.add_columns([Field("rows", PrimitiveType("string"), nullable=True)])  # type: ignore[arg-type]
    assert features(session(tmp_path)) == {i: SAID[i] for i in ("a1", "a2")}
    assert scores.rewrite(duckdb.connect(), "t.score_id = 'a1'", why="erase") == 1
    assert scores.adopt([file_of(tmp_path, "scores", NEW)], NEW.schema, why="scores") == 1
    assert scores.rows() == 4

"""A text is found in every format that a home has, however deep; and not where it only seems to stand."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import sqlite3
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from lake import scan
from lake.scan import search

WHO = "Åse.O'Hara@shop.example.org"
QUOTED = WHO.replace("'", "''")
PACKED = gzip.compress(WHO.encode()).hex()


def parquet(**columns: pa.Array) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, compression="zstd", write_statistics=False)
    return out.getvalue()


def sqlite(file: Path, *statements: str) -> None:
    con = sqlite3.connect(file)
    for statement in statements:
        con.execute(statement)
    con.commit()
    con.close()


def many(value: str) -> list[str]:
    return [f"nobody{n}@x.org" for n in range(500)] + [value]


def in_free_pages(file: Path) -> None:
    sqlite(file, "CREATE TABLE t (x)", *[f"INSERT INTO t VALUES ('{who}')" for who in many(WHO.replace("'", "''"))])
    sqlite(file, "PRAGMA secure_delete=OFF", "DELETE FROM t")


PLANTED: dict[str, Callable[[Path], object]] = {
    "a column of Parquet": lambda f: f.write_bytes(parquet(a=pa.array(many(WHO)))),
    "a dictionary of Parquet": lambda f: f.write_bytes(parquet(a=pa.array(many(WHO)).dictionary_encode())),
    "another case": lambda f: f.write_bytes(parquet(a=pa.array(many(WHO.upper())))),
    "a list": lambda f: f.write_bytes(parquet(a=pa.array([["x", WHO]]))),
    "a struct in a list": lambda f: f.write_bytes(parquet(a=pa.array([[{"b": {"c": WHO}}]]))),
    "a key of a map": lambda f: f.write_bytes(
        parquet(a=pa.array([[(WHO, 1.0)]], pa.map_(pa.string(), pa.float64())))
    ),
    "a binary column": lambda f: f.write_bytes(parquet(a=pa.array([f"key {WHO}!".encode()]))),
    "JSON in a column": lambda f: f.write_bytes(parquet(a=pa.array(['{"mail": "' + WHO + '"}']))),
    "the footer": lambda f: pq.write_table(
        pa.table({"a": [1]}).replace_schema_metadata({"made_from": f"batch 7 of {WHO}"}), f
    ),
    "statistics": lambda f: pq.write_table(pa.table({"a": [WHO]}), f),
    "JSON with escapes": lambda f: f.write_text(json.dumps({"a": [{"b": WHO}]})),
    "JSON within JSON": lambda f: f.write_text(json.dumps({"stats": json.dumps({"maxValues": {"mail": WHO}})})),
    "a line of JSON": lambda f: f.write_text('{"a": 1}\nbroken\n' + json.dumps({WHO: 1}) + "\n"),
    "text": lambda f: f.write_text(f"run by hand for <{WHO}>\n"),
    "gzip": lambda f: f.write_bytes(gzip.compress(json.dumps({"a": WHO}).encode())),
    "gzip of Parquet": lambda f: f.write_bytes(gzip.compress(parquet(a=pa.array(many(WHO))))),
    "a pickle": lambda f: f.write_bytes(pickle.dumps({"neighbours": [WHO]})),
    "a pickled array of text": lambda f: f.write_bytes(pickle.dumps(np.array(["x", WHO]))),
    "an array of text": lambda f: np.save(f.with_suffix(".npy"), np.array([WHO, "y"])),
    "UTF-16": lambda f: f.write_bytes(WHO.encode("utf-16")),
    "its name": lambda f: f.with_name(f"{WHO}.txt").write_text("x"),
    "SQLite": lambda f: sqlite(f, "CREATE TABLE t (x)", f"INSERT INTO t VALUES ('{QUOTED}')"),
    "a blob of SQLite": lambda f: sqlite(f, "CREATE TABLE t (x)", f"INSERT INTO t VALUES (x'{PACKED}')"),
    "free pages of SQLite": in_free_pages,
}  # fmt: skip


@pytest.mark.parametrize("plant", PLANTED.values(), ids=PLANTED.keys())
def test_found(tmp_path: Path, plant: Callable[[Path], object]) -> None:
    plant(tmp_path / "file")
    found = search([tmp_path], [WHO, "somebody@else.org"])
    assert {text for *_, text in found.hits} == {WHO}
    assert found.files == 1


@pytest.mark.parametrize("name", ["a column of Parquet", "text", "a pickle"])
def test_a_large_file_is_read_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    PLANTED[name](tmp_path / "file")
    monkeypatch.setattr(scan, "LARGE", 1)
    monkeypatch.setattr(scan, "PIECE", 7)
    assert {text for *_, text in search([tmp_path], [WHO]).hits} == {WHO}


def test_a_zip_and_an_npz_are_opened(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("in/side.json", json.dumps({"a": WHO}))
    np.savez_compressed(tmp_path / "b.npz", a=np.array([WHO]))
    assert {file.name for file, *_ in search([tmp_path], [WHO]).hits} == {"a.zip", "b.npz"}


def test_a_write_ahead_log_is_searched(tmp_path: Path) -> None:
    con = sqlite3.connect(tmp_path / "x.db")
    con.execute("PRAGMA journal_mode=WAL")
    con.execute("CREATE TABLE t (x)")
    con.execute("INSERT INTO t VALUES (?)", [WHO])
    con.commit()
    assert "x.db-wal" in {file.name for file, *_ in search([tmp_path], [WHO]).hits}
    con.close()


def test_the_delta_log_keeps_what_a_delete_was_about(tmp_path: Path) -> None:
    """The reason why nothing of ours deletes by an identifier: the rows are gone, and the text is still there."""
    write_deltalake(tmp_path / "t", pa.table({"mail": [WHO, "x@y.org"], "n": [1, 2]}))
    stored = DeltaTable(tmp_path / "t")
    stored.delete(f"mail = '{WHO.replace(chr(39), chr(39) * 2)}'")
    stored.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
    found = search([tmp_path], [WHO])
    assert {file.suffix for file, *_ in found.hits} == {".json"}
    assert len({file.name for file, *_ in found.hits}) == 2  # the statistics of the first file, and the delete


def test_not_found_within_longer_words(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("order 1400000179, card 40000017.5? 40000017x, x40000017")
    (tmp_path / "b.parquet").write_bytes(parquet(a=pa.array(["140000017", "400000171"]), n=pa.array([140000017, 2])))
    found = search([tmp_path], ["40000017"])
    assert [(file.name, text) for file, _, text in found.hits] == [("a.txt", "40000017")]
    (tmp_path / "a.txt").unlink()
    assert not search([tmp_path], ["40000017"]).hits
    (tmp_path / "c.parquet").write_bytes(parquet(n=pa.array([40000017])))
    assert search([tmp_path], ["40000017"]).hits


def test_short_texts_are_named_not_searched(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("42")
    found = search([tmp_path], ["42", "", "  "])
    assert (found.hits, found.short, found.files) == ([], ["42"], 1)


def test_files_are_skipped_that_are_named(tmp_path: Path) -> None:
    for name in ("home/a/b.txt", "home/c.txt", "d.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(WHO)
    assert {f.name for f, *_ in search([tmp_path], [WHO], skip=[tmp_path / "home"]).hits} == {"d.txt"}
    assert search([tmp_path], [WHO], skip=[tmp_path / "home" / "a"]).files == 2

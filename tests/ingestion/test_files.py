"""Files: every row that can be read is read whole, every other is named by its line, in each format."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretell.errors import DataError, DefinitionError, UnknownName
from ingestion.files import Raw, read


def rows(folder: Path, name: str, content: str | bytes) -> tuple[list[tuple[int, dict]], list[tuple[int, str]], Raw]:
    """(line, payload) of the rows read, (line, text) of those not, from a file of this content."""
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    con = duckdb.connect(config={"memory_limit": "500MB", "threads": 2})
    raw = read(con, file)
    found = con.execute("SELECT _row, _payload FROM raw ORDER BY _row").fetchall()
    bad = [(line, text) for line, text, _ in raw.unreadable]
    return [(raw.line_of(n), json.loads(payload)) for n, payload in found], bad, raw


def refused(folder: Path, name: str, content: str | bytes) -> str:
    with pytest.raises(DataError) as error:
        rows(folder, name, content)
    return str(error.value).replace(str(folder) + "/", "")


READ = {
    "comma": ("a,b\n1,x;y\n", [(2, {"a": "1", "b": "x;y"})], []),
    "semicolon": ('a;b\n1;"2,5;x"\n', [(2, {"a": "1", "b": "2,5;x"})], []),
    "tab": ("a\tb\n1\t2\n", [(2, {"a": "1", "b": "2"})], []),
    "pipe": ("a|b\n1|2\n", [(2, {"a": "1", "b": "2"})], []),
    "byte order mark": ("\ufeffa,b\n1,2\n", [(2, {"a": "1", "b": "2"})], []),
    "CRLF": (
        'a,b\r\n1,"x\r\ny"\r\n3\r\n5,6\r\n',
        [(2, {"a": "1", "b": "x\r\ny"}), (5, {"a": "5", "b": "6"})],
        [(4, "3")],
    ),
    "no last newline": ("a,b\n1,2", [(2, {"a": "1", "b": "2"})], []),
    "quoted": ('a,b\n1,"say ""hi"""\n', [(2, {"a": "1", "b": 'say "hi"'})], []),
    "text stays text": ("a,b\n007,1e3\n", [(2, {"a": "007", "b": "1e3"})], []),
    "empty is null": ('a,b\n,""\n', [(2, {"a": None, "b": None})], []),
    "columns by number of fields": (
        "a,b\n1,2\n3\n4,5,6\n7,8\n",
        [(2, {"a": "1", "b": "2"}), (5, {"a": "7", "b": "8"})],
        [(3, "3"), (4, "4,5,6")],
    ),
    "lines counted through quoted newlines": (
        'a,b\n1,"x\ny"\n3\n"q\nr\ns",9\nbad\n5,6\n',
        [(2, {"a": "1", "b": "x\ny"}), (5, {"a": "q\nr\ns", "b": "9"}), (9, {"a": "5", "b": "6"})],
        [(4, "3"), (8, "bad")],
    ),
    "lines counted through blank ones": (
        "a,b\n1,2\n\n3\n\n7,8\n",
        [(2, {"a": "1", "b": "2"}), (6, {"a": "7", "b": "8"})],
        [(4, "3")],
    ),
    "a quote never closed": ('a,b\n1,2\n3,"open\n5,6\n', [(2, {"a": "1", "b": "2"})], [(3, '3,"open\n5,6')]),
    "invalid UTF-8": (b"a,b\n1,caf\xe9\n2,ok\n", [(3, {"a": "2", "b": "ok"})], [(2, "1,caf?")]),
    "a column without a name": ("a,\n1,2\n", [(2, {"a": "1", "column_2": "2"})], []),
    "odd names": ('"a b","c""d",e\'f\n1,2,3\n', [(2, {"a b": "1", 'c"d': "2", "e'f": "3"})], []),
    "a name over two lines": ('"a\nb",c\n1,2\n', [(3, {"a\nb": "1", "c": "2"})], []),
    "one column": ("a\n1\n2\n", [(2, {"a": "1"}), (3, {"a": "2"})], []),
}  # fmt: skip


@pytest.mark.parametrize("case", READ)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
def test_csv(tmp_path, case, packed):
    content, good, bad = READ[case]
    data = content if isinstance(content, bytes) else content.encode()
    found = rows(tmp_path, "a.csv.gz" if packed else "a.csv", gzip.compress(data) if packed else data)
    assert found[:2] == (good, bad)


cell = st.text(st.sampled_from("ab,;\"\n é'"), max_size=4)
records = st.lists(st.lists(cell, min_size=3, max_size=3) | st.lists(st.just("x"), min_size=1, max_size=5), max_size=12)


@settings(max_examples=40, deadline=None)
@given(records=records, ending=st.sampled_from(["\n", "\r\n"]))
def test_csv_as_python_reads_it(tmp_path_factory, records, ending):
    out = io.StringIO()
    csv.writer(out, lineterminator=ending).writerows([["a", "b", "c"], *records])
    good, bad, lines = [], [], csv.reader(io.StringIO(out.getvalue(), newline=""))
    at = 2 + next(lines).count("")
    for record in lines:
        if len(record) == 3:
            good.append((at, {k: v or None for k, v in zip("abc", record, strict=True)}))
        else:
            bad.append((at, ",".join(record)))
        at = lines.line_num + 1
    assert rows(tmp_path_factory.mktemp("f"), "a.csv", out.getvalue())[:2] == (good, bad)


def test_a_line_longer_than_any_limit_goes_to_quarantine(tmp_path):
    found, bad, _ = rows(tmp_path, "a.csv", f"a,b\n1,2\n3,{'x' * 11_000_000}\n5,6\n")
    assert [line for line, _ in found] == [2, 4]
    assert [line for line, _ in bad] == [3]


def test_json_lines(tmp_path):
    text = '{"a": 1, "b": {"c": "x"}}\n\n[1, 2]\n{"a":\n   \n{"a": [2, {"d": null}]}\n"s"\nnull\n'
    found, bad, raw = rows(tmp_path, "a.jsonl", text)
    assert found == [(1, {"a": 1, "b": {"c": "x"}}), (6, {"a": [2, {"d": None}]})]
    assert bad == [(3, "[1, 2]"), (4, '{"a":'), (7, '"s"'), (8, "null")]
    assert {reason for _, _, reason in raw.unreadable} == {"expected a JSON object on one line"}


@pytest.mark.parametrize("name", ["a.ndjson", "a.jsonl.gz"])
def test_json_lines_of_other_names_and_endings(tmp_path, name):
    data = b'\xef\xbb\xbf{"a":"1"}\r\n{"a":"caf\xe9"}\r\n{"a":"\x01"}\r\n{"a":"2"}\r\nno\r\n{"a":"3"}'
    found, bad, _ = rows(tmp_path, name, gzip.compress(data) if name.endswith("gz") else data)
    assert found == [(1, {"a": "1"}), (4, {"a": "2"}), (6, {"a": "3"})]
    assert [line for line, _ in bad] == [2, 3, 5]


def test_paths_into_json(tmp_path):
    con, file = duckdb.connect(), tmp_path / "a.jsonl"
    file.write_text('{"user": {"email": "a@x.org", "n o": 1}, "ids": [5], "gone": null, "total": 2.5}\n')
    raw = read(con, file)
    asked = [
        '"user".email',
        '"user"."n o"',
        "ids",
        "gone",
        "nowhere.at.all",
        "total::DOUBLE * 2",
        'upper("user".email)',
    ]
    found = con.execute(f"SELECT {', '.join(raw.expression(text, what='s') for text in asked)} FROM raw").fetchall()
    assert found == [("a@x.org", "1", "[5]", None, None, 5.0, "A@X.ORG")]


def test_parquet(tmp_path):
    con, file = duckdb.connect(), tmp_path / "a.parquet"
    con.execute(
        f"""COPY (SELECT 1.50::DECIMAL(9,2) AS price, TIMESTAMP '2024-01-02 03:04:05' AS "at it",
            {{'x': [1, 2]}} AS nested, NULL AS gone) TO '{file}'"""
    )
    raw = read(con, file)
    assert raw.columns is not None
    assert list(raw.columns) == ["price", "at it", "nested", "gone"]
    (payload,) = con.execute("SELECT _payload FROM raw").fetchall()[0]
    assert json.loads(payload) == {"price": 1.5, "at it": "2024-01-02 03:04:05", "nested": {"x": [1, 2]}, "gone": None}


WHOLE = "; is the file whole, and of the kind it says?"
MIXED = "; it may mix line ends (CRLF and LF), or not be text at all: save it anew as UTF-8 with one kind"


def test_files_that_cannot_be_read(tmp_path):
    assert refused(tmp_path, "a.csv", "") == "a.csv: expected a header and rows, got an empty file; export it again"
    two = "two columns have the same name; rename one of "
    assert refused(tmp_path, "a.csv", "a,b,a\n1,2,3\n") == f"a.csv: {two}['a', 'b', 'a']"
    assert refused(tmp_path, "a.csv", "a,A\n1,2\n") == f"a.csv: {two}['a', 'A']"
    ours = "a.csv: a column has the name _row, which Foretell needs itself; rename it"
    assert refused(tmp_path, "a.csv", "_row,b\n1,2\n") == ours
    kinds = ".csv, .csv.gz, .jsonl, .ndjson, .jsonl.gz, .parquet, .xlsx"
    assert refused(tmp_path, "a.txt", "x") == f"a.txt: unknown kind of file; expected one of {kinds}"
    for name, content in [
        ("a.parquet", b"junk"),
        ("b.parquet", b"PAR1" + b"junk" * 20 + b"PAR1"),
        ("a.csv.gz", b"a,b\n1,2\n"),
        ("b.csv.gz", gzip.compress(b"a,b\n1,2\n" * 5000)[:50]),
        ("a.jsonl.gz", b"{}"),
        ("a.xlsx", b"junk"),
        ("mixed.csv", b"a,b\r\n1,2\n3,4\r\n"),
    ]:
        message = refused(tmp_path, name, content)
        assert message.startswith(f"{name}: cannot be read: ")
        assert message.endswith(MIXED if name == "mixed.csv" else WHOLE)
        assert "\n" not in message
    with pytest.raises(DataError, match=r"gone\.csv: no such file; check the path, or the setting `exports`"):
        read(duckdb.connect(), tmp_path / "gone.csv")


@pytest.mark.parametrize("text", ["amount +", "'open", "a b c", "("])
def test_an_expression_that_is_no_sql(text):
    with pytest.raises(DefinitionError) as error:
        Raw({"a": "VARCHAR"}, [], int).expression(text, what="source till")
    assert str(error.value).startswith(f"source till: {text!r} is not a SQL expression: ")
    assert str(error.value).endswith("; mend it in the contract")


def test_columns_whose_names_are_words_of_sql(tmp_path):
    names = ["at", "order", "group", "desc", "select", "end", "case", "from", "sold at", "ä"]
    con, file = duckdb.connect(), tmp_path / "a.csv"
    file.write_text(",".join(names) + "\n" + ",".join(f"v{n}" for n in range(len(names))) + "\n")
    raw = read(con, file)
    asked = ", ".join(raw.expression(name, what="s") for name in names)
    assert con.execute(f"SELECT {asked} FROM raw").fetchall() == [tuple(f"v{n}" for n in range(len(names)))]


def test_a_column_that_the_file_lacks():
    raw = Raw({"amount": "VARCHAR", "sold at": "VARCHAR"}, [], int)
    assert raw.expression("amount + 1", what="till") == 'TRY_CAST("amount" AS DOUBLE) + 1'
    assert raw.expression('upper("sold at")', what="till") == 'UPPER("sold at")'
    for text, fix in [("amuont", 'did you mean "amount"?'), ("zzz", "known: amount, sold at")]:
        with pytest.raises(UnknownName) as error:
            raw.expression(f"{text} * 2", what="source till, a.csv")
        assert str(error.value) == f"{text}: no such column; {fix}. (source till, a.csv)"

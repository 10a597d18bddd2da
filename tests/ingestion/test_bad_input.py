"""Bad input: whatever comes, good rows load, bad ones are told of by line, and what is refused says how to mend it."""

from __future__ import annotations

import gzip
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from one_source import HEADER, ask, line, loaded, project, quarantined, sales, write

import ingestion.load as loading
from foretell.errors import DataError
from ingestion.load import Loaded
from lake.engine import last_batch, source_table
from unification.identity import unify

SALE = {"at": "2024-03-05", "order_no": "1", "amount": "9.9", "email": "a@b.org"}


def row(**changes) -> str:
    return json.dumps({**SALE, **changes}) + "\n"


def brought(folder: Path, name: str, content: str | bytes, **contract) -> tuple[int, list[tuple[int, str]]]:
    """How many facts a file brings, and the line and reason of each row in quarantine."""
    made = project(folder, sales(files="*", **contract))
    write(made, name, content)
    (result,) = loaded(made)
    assert isinstance(result, Loaded), result
    assert source_table(made, "sales").rows() == result.added
    return result.added, [(n, why) for _, n, why in quarantined(made)] if result.quarantined else []


def refused(folder: Path, name: str, content: str | bytes) -> str:
    """What is said of a file of which nothing is loaded."""
    made = project(folder, sales(files="*"))
    write(made, name, content)
    (error,) = loaded(made)
    assert isinstance(error, DataError), error
    assert last_batch(made) == 0
    assert source_table(made, "sales").rows() == 0
    assert error.fix
    return str(error)


NOT_UTF8 = "Invalid unicode (byte sequence mismatch) detected. This file is not utf-8 encoded."
PARTLY = {
    "invalid UTF-8 in CSV": ("a.csv", (HEADER + line(1)).encode() + line(2, email="é@b.org").encode("latin-1")
                             + line(3).encode(), 2, [(3, NOT_UTF8)]),
    "invalid UTF-8 in JSON": ("a.jsonl", row().encode() + row(order_no="?").encode().replace(b"?", b"\xff\xfe")
                              + row(order_no="3").encode(), 2, [(2, NOT_UTF8)]),
    "NUL in JSON": ("a.jsonl", row() + row().replace("a@b", "\0a@b") + row(order_no="3"), 2,
                    [(2, "expected a JSON object on one line")]),
    "a byte order mark": ("a.csv", "\ufeff" + HEADER + line(1), 1, []),
    "a byte order mark in JSON": ("a.jsonl", "\ufeff" + row(), 1, []),
    "ragged rows": ("a.csv", HEADER + line(1) + "2024-03-05,2\n1,2,3,4,5,6\n" + line(3), 2,
                    [(3, "Expected Number of Columns: 4 Found: 2"), (4, "Expected Number of Columns: 4 Found: 5")]),
    "a quote within a value": ("a.csv", HEADER + line(1) + '2024-03-05,2"x,1,a@b.org\n' + line(3), 3, []),
    "a quote never closed": ("a.csv", HEADER + line(1) + '2024-03-05,"2,1,x\n' + line(3), 1,
                             [(3, "Value with unterminated quote found.")]),
    "CR alone": ("a.csv", (HEADER + line(1) + line(2)).replace("\n", "\r"), 2, []),
    "half a surrogate": ("a.jsonl", row() + row().replace("a@b", "\\ud800"), 1,
                         [(2, "expected a JSON object on one line")]),
    "10,000 arrays deep": ("a.jsonl", row() + row(x=0).replace('"x": 0', '"x": ' + "[" * 10_000 + "]" * 10_000), 2, []),
    "10,000 objects deep": ("a.jsonl", row() + row(x=0).replace(
        '"x": 0', '"x": ' + '{"a":' * 10_000 + "1" + "}" * 10_000), 2, []),
    "10,000 keys": ("a.jsonl", row(**{f"c{n}": n for n in range(10_000)}), 1, []),
    "duplicate keys": ("a.jsonl", row().replace('"amount"', '"amount": 5, "amount"', 1), 1, []),
    "numbers that are none": ("a.jsonl", "".join(row(amount=0).replace('"amount": 0', f'"amount": {n}') for n in (
        "Infinity", "-Infinity", "NaN", '"inf"', "1e400", "1e30", "123456789012345678901234567890", "true", "[1]",
        '{"a": 1}', "null")), 0, ...),
    "numbers too small to matter": ("a.jsonl", row(amount=0).replace('"amount": 0', '"amount": 1e-400'), 1, []),
}  # fmt: skip


@pytest.mark.parametrize("case", PARTLY)
def test_good_rows_load_and_bad_ones_are_told_of(tmp_path, case):
    name, content, good, bad = PARTLY[case]
    added, reasons = brought(tmp_path, name, content)
    assert added == good
    if bad is ...:
        assert [n for n, _ in reasons] == list(range(1, 12))
        assert all("amount: expected DECIMAL(18,4), got " in why for _, why in reasons)
    else:
        assert reasons == bad


REFUSED = {
    "UTF-16": ("a.csv", (HEADER + line(1)).encode("utf-16"), "expected text in UTF-8, got UTF-16", "iconv -f UTF-16"),
    "UTF-16 without its mark": ("a.csv", (HEADER + line(1)).encode("utf-16-le"), "got UTF-16 or binary", "iconv"),
    "UTF-16 in JSON": ("a.jsonl", row().encode("utf-16"), "got UTF-16 or binary data", "iconv -f UTF-16 -t UTF-8"),
    "two kinds of line ends": ("a.csv", (HEADER + line(1)).replace("\n", "\r\n") + line(2) + line(3),
                               "it may mix line ends", "save it anew as UTF-8 with one kind"),
    "blank": ("a.csv", "\n\n\n", "expected a header and rows, got an empty file", "export it again"),
    "no rows": ("a.jsonl", "\n", "expected rows, got none", "export it again"),
    "no Parquet": ("a.parquet", "", "cannot be read", "is the file whole, and of the kind it says?"),
    "no workbook": ("a.xlsx", "", "cannot be read", "is the file whole, and of the kind it says?"),
    "half a gz": ("a.csv.gz", gzip.compress((HEADER + line() * 1000).encode())[:60], "cannot be read",
                  "is the file whole"),
    "one name twice": ("a.csv", "at,AT,order_no,amount,email\n1,2,3,4,5\n", "two columns have the same name", "rename"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_cannot_be_understood_is_refused_whole(tmp_path, case):
    name, content, problem, fix = REFUSED[case]
    said = refused(tmp_path, name, content)
    assert problem in said
    assert fix in said


@pytest.mark.slow
def test_ten_thousand_columns(tmp_path):
    more = [f"c{n}" for n in range(10_000)]
    content = ",".join(["at", "order_no", "amount", "email", *more]) + "\n" + line(1).strip() + ",x" * 10_000 + "\n"
    assert brought(tmp_path, "a.csv", content) == (1, [])


def test_names_of_files_are_names(tmp_path):
    """Brackets and stars in a name are no pattern, links in a ring end, a folder is no file, a pipe is none either."""
    made = project(tmp_path, sales(files="**/*.csv"))
    names = ["o[1].csv", "o*.csv", "o1.csv", "it's.csv", "ä ö.csv", "o?.csv"]
    for n, name in enumerate(names):
        write(made, name, HEADER + line(n))
    (made.exports / "x.csv").mkdir()
    write(made, "x.csv/y.csv", HEADER + line(77))
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / "linked.csv").write_text(HEADER + line(78))
    for name, target in (("loop", "."), ("loop2", "."), ("dead.csv", "gone"), ("self.csv", "self.csv"), ("to", other)):
        os.symlink(target, made.exports / name)
    os.mkfifo(made.exports / "pipe.csv")
    results = loaded(made)
    assert {r.file: r.added for r in results if isinstance(r, Loaded)} == dict.fromkeys(
        [*names, "x.csv/y.csv", "to/linked.csv"], 1
    )
    assert len(results) == len(names) + 2
    assert ask(made, "SELECT count(DISTINCT order_id) FROM sales") == [(len(names) + 2,)]


@pytest.mark.parametrize("what", ["vanishes", "vanishes after", "shrinks", "is another", "grows"])
def test_a_file_that_changes_while_it_is_read(tmp_path, monkeypatch, what):
    made = project(tmp_path, sales())
    whole = HEADER + "".join(line(n) for n in range(100))
    file = write(made, "a.csv", whole)
    read = loading.read

    def changing(con, path, *more):
        if what == "vanishes":
            path.unlink()
        elif what == "shrinks":
            os.truncate(path, 1000)
        elif what == "grows":
            with path.open("a") as out:
                out.write(line(100))
        raw = read(con, path, *more)
        if what == "vanishes after":
            path.unlink()
        if what == "is another":
            other = path.with_suffix(".new")
            other.write_text(HEADER + line(500) * 200)
            other.replace(path)
        return raw

    with monkeypatch.context() as patch:
        patch.setattr(loading, "read", changing)
        (result,) = loaded(made)
    assert isinstance(result, DataError)
    assert result.fix in {"it stays, and is loaded when it is whole", "check the path, or the setting `exports`"}
    assert last_batch(made) == 0
    file.write_text(whole)
    (result,) = loaded(made)
    assert isinstance(result, Loaded)
    assert result.added == 100, "what was read of half a file must not count as the file"


LONG = 100_000_000


def in_its_own_process(folder: Path, name: str) -> tuple[str, float]:
    """What loading a file says, and the peak of memory in GB."""
    made = project(folder, sales(files="*"))
    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from one_source import project, sales, loaded
made = project(Path({str(folder)!r}), sales(files="*"))
for result in loaded(made):
    print(result)
print([l.split()[1] for l in open("/proc/self/status") if l.startswith("VmHWM")][0])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    *said, peak = done.stdout.splitlines()
    assert (made.exports / name).exists()
    return "\n".join(said), int(peak) / 1024**2


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc")
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.csv.gz", "a.jsonl.gz"])
def test_a_line_of_100_mb(tmp_path, name):
    made = project(tmp_path, sales(files="*"))
    if ".csv" in name:
        parts = [HEADER + line(1), "2024-03-05,2,1,", "x" * LONG, "\n" + line(3) + "short\n" + line(4)]
    else:
        parts = [
            row(),
            row().replace("}", ', "x": "').strip(),
            "x" * LONG,
            '"}\n' + row(order_no="3") + "[]\n" + row(order_no="4"),
        ]
    with (gzip.open if name.endswith("gz") else open)(made.exports / name, "wt") as out:
        out.writelines(parts)
    said, peak = in_its_own_process(tmp_path, name)
    assert "added=3, known=0, quarantined=2" in said
    long, short = quarantined(made)
    first = 3 if ".csv" in name else 2
    assert (long[1], short[1]) == (first, first + 2), "lines are counted as they are in the file"
    assert "expected a line of at most 10,000,000 bytes, got 100,0" in long[2]
    assert ask(made, "SELECT max(length(raw)) FROM quarantine") == [(10_000,)]
    assert peak < 1.5


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc")
@pytest.mark.parametrize("case", ["a long value", "never closed", "in a long line", "the header"])
def test_a_quoted_value_without_an_end(tmp_path, case):
    made = project(tmp_path, sales(files="*"))
    begins = HEADER + line(1)
    parts = {
        "a long value": [begins, '2024-03-05,2,1,"', "x\n" * (LONG // 4), '"\n' + line(3)],
        "never closed": [begins, '2024-03-05,"2,1,x\n', line(3) * (LONG // 200)],
        "in a long line": [begins, '2024-03-05,2,1,"', "x" * LONG, '\n"\n' + line(3)],
        "the header": ["x" * LONG, "\n" + line(3)],
    }[case]
    with (made.exports / "a.csv").open("w") as out:
        out.writelines(parts)
    said, peak = in_its_own_process(tmp_path, "a.csv")
    assert {
        "a long value": "a quoted value that begins on line 3 is longer than 10,000,000 characters; is its closing",
        "never closed": "a quoted value that begins on line 3 is longer than 10,000,000 characters; is its closing",
        "in a long line": "line 3 has 100,000,017 bytes, and a quote that goes on beyond it; mend that line",
        "the header": "expected a header, got a first line of 100,000,001 bytes; is it a CSV file, with line ends?",
    }[case] in said
    assert last_batch(made) == 0
    assert peak < 1.5


def test_quotes_that_mean_inches_do_not_make_a_long_file_endless(tmp_path):
    rows = "".join(f'2024-03-05,{n},1,a pipe of 5" width\n' for n in range(420_000))
    assert len(rows) > 15_000_000
    assert brought(tmp_path, "a.csv", HEADER + rows + line(1)) == (420_001, [])


@pytest.mark.slow
def test_a_bomb_of_three_gigabytes(tmp_path):
    made = project(tmp_path, sales(files="*"))
    with gzip.open(made.exports / "a.jsonl.gz", "wb", 1) as out:
        out.write(row().encode())
        for _ in range(300):
            out.write(b"x" * 10_000_000)
    said, peak = in_its_own_process(tmp_path, "a.jsonl.gz")
    assert "added=1, known=0, quarantined=1" in said
    assert peak < 1.5


NOBODY = ["", " ", "null", "NULL", "None", "N/A", "n/a", "#N/A", "nil", "(null)", "0", "000", "-1", "unknown", "-", "?"]
NOBODY += ["undefined", "test", "00000000-0000-0000-0000-000000000000", "0000-0000", "\x00", "\x1f", "[]", "{}"]


def test_placeholders_link_nobody(tmp_path):
    """Two people who share nothing but a placeholder stay two."""
    kinds = {"email": "email", "phone": "phone", "loyalty_card": "card", "device": "device", "customer_no": "no"}
    made = project(tmp_path, sales(files="*.jsonl", identifiers=kinds))
    rows = [
        row(order_no=f"{n}{k}", email=f"p{n}{k}@b.org" if k != 0 else text, phone=text if k != 1 else f"21255501{n:02}",
            card=text, device=text, no=text)
        for n, text in enumerate(NOBODY)
        for k in range(2)
    ]  # fmt: skip
    rows += [row(order_no=f"{kind}", email=f"{kind}@c.org", **{kinds[kind]: value})
             for kind in ("phone", "device") for value in NOBODY]  # fmt: skip
    write(made, "a.jsonl", "".join(rows))
    loaded(made)
    nodes = ask(made, "SELECT DISTINCT id_loyalty_card, id_device, id_customer_no FROM sales")
    assert nodes == [(None, None, None)]
    found = unify(made)
    assert found["refused"] == 0
    assert ask(made, "SELECT max(identifiers) FROM profiles") == [(2,)]


def test_an_identifier_shared_by_ten_thousand_people(tmp_path):
    made = project(tmp_path, sales(identifiers={"email": "email", "phone": "phone"}))
    rows = "".join(f"2024-03-05,{n},1,p{n}@b.org,212 555 0100\n" for n in range(10_000))
    write(made, "a.csv", "at,order_no,amount,email,phone\n" + rows)
    loaded(made)
    found = unify(made)
    assert found["refused"] == 10_000  # nobody is linked by it, not even the first
    assert ask(made, "SELECT max(identifiers) FROM profiles") == [(1,)]
    assert found["profiles"] == 10_001
    ((reason,),) = ask(made, "SELECT DISTINCT reason FROM refused_edges")
    assert reason.startswith("phone:")
    assert reason.endswith("is shared: met with more than 20 of another type")


@pytest.mark.slow
def test_a_million_rows_with_one_email(tmp_path):
    made = project(tmp_path, sales())
    with (made.exports / "a.csv").open("w") as out:
        out.write(HEADER)
        out.writelines(line(n) for n in range(1_000_000))
    (result,) = loaded(made)
    assert isinstance(result, Loaded)
    assert result.added == 1_000_000
    before = resource.getrusage(resource.RUSAGE_SELF)
    found = unify(made)
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert (found["identifiers"], found["profiles"], found["links"]) == (1, 1, 0)
    assert after.ru_utime - before.ru_utime < 10


TIMES = {
    "2024-03-31 02:30:00": "2024-03-31T01:30:00",  # in the gap of Oslo's spring: read as if the clock had not moved yet
    "2024-10-27 01:30:00": "2024-10-26T23:30:00",
    "2024-10-27 02:30:00": "2024-10-27T01:30:00",  # twice in Oslo's autumn: the second time, winter's
    "2024-10-27 02:30:00+02:00": "2024-10-27T00:30:00",
    "2024-10-27 02:30:00+01": "2024-10-27T01:30:00",
    "2024-03-05T10:00:00Z": "2024-03-05T10:00:00",
    "2024-03-05T10:00:00.123456789+0530": "2024-03-05T04:30:00.123456",
    "2024-03-05 10:00:00 Europe/Paris": "2024-03-05T09:00:00",
    "2024-03-05 10:00:00 EST": "2024-03-05T15:00:00",
    "2024-03-05T10:00:00-14:00": "2024-03-06T00:00:00",
    "2024-03-05": "2024-03-04T23:00:00",
    "2024-03-05T24:00:00": "2024-03-05T23:00:00",
    "2024-03-05 10:00:00+25:00": "expected a time",
    "2024-03-05 10:00:00+16:00": "expected a time",
    "2024-03-05 10:00:00 XYZ": "expected a time",
    "2024-03-05 10:00:60": "expected a time",
    "2024-02-30": "expected a time",
    "2024-13-01": "expected a time",
    "5/3/2024": "expected a time",
    "1709632800": "expected a time",
    "0001-01-01": "expected a time after 1970",
    "24-03-05": "expected a time after 1970",
    "1969-12-31": "expected a time after 1970",
    "2999-01-01": "happens in the future",
    "9999-12-31 23:59:59": "happens in the future",
    "99999-01-01": "happens in the future",
    "294247-01-10 04:00:54.775807": "expected a time",
    "-0044-03-15": "expected a time",
    "infinity": "expected a time",
    "epoch": "expected a time",
    "now": "expected a time",
    "": "no time",
}


def test_times(tmp_path):
    made = project(tmp_path, sales(timezone="Europe/Oslo"))
    write(made, "a.csv", HEADER + "".join(line(n, at=f'"{at}"') for n, at in enumerate(TIMES)))
    loaded(made)
    said = list(TIMES)
    found = {said[int(n)]: at.strftime("%Y-%m-%dT%H:%M:%S.%f").removesuffix(".000000")
             for n, at in ask(made, "SELECT order_id, event_at FROM sales")}  # fmt: skip
    assert found == {text: at for text, at in TIMES.items() if at[0] == "2"}
    why = {said[n - 2]: reason for _, n, reason in quarantined(made)}
    assert why.keys() == TIMES.keys() - found.keys()
    assert all(TIMES[text] in reason for text, reason in why.items()), why


def test_a_project_of_nothing_but_bad_rows_still_answers(tmp_path):
    made = project(tmp_path, sales())
    write(made, "a.csv", HEADER + line(1, at="never") * 3)
    loaded(made)
    assert unify(made)["profiles"] == 0

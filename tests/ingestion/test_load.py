"""Loading: a fact is there once, whole, in a batch of the ledger, whatever is repeated, broken or interrupted."""

from __future__ import annotations

import json

import pytest
from one_source import HEADER, ask, line, loaded, project, quarantined, sales, write

from foretell.errors import DataError
from foretell.project import Project
from ingestion.load import Loaded, load_file
from lake.engine import last_batch, source_table, table
from lake.tables import Table

FACTS = "SELECT * EXCLUDE (received_at) FROM sales ORDER BY fact_id"
LEDGER = "SELECT batch, source, file, rows, added, known, quarantined FROM batches ORDER BY batch"


def counts(result: object) -> tuple[int, int, int]:
    assert isinstance(result, Loaded), result
    return result.added, result.known, result.quarantined


def test_a_batch_in_the_ledger(tmp_path):
    made = project(tmp_path, sales())
    assert last_batch(made) == 0
    write(made, "a.csv", HEADER + line(1) + line(2) + line(3, amount="x"))
    write(made, "b.csv", HEADER + line(4))
    results = loaded(made)
    assert [counts(r) for r in results] == [(2, 0, 1), (1, 0, 0)]
    assert results[0].reasons == ['a.csv:4: amount: expected DECIMAL(18,4), got "x"']
    assert ask(made, LEDGER) == [(1, "sales", "a.csv", 3, 2, 0, 1), (2, "sales", "b.csv", 1, 1, 0, 0)]
    assert ask(made, "SELECT batch, count(*) FROM sales GROUP BY 1 ORDER BY 1") == [(1, 2), (2, 1)]
    assert last_batch(made) == 2


def test_the_payload_keeps_every_column_whole(tmp_path):
    made = project(tmp_path, sales())
    write(
        made,
        "a.csv",
        'at,order_no,amount,email,note,"till no"\n2024-03-05,1, 9.900 ,Ann@Example.org,"two\nlines ""é""",\n',
    )
    loaded(made)
    ((payload,),) = ask(made, "SELECT payload FROM sales")
    assert json.loads(payload) == {
        "at": "2024-03-05", "order_no": "1", "amount": " 9.900 ", "email": "Ann@Example.org",
        "note": 'two\nlines "é"', "till no": None,
    }  # fmt: skip


def test_the_same_file_twice_adds_nothing(tmp_path):
    made = project(tmp_path, sales())
    write(made, "a.csv", HEADER + line(1) + line(2, at="never"))
    loaded(made)
    before = ask(made, FACTS), ask(made, LEDGER), quarantined(made)
    (again,) = loaded(made)
    assert again.skipped
    (made.exports / "a.csv").rename(made.exports / "b.csv")  # the same bytes under another name
    (again,) = loaded(made)
    assert again.skipped
    assert (ask(made, FACTS), ask(made, LEDGER), quarantined(made)) == before


def test_a_grown_file_adds_only_its_new_rows(tmp_path):
    made = project(tmp_path, sales())
    write(made, "a.csv", HEADER + line(1) + line(2, at="never"))
    loaded(made)
    write(made, "a.csv", HEADER + line(1) + line(2, at="never") + line(3) + line(4, at="2024-04-01"))
    (result,) = loaded(made)
    assert counts(result) == (2, 1, 1)
    assert ask(made, "SELECT order_id, batch FROM sales ORDER BY 1") == [("1", 1), ("3", 2), ("4", 2)]
    assert len(quarantined(made)) == 1


def test_identical_lines_of_one_file_are_two_facts(tmp_path):
    made = project(tmp_path, sales())
    write(made, "a.csv", HEADER + line(1) * 2)
    write(made, "b.csv", HEADER + line(1) + line(2))  # the same sale in a second file: once
    write(made, "c.csv", HEADER + line(1) * 3)  # a third one is new
    assert [counts(r) for r in loaded(made)] == [(2, 0, 0), (1, 1, 0), (1, 2, 0)]
    assert ask(made, "SELECT order_id, count(*), count(DISTINCT fact_id) FROM sales GROUP BY 1 ORDER BY 1") == [
        ("1", 3, 3),
        ("2", 1, 1),
    ]


def test_a_file_with_a_column_more_or_less_loads(tmp_path):
    made = project(tmp_path, sales())
    write(made, "a.csv", HEADER + line(1))
    write(made, "b.csv", "till,email,amount,order_no,at\n7,bob@example.org,5,2,2024-03-05\n")
    assert [counts(r) for r in loaded(made)] == [(1, 0, 0), (1, 0, 0)]
    assert ask(made, "SELECT order_id, id_email FROM sales ORDER BY 1") == [
        ("1", "ann@example.org"),
        ("2", "bob@example.org"),
    ]


def test_a_contract_that_learns_a_column(tmp_path):
    made = project(tmp_path, sales())
    write(made, "a.csv", HEADER + line(1))
    loaded(made)
    wider = sales(
        columns={"order_id": "order_no", "amount": "amount", "shelf": "'top'"},
        types={"shelf": "VARCHAR"},
        identifiers={"phone": "'2125550100'"},
    )
    made = project(tmp_path, wider)
    write(made, "b.csv", HEADER + line(2))
    loaded(made)
    found = ask(made, "SELECT order_id, shelf, id_email, id_phone FROM sales ORDER BY 1")
    assert found == [("1", None, "ann@example.org", None), ("2", "top", None, "2125550100")]


def test_two_sources_may_have_the_same_lines(tmp_path):
    made = project(tmp_path, sales(), sales(name="others"))
    write(made, "a.csv", HEADER + line(1))
    assert [counts(r) for r in loaded(made)] == [(1, 0, 0), (1, 0, 0)]


UNREADABLE = {
    "empty": (b"", "expected a header and rows, got an empty file; export it again"),
    "only a header": (HEADER.encode(), "expected rows, got none; export it again, or remove the file"),
    "other columns": (b"a,b\n1,2\n", "no such column"),
    "not gzip": (b"at", "cannot be read: Not a gzipped file"),
    "not Parquet": (b"at", "cannot be read: "),
    "unknown": (b"at", "unknown kind of file; expected one of .csv"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_file_that_cannot_be_loaded_stops_no_other(tmp_path, case):
    content, message = UNREADABLE[case]
    name = {"not gzip": "b.csv.gz", "not Parquet": "b.parquet", "unknown": "b.txt"}.get(case, "b.csv")
    made = project(tmp_path, sales(files="*"))
    write(made, "a.csv", HEADER + line(1))
    write(made, name, content)
    write(made, "c.csv", HEADER + line(2))
    first, error, last = loaded(made)
    assert counts(first) == counts(last) == (1, 0, 0)
    assert message in str(error)
    assert name in str(error)
    assert len(ask(made, LEDGER)) == 2


def test_a_source_without_files_stops_no_other(tmp_path):
    made = project(tmp_path, sales(files="till/*.csv"), sales(name="others"))
    write(made, "a.csv", HEADER + line(1))
    error, result = loaded(made)
    assert str(error) == (
        f"sales: no file matches till/*.csv in {made.exports}; check `files` in the contract, or the setting `exports`"
    )
    assert counts(result) == (1, 0, 0)
    with pytest.raises(DataError, match=r"gone\.csv: cannot be opened: .*; check the path, or the setting `exports`"):
        load_file(made, sales(), made.exports / "gone.csv")


CONTENT = HEADER + "".join(line(n, at=f"2024-0{n}-01") for n in range(1, 6)) + line(1) + line(6, at="never") + "short\n"
SHOWN = [("a.csv", 8, 'at: expected a time, got "never"'), ("a.csv", 9, "Expected Number of Columns: 4 Found: 1")]


class Killed(BaseException):
    """The process ends here."""


def killed_at(monkeypatch, calls: int, *, after: bool) -> None:
    """Let Table.append end the process at its n-th call, before or after it has committed."""
    append, left = Table.append, [calls]

    def dying(self: Table, *args, **more):
        left[0] -= 1
        if left[0] == 0 and not after:
            raise Killed
        append(self, *args, **more)
        if left[0] == 0:
            raise Killed

    monkeypatch.setattr(Table, "append", dying)


def shop(folder) -> Project:
    made = project(folder, sales())
    write(made, "0.csv", HEADER + line(100) + line(101, at="2024-01-01"))
    loaded(made)
    write(made, "a.csv", CONTENT)
    return made


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("calls", [1, 2, 3], ids=["quarantine", "facts", "ledger"])
def test_an_interrupted_load_is_repaired_by_another(tmp_path, monkeypatch, calls, after):
    undisturbed, made = shop(tmp_path / "undisturbed"), shop(tmp_path / "interrupted")
    loaded(undisturbed)
    before = ask(made, FACTS)
    for _ in range(2):  # killed twice at the same point
        with monkeypatch.context() as patch:
            killed_at(patch, calls, after=after)
            try:
                loaded(made)
            except Killed:
                if (calls, after) != (3, True):
                    assert last_batch(made) == 1
                    assert ask(made, FACTS) == before, "facts of a batch that is not in the ledger are visible"
                    assert len(ask(made, LEDGER)) == 1
    loaded(made)
    assert ask(made, FACTS) == ask(undisturbed, FACTS)
    assert ask(made, LEDGER) == ask(undisturbed, LEDGER) == [
        (1, "sales", "0.csv", 2, 2, 0, 0),
        (2, "sales", "a.csv", 8, 6, 0, 2),
    ]  # fmt: skip
    assert quarantined(made) == quarantined(undisturbed) == SHOWN
    assert source_table(made, "sales").rows() == 8
    assert table(made, "quarantine").rows() == 2
    assert all(r.skipped for r in loaded(made))


def run(made: Project, *words: object) -> str:
    from click.testing import CliRunner

    from foretell.__main__ import cli

    result = CliRunner().invoke(cli, ["--project", str(made.folder), *map(str, words)], catch_exceptions=False)
    return result.output


def declared(folder, *names: str) -> Project:
    """A project whose sources are files, as the command line finds them."""
    made = project(folder)
    (folder / "sources").mkdir()
    for name in names:
        (folder / "sources" / f"{name}.py").write_text(
            f'from foretell import Source\n\n{name} = Source(name="{name}", files="{name}/*.csv", role="order_line",\n'
            '    event_at="at", identifiers={"email": "email"}, columns={"order_id": "order_no", "amount": "amount"},\n'
            '    only="amount > 0")\n'
        )
    return made


def test_files_from_anywhere_instead_of_the_contracts(tmp_path):
    made = declared(tmp_path / "shop", "till", "web")
    (tmp_path / "a.csv").write_text(HEADER + line(1) + line(2, amount="0"))
    (tmp_path / "b.csv").write_text(HEADER + line(3) + line(1))
    output = run(made, "load", "till", "--from", tmp_path / "a.csv", "--from", tmp_path / "b.csv")
    assert output.splitlines() == [
        "till              a.csv: 1 facts, 1 left out by `only`",
        "till              b.csv: 1 facts, 1 known already",
    ]
    assert "no such file; check the path" in run(made, "load", "till", "--from", tmp_path / "gone.csv")
    (made.exports / "till").mkdir()
    (made.exports / "till" / "c.csv").write_text(HEADER + line(4))
    assert run(made, "load", "till", "--from", made.exports / "till" / "c.csv").startswith(
        "till              till/c.csv: 1"
    )


@pytest.mark.parametrize(("words", "got"), [((), "till, web"), (("till", "web"), "till, web")])
def test_files_are_loaded_as_one_source(tmp_path, words, got):
    made = declared(tmp_path, "till", "web")
    with pytest.raises(DataError) as error:
        run(made, "load", *words, "--from", "a.csv")
    assert str(error.value) == (
        f"--from: expected one source to load the files as, got {got}; name it: `foretell load till --from a.csv`"
    )
    (tmp_path / "sources" / "web.py").unlink()
    write(made, "a.csv", HEADER + line(1))
    assert "1 facts" in run(Project(tmp_path), "load", "--from", made.exports / "a.csv")  # there is but one

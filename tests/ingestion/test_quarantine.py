"""Quarantine: rows wait as they came, leave as the facts that they would have been, and are never lost or doubled."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from one_source import HEADER, ask, line, loaded, project, quarantined, sales, write

from foretell import Source
from foretell.errors import DataError, UnknownName
from foretell.project import Project
from ingestion.load import load
from ingestion.quarantine import Chosen, export, groups, one, rows
from ingestion.replay import Replayed, reading, replay
from lake.engine import last_batch, source_table
from lake.tables import Table

FACTS = "SELECT * EXCLUDE (batch, received_at, known_at) FROM sales ORDER BY fact_id"
DIFFERENT = {"event_at": "try_strptime(at, '%d.%m.%Y')"}  # a contract that reads other dates


def counts(result: object) -> tuple[int, int, int, int]:
    assert isinstance(result, Replayed), result
    return result.added, result.known, result.left_out, result.still


ALL = Chosen()


def again(folder, *sources: Source, chosen: Chosen = ALL, mended=None) -> list:
    return list(replay(project(folder, *sources), chosen, mended))


BAD = HEADER + line(1) + line(2, at="05.03.2024") + line(3, amount="x") + line(2, at="05.03.2024") + "short\n"


def test_a_mended_contract_takes_rows_out_as_the_facts_that_they_would_have_been(tmp_path):
    made = project(tmp_path / "replayed", sales())
    write(made, "a.csv", BAD)
    loaded(made)
    both = sales(event_at="coalesce(try_strptime(at, '%d.%m.%Y')::VARCHAR, at)")
    (result,) = again(tmp_path / "replayed", both)
    assert counts(result) == (2, 0, 0, 2)  # two identical lines of one file are two facts
    assert quarantined(made) == [
        ("a.csv", 4, 'amount: expected DECIMAL(18,4), got "x"'),
        ("a.csv", 6, "Expected Number of Columns: 4 Found: 1"),
    ]
    undisturbed = project(tmp_path / "undisturbed", both)
    write(undisturbed, "a.csv", BAD)
    loaded(undisturbed)
    assert ask(made, FACTS) == ask(undisturbed, FACTS)
    assert [counts(r) for r in again(tmp_path / "replayed", both)] == [(0, 0, 0, 2)]
    assert last_batch(made) == 2, "a replay that changes nothing is no batch"
    # the file, grown, brings only what is new
    write(made, "a.csv", BAD + line(9))
    (result,) = loaded(project(tmp_path / "replayed", both))
    assert (result.added, result.known, result.quarantined) == (1, 3, 2)


def test_loading_with_a_mended_contract_lets_rows_leave(tmp_path):
    made = project(tmp_path, sales())
    write(made, "a.csv", BAD)
    loaded(made)
    write(made, "a.csv", BAD + line(9))
    mended = project(tmp_path, sales(event_at="coalesce(try_strptime(at, '%d.%m.%Y')::VARCHAR, at)"))
    (result,) = loaded(mended)
    assert (result.added, result.known, result.quarantined) == (3, 1, 2)
    assert [n for _, n, _ in quarantined(made)] == [4, 6]
    assert ask(made, "SELECT count(*) FROM sales") == [(4,)]


def test_what_only_leaves_out_leaves_too(tmp_path):
    made = project(tmp_path, sales())
    write(made, "a.csv", BAD)
    loaded(made)
    assert [counts(r) for r in again(tmp_path, sales(only="amount <> 'x'"))] == [(0, 0, 1, 3)]


@pytest.mark.parametrize("delay", ["live", "declared"])
def test_times_of_a_replayed_fact(tmp_path, delay):
    """A row is received once. A live source's fact is known since the replay; a declared delay says it of history."""
    how = {} if delay == "declared" else {"delay": None}
    made = project(tmp_path, sales(**how))
    write(made, "a.csv", HEADER + line(1, at="05.03.2024"))
    loaded(made)
    ((received,),) = ask(made, "SELECT received_at FROM quarantine")
    before = datetime.now(UTC)
    again(tmp_path, sales(**DIFFERENT, **how))
    ((event_at, received_at, known_at),) = ask(made, "SELECT event_at, received_at, known_at FROM sales")
    assert received_at == received < before
    assert event_at == datetime(2024, 3, 5, tzinfo=UTC)
    assert known_at == event_at if delay == "declared" else known_at > before


def test_records_without_a_time_have_that_of_their_first_load(tmp_path):
    people = Source(name="people", files="*.csv", kind="records", identifiers={"email": "email"},
                    columns={"age": "age"}, types={"age": "INTEGER"})  # fmt: skip
    made = project(tmp_path, people)
    write(made, "a.csv", "email,age\nann@example.org,x1\n")
    loaded(made)
    ((received,),) = ask(made, "SELECT received_at FROM quarantine")
    mended = Source(name="people", files="*.csv", kind="records", identifiers={"email": "email"},
                    columns={"age": "replace(age, 'x', '4')"}, types={"age": "INTEGER"})  # fmt: skip
    again(tmp_path, mended)
    ((event_at, known_at, age),) = ask(made, "SELECT event_at, known_at, age FROM people")
    assert event_at == received < known_at
    assert age == 41


JSON = '{"at": "2024-03-05", "order_no": 1, "amount": "9,90", "email": "a@b.org", "deep": {"x": [1]}}\n'


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_rows_of_every_format_are_read_again_as_they_were(tmp_path, kind):
    import duckdb

    def contract(amount: str) -> Source:
        columns = {"order_id": "order_no", "amount": amount, "day": "date_trunc('day', at::TIMESTAMP)"}
        return sales(files=f"*.{kind}", columns=columns, types={"day": "TIMESTAMP"})

    made = project(tmp_path / "replayed", contract("amount"))
    other = project(tmp_path / "undisturbed", contract("replace(amount, ',', '.')"))
    for home in (made, other):
        file = home.exports / f"a.{kind}"
        if kind == "parquet":
            duckdb.sql(
                """SELECT TIMESTAMP '2024-03-05 10:00:00.123456' AS at, 1 AS order_no, '9,90' AS amount,
                   'a@b.org' AS email,
                   {'x': [1, 2], 'y z': 'o''k'} AS deep, NULL::DATE AS nothing, 1e300 AS big, 'q"uote' AS "q""x"
                """
            ).write_parquet(str(file))
        elif kind == "jsonl":
            file.write_text(JSON)
        else:
            file.write_text('at,order_no,amount,email,"q""x",user.name\n2024-03-05,1,"9,90",a@b.org,"say ""hi""",\n')
    loaded(made)
    loaded(other)
    assert len(quarantined(made)) == 1
    assert [counts(r) for r in again(tmp_path / "replayed", contract("replace(amount, ',', '.')"))] == [(1, 0, 0, 0)]
    assert ask(made, FACTS) == ask(other, FACTS)
    assert quarantined(made) == []


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_rows_mended_by_hand(tmp_path, kind):
    made = project(tmp_path, sales(files=f"*.{kind}"))
    good = json.dumps({"at": "2024-03-05 10:00:00", "order_no": "1", "amount": "9.90", "email": "ann@example.org"})
    write(made, f"a.{kind}", BAD if kind == "csv" else f'{good}\n{good.replace("9.90", "x")}\n{{"at": \n')
    loaded(made)
    file = tmp_path / "rows.jsonl"
    assert export(made, ALL, file) == len(quarantined(made))
    said = [json.loads(text) for text in file.read_text().splitlines()]
    for each in said:
        if isinstance(each["row"], dict):
            each["row"]["amount"], each["row"]["at"] = "7.70", "2024-03-05 10:00:00"
        else:
            each["row"] = {"at": "2024-03-06", "order_no": "77", "amount": "1", "email": "ann@example.org"}
    file.write_text("\n".join(json.dumps(each) for each in said))
    (result,) = again(tmp_path, sales(files=f"*.{kind}"), mended=file)
    assert counts(result) == (len(said), 0, 0, 0)
    assert quarantined(made) == []
    assert ask(made, "SELECT count(*), count(DISTINCT fact_id) FROM sales") == [(len(said) + 1,) * 2]
    if kind == "csv":  # and the mended file, when it is exported again, holds nothing new
        mended = [line(1), line(2, amount="7.70"), line(3, amount="7.70"), line(2, amount="7.70")]
        write(made, "b.csv", HEADER + "".join(mended) + "2024-03-06,77,1,ann@example.org\n")
        results = [r for r in loaded(made) if r.file == "b.csv"]
        assert [(r.added, r.quarantined) for r in results] == [(0, 0)]
    file.write_text('{"quarantine_id": "gone", "row": {}}\n')
    with pytest.raises(UnknownName, match=r"gone: is not in quarantine; .*\(.*rows.jsonl:1\)"):
        again(tmp_path, sales(), mended=file)
    file.write_text("[]\n")
    with pytest.raises(DataError, match=r"rows.jsonl:1: expected a JSON object with quarantine_id and row; `foretell"):
        again(tmp_path, sales(), mended=file)


def test_rows_are_chosen(tmp_path):
    made = project(tmp_path, sales(files="a.csv"), sales(name="others", files="b/*.csv"))
    (made.exports / "b").mkdir()
    write(made, "a.csv", BAD)
    write(made, "b/b.csv", HEADER + line(7, at="05.03.2024") + line(8, at="06.03.2024"))
    loaded(made)
    assert [(s, n, first) for s, _, n, first, _ in groups(made, ALL)] == [
        ("others", 2, "b/b.csv:2"), ("sales", 2, "a.csv:3"), ("sales", 1, "a.csv:6"), ("sales", 1, "a.csv:4"),
    ]  # fmt: skip
    first = rows(made, ALL)[0]
    assert one(made, first["quarantine_id"][:10]) == first
    for chosen, n in [
        (Chosen("sales"), 4), (Chosen(reason="EXPECTED A TIME"), 4), (Chosen(file="b/*"), 2), (Chosen(file="*.csv"), 6),
        (Chosen(ids=(first["quarantine_id"][:12],)), 1), (Chosen(since=datetime(2200, 1, 1, tzinfo=UTC)), 0),
        (Chosen(reason="it's"), 0),
    ]:  # fmt: skip
        assert len(rows(made, chosen)) == n, chosen
    with pytest.raises(UnknownName, match="no row in quarantine has an id that begins so"):
        one(made, "zzz")
    with pytest.raises(UnknownName, match="no row in quarantine has an id that begins so"):
        one(made, "")
    results = again(tmp_path, sales(**DIFFERENT), sales(name="others", **DIFFERENT), chosen=Chosen("others"))
    assert [counts(r) for r in results] == [(2, 0, 0, 0)]
    assert len(quarantined(made)) == 4
    read = {name: value for name, _, value in reading(made, rows(made, ALL)[0])}
    assert read["order_id"] == "2"
    assert read["reason"] == 'at: expected a time, got "05.03.2024"'


def test_a_source_that_is_gone_stops_no_other(tmp_path):
    made = project(tmp_path, sales(files="a.csv"), sales(name="others", files="b.csv"))
    write(made, "a.csv", BAD)
    write(made, "b.csv", BAD)
    loaded(made)
    error, result = again(tmp_path, sales(**DIFFERENT))
    assert "others: no such source" in str(error)
    assert counts(result) == (2, 0, 0, 2)


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("calls", [1, 2, 3, 4], ids=["left", "still", "facts", "ledger"])
def test_an_interrupted_replay_is_finished_by_another(tmp_path, monkeypatch, calls, after):
    def shop(folder) -> Project:
        made = project(folder, sales())
        write(made, "a.csv", BAD + line(5, at="2024-13-01", amount="y"))
        loaded(made)
        return made

    undisturbed, made = shop(tmp_path / "undisturbed"), shop(tmp_path / "interrupted")
    again(tmp_path / "undisturbed", sales(**DIFFERENT))
    append, left = Table.append, [calls]

    def dying(self: Table, *args, **more):
        left[0] -= 1
        if left[0] == 0 and not after:
            raise Killed
        append(self, *args, **more)
        if left[0] == 0:
            raise Killed

    before = ask(made, FACTS), quarantined(made)
    with monkeypatch.context() as patch:
        patch.setattr(Table, "append", dying)
        with pytest.raises(Killed):
            again(tmp_path / "interrupted", sales(**DIFFERENT))
    if (calls, after) != (4, True):
        assert (ask(made, FACTS), quarantined(made)) == before
    again(tmp_path / "interrupted", sales(**DIFFERENT))
    assert ask(made, FACTS) == ask(undisturbed, FACTS)
    assert quarantined(made) == quarantined(undisturbed)
    assert source_table(made, "sales").rows() == 3


def test_ten_rows_of_one_line_are_replayed_one_by_one(tmp_path):
    made = project(tmp_path, sales())
    write(made, "a.csv", HEADER + line(1, at="05.03.2024") * 10)
    loaded(made)
    for n in range(10):
        chosen = Chosen(ids=(rows(made, ALL)[0]["quarantine_id"],))
        assert [counts(r) for r in again(tmp_path, sales(**DIFFERENT), chosen=chosen)] == [(1, 0, 0, 0)], n
    assert ask(made, "SELECT count(*), count(DISTINCT fact_id) FROM sales") == [(10, 10)]


def test_a_line_that_is_in_quarantine_twice_becomes_one_fact(tmp_path):
    made = project(tmp_path, sales())
    write(made, "a.csv", HEADER + line(1, at="05.03.2024"))
    loaded(made)
    write(made, "a.csv", HEADER + line(8) + line(1, at="05.03.2024"))  # the file grew above it
    list(load(made, ["sales"]))
    assert [n for _, n, _ in quarantined(made)] == [2, 3]
    assert [counts(r)[0] for r in again(tmp_path, sales(**DIFFERENT))] == [1]
    assert ask(made, "SELECT count(*) FROM sales") == [(2,)]
    assert quarantined(made) == []

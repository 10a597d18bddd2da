"""Does the accuracy benchmark read any log? The same people and outcomes, whatever the columns are called and hold."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import pytest

from benchmarks import presets, shop
from benchmarks.judging import aligned
from benchmarks.log import Log, answers, connect, span, write_lines
from benchmarks.shop import Asked
from examples.online_retail import generate as generator
from features import build
from foretell.errors import DataError, ForetellError, UnknownName
from foretell.project import Project
from ingestion.load import load_file
from lake.engine import session
from training import dataset
from unification.identity import unify

BEGIN, T, DAYS = datetime(2023, 5, 1, tzinfo=UTC), datetime(2024, 6, 1, tzinfo=UTC), 500
EDGES = ["900", "901", "902", "903"]  # who bought once, where it matters when or what
# digits, and ids that rules of identifiers would take for none, or for one another
PEOPLE = ["test", "0", "-1", "n/a", "7", "007", "AB", "ab", "a:b", "a b", "Åse", *map(str, range(100, 130)), *EDGES]
NAMES = [f"{word}{days}" for word, days in (("churn", 60), ("buy", 14), ("clv", 45), ("purchases", 75))]


def bought(people: list[str], *, dates: bool = False, seed: int = 0) -> pd.DataFrame:
    """Lines of a shop: who, at (UTC, in whole seconds), amount, cancelled, item; some buy often, some have stopped."""
    draw, rows = Random(seed), []
    for who in people[: -len(EDGES)]:
        until = draw.choice([0.3, 0.7, 1.0])
        for _ in range(draw.choice([1, 3, 12, 40])):
            at = BEGIN + timedelta(seconds=draw.randrange(int(until * DAYS * 86_400)))
            at = at.replace(hour=0, minute=0, second=0) if dates else at
            back = draw.random() < 0.15
            amount = Decimal(draw.randrange(0 if not back else 1, 9_000)) / 100
            rows.append((who, at, -amount if back else amount, back, f"item {draw.randrange(9)}"))
    year, day = T - timedelta(days=365), timedelta(days=1)
    edges = [("900", year, "5.5"), ("901", year - (day if dates else timedelta(seconds=1)), "5.5"), ("902", T, "5.5"),
             ("903", T - day, "0"), ("100", T, "7"), ("101", T + timedelta(days=14), "7")]  # fmt: skip
    rows += [(who, at, Decimal(amount), False, "item 0") for who, at, amount in edges]
    return pd.DataFrame(rows, columns=pd.Index(["who", "at", "amount", "cancelled", "item"]))


def by_loop(rows: pd.DataFrame, days: int, zone: str, profile_of: dict[str, str]) -> pd.DataFrame:
    """The definitions, word by word: one row per profile that bought in the year before T."""
    end, found = T + timedelta(days=days), []
    for who, own in rows.groupby("who"):
        lines: list[Any] = list(own.itertuples())
        if not any(T - timedelta(days=365) <= r.at < T and not r.cancelled for r in lines):
            continue
        later = [r for r in lines if T <= r.at < end]
        spent = sum(r.amount for r in lines if T - timedelta(days=90) <= r.at < T)
        purchases = len({r.at.astimezone(ZoneInfo(zone)).date() for r in later if not r.cancelled})
        spend = sum((r.amount for r in later), Decimal(0))
        found.append((profile_of[str(who)], float(purchases == 0), float(purchases > 0), purchases, spend, spent))
    n = math.ceil(0.1 * len(found))
    columns = ["profile_id", "left", "bought", "purchases", "spend", "spent"]
    made = pd.DataFrame(found, columns=pd.Index(columns))
    for name, by in (("seed", "spent"), ("entered", "spend")):
        top = sorted(made.itertuples(), key=lambda r: (-getattr(r, by), r.profile_id))[:n]
        made[name] = made["profile_id"].isin([r.profile_id for r in top]).astype(float)
    return made


@dataclass(frozen=True)
class Case:
    """A way to write lines down. read: which column says what; by_sign: no column says what is cancelled."""

    write: Callable[[pd.DataFrame, Path], None]
    read: dict[str, str]
    dates: bool = False
    by_sign: bool = False
    zone: str = "UTC"
    people: list[str] = field(default_factory=lambda: PEOPLE)
    left_out: dict[str, int] = field(default_factory=dict)


DIGITS = [p for p in PEOPLE if p.isdigit() and p[0] != "0"]


def spaced(rows: pd.DataFrame, file: Path) -> None:
    named = {"who": "Customer Nr", "at": "Sold At", "amount": 'Net "EUR"', "cancelled": "Is Cancelled", "item": "SKU"}
    made = rows.assign(
        who=rows["who"].astype(int), at=rows["at"].dt.tz_localize(None), amount=rows["amount"].astype(float)
    )
    made.rename(columns=named).to_parquet(file, index=False)


def as_csv(rows: pd.DataFrame, file: Path) -> None:
    rows.assign(at=rows["at"].dt.tz_localize(None), cancelled=rows["cancelled"].astype(int)).to_csv(file, index=False)


def aware(rows: pd.DataFrame, file: Path) -> None:
    numbers = [f"C{n}" if gone else str(n) for n, gone in enumerate(rows["cancelled"])]
    rows.assign(at=rows["at"].dt.tz_convert("America/New_York"), cancelled=numbers).to_parquet(file, index=False)


def texts_with_offsets(rows: pd.DataFrame, file: Path) -> None:
    at = rows["at"].dt.tz_convert("Asia/Tokyo").map(lambda t: t.isoformat())
    cancelled = rows["cancelled"].map({True: "Cancelled", False: "Completed"})
    rows.assign(at=at, amount=rows["amount"].astype(str), cancelled=cancelled).to_parquet(file, index=False)


def dates(rows: pd.DataFrame, file: Path) -> None:
    rows[["who", "at", "amount"]].assign(at=rows["at"].dt.date).to_parquet(file, index=False)


def dirty(rows: pd.DataFrame, file: Path) -> None:
    made = rows.assign(
        who=rows["who"].astype(float), at=rows["at"].dt.tz_localize(None), amount=rows["amount"].astype(float)
    )
    at = pd.Timestamp("2024-06-10 10:00")
    bad = [(None, at, 5.0), (100.0, pd.NaT, 5.0), (101.0, at, math.nan), (101.0, at, math.inf), (102.0, at, -math.inf),
           (103.0, pd.Timestamp("1900-01-01"), 5.0), (103.0, pd.Timestamp("2200-01-01"), 5.0)]  # fmt: skip
    more = pd.DataFrame(bad, columns=pd.Index(["who", "at", "amount"])).assign(cancelled=False, item="item 1")
    kept = pd.concat([made.assign(kind="sale"), more.assign(kind="sale"), made.iloc[:50].assign(kind="test")])
    kept.to_parquet(file, index=False)


PLAIN = {"profile": "who", "time": "at", "amount": "amount"}
CASES = {
    "spaces.parquet": Case(
        spaced, {"profile": "customer nr", "time": "Sold At", "amount": 'Net "EUR"', "cancelled": "Is Cancelled",
                 "item": "SKU"}, people=DIGITS,
    ),
    "lines.csv": Case(as_csv, {**PLAIN, "cancelled": "cancelled", "item": "item"}),
    "aware.parquet": Case(aware, {**PLAIN, "cancelled": "cancelled", "timezone": "Europe/Oslo"}, zone="Europe/Oslo"),
    "texts.parquet": Case(texts_with_offsets, {**PLAIN, "cancelled": "cancelled", "item": "item"}),
    "dates.parquet": Case(dates, PLAIN, dates=True, by_sign=True),
    "dirty.parquet": Case(
        dirty, {**PLAIN, "where": "kind = 'sale'"}, by_sign=True, people=DIGITS,
        left_out={"no profile": 1, "no time": 1, "no finite amount": 3, "a time before 1970-01-02": 1,
                  "a time in the future": 1},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_population_and_outcomes_are_those_of_the_definitions(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    rows = bought(case.people, dates=case.dates)
    case.write(rows, file := tmp_path / name)
    if case.by_sign:
        rows["cancelled"] = [not amount > 0 for amount in rows["amount"]]
    log, lines = Log(file, **case.read), tmp_path / "lines.parquet"
    assert write_lines(log, lines) == case.left_out
    n, customers, end = span(lines)
    assert (n, customers) == (len(rows), len(case.people))
    assert end == rows["at"].max().normalize() + timedelta(days=1)

    asked = [Asked.parse(n) for n in [*NAMES, "lookalike"]]
    project = shop.open_shop(tmp_path / "shop", log.clock, asked)
    project = shop.live_until(project, lines, T)
    tasks = {a: project.definitions.task(a.task) for a in asked}
    dataset.build_for(project, tasks.values(), [T])
    with session(project) as con:
        eligible = {a: dataset.population(con, project, task, T) for a, task in tasks.items()}
    project, people = shop.live_until(project, lines, end + timedelta(days=1)), shop.people_of(project)
    profile_of = {(bytes.fromhex(c[3:]).decode() if c.startswith("id-") else c): p for c, p in people.to_numpy()}
    dataset.build_for(project, tasks.values(), [T])
    for a, task in tasks.items():
        expected = by_loop(rows, a.days, case.zone, profile_of).set_index("profile_id").sort_index()
        found = answers(lines, T, a.days, people).set_index("profile_id").sort_index()
        assert 5 < len(expected) < len(case.people)
        assert expected[a.answer].astype(float).mean() > 0
        expected = expected.drop(columns="spent").astype(float)
        pd.testing.assert_frame_equal(found[expected.columns].astype(float), expected)
        if a.answer == "entered":
            found = found[found["seed"] == 0]
        y = aligned(found.reset_index(), pd.Series(eligible[a]), a, a.name)
        with session(project) as con:
            labels = dataset.labels_at(con, project, task, T).set_index("profile_id")["label"]
        assert labels.loc[eligible[a]].to_numpy(dtype=float) == pytest.approx(y, abs=1e-9)


# What is refused


def write_small(file: Path, **columns: Any) -> Path:
    rows = {"Customer ID": [1, 2], "when": pd.to_datetime(["2024-01-01", "2024-02-01"]), "paid": [1.0, 2.0], **columns}
    pd.DataFrame(rows).to_parquet(file, index=False)
    return file


@pytest.mark.parametrize(
    ("read", "columns", "expected"),
    [
        ({"profile": "Custmer ID"}, {}, r'Custmer ID: no such column; did you mean "Customer ID"\?. \(--profile'),
        ({"amount": "paid * pieces"}, {}, r"--amount: expected a column or an SQL expression, got 'paid \* pieces'"),
        ({"where": "payd > 1"}, {}, r"--where: cannot be applied: .*payd"),
        ({"where": "paid > 5"}, {}, r"expected rows, got none; loosen --where 'paid > 5'"),
        ({"time": "paid"}, {}, r"--time: expected dates or times, got DOUBLE in paid; .*to_timestamp"),
        ({"cancelled": "when"}, {}, r"--cancelled: expected yes or no, 0 or 1, or text, got TIMESTAMP"),
        ({"timezone": "Europe/Olso"}, {}, r"no such time zone: 'Europe/Olso'; did you mean \"Europe/Oslo\""),
        ({}, {"paid": ["one", "two"]}, r"expected rows, all of 2 are left out: {'no finite amount': 2}"),
    ],
)
def test_what_cannot_be_read_is_refused_with_a_remedy(tmp_path, read, columns, expected) -> None:
    file = write_small(tmp_path / "small.parquet", **columns)
    with pytest.raises(ForetellError, match=expected):
        write_lines(Log(file, **{"profile": "Customer ID", "time": "when", "amount": "paid", **read}), tmp_path / "out")


def test_a_file_that_is_none_is_refused(tmp_path) -> None:
    with pytest.raises(DataError, match="got no such file; check the path"):
        Log(tmp_path / "nothing.parquet", "a", "b", "c").lines()
    (file := tmp_path / "text.parquet").write_text("who,at,amount")
    with pytest.raises(
        DataError, match=r"cannot be read: .*; give a Parquet file, or a CSV file by a name that ends in"
    ):
        Log(file, "a", "b", "c").lines()


def test_columns_may_be_expressions_and_bear_any_name(tmp_path) -> None:
    """Also the names that the query itself gives."""
    file = write_small(tmp_path / "small.parquet", id=[7, 8], sold_at=[86_400 * 400, 86_400 * 401], said=["yes", "no"])
    log = Log(file, "id", "to_timestamp(sold_at)", "paid * 3", cancelled="said", order="id + 1", where="id > 0")
    found = connect().execute(
        f"SELECT customer, day::VARCHAR, amount::DOUBLE, cancelled, order_id FROM ({log.lines()})"
    )
    assert found.fetchall() == [("7", "1971-02-05", 3.0, True, "8"), ("8", "1971-02-06", 6.0, False, "9")]


# What is asked


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("churn90", ("churn", 90, "left")), ("churn365", ("churn365", 365, "left")), ("clv7", ("clv7", 7, "spend")),
        ("propensity30", ("propensity", 30, "bought")), ("buy30", ("propensity", 30, "bought")),
        ("buy1", ("buy1", 1, "bought")), ("purchases90", ("purchases90", 90, "purchases")),
        ("lookalike", ("lookalike", 90, "entered")),
    ],
)  # fmt: skip
def test_a_name_says_what_is_asked(name: str, expected: tuple[str, int, str], tmp_path: Path) -> None:
    asked = Asked.parse(name)
    assert (asked.task, asked.days, asked.answer) == expected
    task = shop.open_shop(tmp_path / "shop", "UTC", [asked]).definitions.task(asked.task)
    assert task.horizon == timedelta(days=asked.days)


@pytest.mark.parametrize("name", ["chrn90", "churn", "churn0", "churn-3", "churn9O", "lookalike30", "", "90", "clv90 "])
def test_a_name_that_asks_nothing_is_refused(name: str) -> None:
    with pytest.raises(UnknownName, match="no such prediction; expected a word and a number of days, such as churn90"):
        Asked.parse(name)


# What is known


@pytest.mark.parametrize("name", presets.PRESETS)
def test_the_counts_of_a_preset(name: str, tmp_path: Path) -> None:
    if not os.environ.get(presets.FOLDER):
        pytest.skip(f"{presets.FOLDER} is not set: the real logs are not at hand")
    preset = presets.PRESETS[name]
    write_lines(log := preset.log(preset.located()), lines := tmp_path / "lines.parquet")
    preset.check_file(*span(lines)[:2])
    people = connect().execute(f"SELECT DISTINCT customer, customer AS profile_id FROM ({log.lines()})").df()
    for cutoff in preset.cutoffs:
        for asked in map(Asked.parse, preset.tasks):
            truth = answers(lines, datetime.fromisoformat(cutoff).replace(tzinfo=UTC), asked.days, people)
            truth = truth[truth["seed"] == 0] if asked.answer == "entered" else truth
            assert truth[asked.answer].mean() > 0
            preset.check(asked, cutoff, len(truth), truth[asked.answer].mean())


def test_the_project_knows_of_a_shop_what_the_examples_own_does(tmp_path: Path) -> None:
    """Feature by feature: the lines say all that its contract makes of the file."""
    generator.write(generator.generate(60), file := tmp_path / "shop.parquet")
    write_lines(log := presets.online_retail(file), lines := tmp_path / "lines.parquet")
    at = span(lines)[2]
    ours = shop.live_until(shop.open_shop(tmp_path / "ours", log.clock), lines, at)
    theirs = Project(tmp_path / "theirs")
    example = Path(generator.__file__).parent
    (theirs.folder / "sources").mkdir(parents=True)
    for name in ("foretell.toml", "sources/invoices.py"):
        (theirs.folder / name).write_text((example / name).read_text())
    theirs.home.mkdir()
    (theirs.home / "key").write_text(shop.KEY)
    load_file(theirs, theirs.definitions.source("invoices"), file)
    unify(theirs)
    assert theirs.now == at
    assert list(ours.definitions.views) == list(theirs.definitions.views)
    for name, view in ours.definitions.of_profiles.items():
        mine, other = (features(project, name) for project in (ours, theirs))
        assert list(mine.columns) == ["profile_id", *view.features]
        pd.testing.assert_frame_equal(mine, other, check_exact=True)


def features(project: Project, view: str) -> pd.DataFrame:
    build.build(project, [project.definitions.view(view)], [project.now])
    with session(project) as con:
        stored = build.read(project, project.definitions.view(view), project.now)
        return con.execute(f"SELECT * EXCLUDE (event_timestamp, created) FROM {stored} ORDER BY profile_id").df()

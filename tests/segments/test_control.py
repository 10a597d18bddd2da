"""Held out by lot: uniform, independent, the same for ever; and what was earned is what a loop over the rows says."""

from __future__ import annotations

import csv
import hmac
import shutil
from datetime import timedelta
from pathlib import Path
from random import Random

import duckdb
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import START, Row, identifiers, load_shop, make_shop, record, sale, write_files
from fixtures_segments import at, declare
from scipy import stats

from foretell import __main__ as program
from foretell.errors import DataError, NotReady, UnknownName
from foretell.project import Project
from lake.consent import say
from lake.engine import session
from segments.control import CONTROL, TREATED, draw, hand_out, hmac_sql, lot_sql
from segments.definitions import load_segments
from segments.earned import FEWEST, earned, effect
from unification.identity import ensure

PEOPLE = 240
T = START + timedelta(days=100)


def lots(key: str, segment: str, n: int) -> np.ndarray:
    query = f"SELECT {lot_sql(key, segment, 'id')} FROM (SELECT 'p' || i AS id FROM range({n}) t(i)) ORDER BY id"
    return np.array([lot for (lot,) in duckdb.execute(query).fetchall()])


@pytest.mark.parametrize("key", ["k", "k" * 64, "k" * 65, "ø" * 40])
@pytest.mark.parametrize("text", ["", "abc", "it's", "høy 🦊"])
def test_the_digest_is_hmac_sha256(key: str, text: str) -> None:
    quoted = "'" + text.replace("'", "''") + "'"
    made = duckdb.execute(f"SELECT {hmac_sql(key, quoted)}").fetchall()[0][0]
    assert made == hmac.digest(key.encode(), text.encode(), "sha256").hex()


def test_the_draw_is_uniform_and_independent_between_segments_and_keys() -> None:
    n = 20_000
    drawn = {(key, name): lots(key, name, n) for key in ("a" * 64, "b" * 64) for name in ("one", "two", "one2")}
    for lot in drawn.values():
        assert ((lot >= 0) & (lot < 1)).all()
        assert stats.kstest(lot, "uniform").pvalue > 1e-3
        assert stats.pearsonr(lot[:-1], lot[1:]).pvalue > 1e-3  # of people who follow one another too
    pairs = [(a, b) for a in drawn for b in drawn if a < b]
    for a, b in pairs:
        table = np.histogram2d(drawn[a], drawn[b], bins=5)[0]
        assert stats.chi2_contingency(table).pvalue > 1e-3 / len(pairs), (a, b)
    held = (drawn["a" * 64, "one"] < 0.1).sum()
    assert stats.binomtest(int(held), n, 0.1).pvalue > 1e-3


def test_the_interval_covers_the_true_effect() -> None:
    """By lots as they are drawn, of people most of whom buy nothing: 95% of the intervals hold the true difference."""
    rng = np.random.default_rng(1)
    n, times = 1_500, 400
    buys = (rng.random(n) < 0.4) * rng.gamma(1.5, 40, n)
    gain = np.where(rng.random(n) < 0.1, 30.0, 0.0)
    held = covered = 0
    lows: list[bool] = []
    for turn in range(times):
        control = lots(f"{turn}" * 8, "campaign", n) < 0.2
        found = effect("spend", (buys + gain)[~control], buys[control])
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= gain.mean() <= found.high
        held += control.sum()
        lows.append(found.beyond_chance)
    assert stats.binomtest(int(covered), times, 0.95).pvalue > 1e-3
    assert 0.19 < held / times / n < 0.21
    nothing = [
        effect("spend", buys[c], buys[~c]).beyond_chance for c in (lots(f"{i}", "x", n) < 0.3 for i in range(times))
    ]
    assert stats.binomtest(sum(nothing), times, 0.05).pvalue > 1e-3


def test_no_answer_where_there_is_none() -> None:
    assert effect("spend", [1.0] * (FEWEST - 1), [0.0, 1.0] * 50).why == "fewer than 30 people on one side"
    assert effect("spend", [], [1.0]).why == "nobody on one side"
    same = effect("orders", [0.0] * 90, [0.0] * 40)
    assert (same.difference, same.low, same.why) == (0.0, None, "everybody on one side did the same")
    a, b = np.random.default_rng(0).normal(1, 1, 90), np.random.default_rng(1).normal(0, 3, 40)
    found, ours = stats.ttest_ind(a, b, equal_var=False).confidence_interval(), effect("x", a, b)
    assert (ours.low, ours.high) == (found.low, found.high)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """People with a card each, who bought once before T. Not to be changed."""
    rows = [sale(T - timedelta(days=1 + i % 50), f"CARD{i:04d}") for i in range(PEOPLE)]
    project = make_shop(tmp_path_factory.mktemp("control") / "shop", facts={"shop": rows}, as_of=T)
    declare(project, {
        "campaign": "rule: identifiers > 0\ncontrol: 0.4\n", "other": "rule: identifiers > 0\ncontrol: 0.4\n",
        "plain": "rule: identifiers > 0\n",
    })  # fmt: skip
    return project


@pytest.fixture
def mine(shop: Project, tmp_path: Path) -> Project:
    shutil.copytree(shop.folder, tmp_path / "mine")
    return Project(tmp_path / "mine")


def sides(project: Project, segment: str = "campaign") -> dict[str, str]:
    """node -> side, as it was written down."""
    with session(project) as con:
        return dict(con.execute(
            """SELECT node, side FROM exposures JOIN member USING (profile_id)
                WHERE segment = ? AND birth_id = profile_id""", [segment],
        ).fetchall())  # fmt: skip


def exported(file: Path) -> set[str]:
    with file.open() as stream:
        return {row["profile_id"] for row in csv.DictReader(stream)}


def test_the_export_leaves_the_control_group_out_and_keeps_who_it_is(mine: Project, tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    found = hand_out(mine, "campaign", file, ["loyalty_card"])
    with session(mine) as con:
        kept = con.execute("SELECT profile_id, side, exported_at, share, segment FROM exposures").fetchall()
    assert {p for p, side, *_ in kept if side == TREATED} == exported(file)
    assert len(kept) == PEOPLE == found.members + found.held_out
    assert {tuple(rest) for _, _, *rest in kept} == {(T, 0.4, "campaign")}
    assert 0.25 < found.held_out / PEOPLE < 0.55
    before = exported(file)
    hand_out(mine, "campaign", file)
    assert exported(file) == before
    with session(mine) as con:
        assert con.execute("SELECT count(*) FROM exposures").fetchall()[0][0] == PEOPLE
    hand_out(mine, "other", file)
    one, other = sides(mine), sides(mine, "other")
    table = np.array([[sum(one[n] == a and other[n] == b for n in one) for a in (TREATED, CONTROL)]
                      for b in (TREATED, CONTROL)])  # fmt: skip
    assert stats.chi2_contingency(table).pvalue > 1e-3
    assert hand_out(mine, "plain", file).held_out == 0
    assert len(exported(file)) == PEOPLE
    with pytest.raises(DataError, match="exported as CSV"):
        hand_out(mine, "campaign", tmp_path / "x.xlsx")


def test_killed_before_the_file_is_there(mine: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from segments import control

    export = control.export

    def dying(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(control, "export", dying)
    with pytest.raises(KeyboardInterrupt):
        hand_out(mine, "campaign", tmp_path / "x.csv")
    monkeypatch.setattr(control, "export", export)
    first = sides(mine)
    hand_out(mine, "campaign", tmp_path / "x.csv")
    assert sides(mine) == first
    with session(mine) as con:
        assert con.execute("SELECT count(*) FROM exposures").fetchall()[0][0] == PEOPLE


def after(project: Project, found: dict[str, str]) -> list[Row]:
    """What people bought after T: those treated more; much of it too late, in one way or another, to count."""
    draw, rows = Random(3), []
    for i in range(PEOPLE):
        treated = found[f"loyalty_card:CARD{i:04d}"] == TREATED
        for n in range(draw.randrange(3) + (treated and draw.random() < 0.7)):
            moment = T + timedelta(days=draw.choice([0, 3, 29.99, 30, 31]), seconds=i)
            late = timedelta(days=draw.choice([0, 0, 0, 40]))
            rows.append(sale(
                moment, f"CARD{i:04d}", f"{draw.randrange(100, 9000) / 100:.2f}", recorded_at=moment + late,
                order_id=f"after{i}-{n}", cancelled=draw.choice(["false", "false", "true"]),
            ))  # fmt: skip
    return rows


def test_what_was_earned_is_what_a_loop_over_the_rows_says(
    mine: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    hand_out(mine, "campaign", tmp_path / "x.csv")
    found = sides(mine)
    early = earned(at(mine, T + timedelta(days=30), monkeypatch), "campaign")
    assert (early.treated, early.control, early.effects) == (0, 0, [])
    assert (early.too_early, early.ready_at) == (PEOPLE, T + timedelta(days=31))
    one, other = (next(n for n, s in found.items() if s == side) for side in (TREATED, CONTROL))
    rows = after(mine, found)
    linked = [record(T + timedelta(days=50), node.split(":")[1], "both@x.org") for node in (one, other)]
    write_files(mine.folder, {"shop": rows, "crm": linked}, stem="after")
    moved = at(mine, T + timedelta(days=60), monkeypatch)
    load_shop(moved, ["shop", "crm"])
    ensure(moved)
    # again in the meantime: everybody's days still begin with the first export
    hand_out(moved, "campaign", tmp_path / "x.csv")
    result = earned(moved, "campaign")
    end = T + timedelta(days=30)
    counted = [r for r in rows if T <= r["sold_at"] < end and r["recorded_at"] < end + timedelta(days=1)]
    people = {n: s for n, s in found.items() if n not in (one, other)}
    values: dict[str, dict[str, list[float]]] = {"orders": {}, "spend": {}}
    for node, side in people.items():
        own = [r for r in counted if identifiers("shop", r)[0] == node]
        values["spend"].setdefault(side, []).append(sum(float(r["amount"]) for r in own))
        values["orders"].setdefault(side, []).append(sum(r["cancelled"] == "false" for r in own))
    assert (result.treated, result.control) == tuple(list(people.values()).count(s) for s in (TREATED, CONTROL))
    assert (result.both, result.too_early, result.exports) == (1, 0, [T])
    for got in result.effects:
        treated, control = (np.array(values[got.outcome][s]) for s in (TREATED, CONTROL))
        assert got.treated == pytest.approx(treated.mean())
        assert got.control == pytest.approx(control.mean())
        interval = stats.ttest_ind(treated, control, equal_var=False).confidence_interval(0.95)
        assert (got.low, got.high) == pytest.approx((interval.low, interval.high))
    assert result.effects[0].beyond_chance
    said = CliRunner().invoke(program.cli, ["--project", str(moved.folder), "segment", "earned", "campaign"])
    assert said.exit_code == 0, said.output
    assert "1 left out: they were on both sides" in said.output
    assert "In all +" in said.output


def test_a_draw_outlives_a_merge(mine: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who becomes somebody else's profile keeps the side of the earlier draw, whatever the lot of the new id says."""
    hand_out(mine, "campaign", tmp_path / "x.csv")
    found = sides(mine)
    pairs = [
        (f"CARD{i:04d}", f"CARD{i + 1:04d}")
        for i in range(0, 60, 2)
        if found[f"loyalty_card:CARD{i:04d}"] == found[f"loyalty_card:CARD{i + 1:04d}"]
    ]
    lines = [record(T + timedelta(hours=1), card, f"{pair[0]}@x.org") for pair in pairs for card in pair]
    write_files(mine.folder, {"crm": lines}, stem="merge")
    moved = at(mine, T + timedelta(days=2), monkeypatch)
    load_shop(moved, ["crm"])
    with session(moved) as con:
        nodes = dict(con.execute("SELECT node, profile_id FROM member WHERE known_to IS NULL").fetchall())
    assert len(set(nodes.values())) == PEOPLE - len(pairs)
    segment = load_segments(moved.folder / "segments")["campaign"]
    now = draw(moved, segment, sorted(set(nodes.values())))
    assert all(now[nodes[node]] == side for node, side in found.items())


def test_who_withdrew_since_is_left_out_and_counted(
    mine: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    declare(mine, {"campaign": "rule: identifiers > 0\ncontrol: 0.4\npurpose: email\n"})
    hand_out(mine, "campaign", tmp_path / "x.csv")
    found = sides(mine)
    gone = [*[n for n in found if found[n] == TREATED][:3], next(n for n in found if found[n] == CONTROL)]
    moved = at(mine, T + timedelta(days=40), monkeypatch)
    for node in gone:
        say(moved, node, "email", False)
    result = earned(moved, "campaign")
    assert result.withdrawn == (3, 1)
    counts = [list(found.values()).count(side) for side in (TREATED, CONTROL)]
    assert (result.treated, result.control) == (counts[0] - 3, counts[1] - 1)
    assert [e.why for e in result.effects] == ["everybody on one side did the same"] * 2  # nobody bought anything
    assert hand_out(moved, "campaign", tmp_path / "x.csv").without_consent == 4


def test_wrong_questions(mine: Project) -> None:
    with pytest.raises(NotReady, match=r"campaign: nobody was exported .*run `foretell segment export campaign"):
        earned(mine, "campaign")
    with pytest.raises(NotReady, match=r"plain: nobody was exported .*add control: 0\.1 to its file"):
        earned(mine, "plain")
    with pytest.raises(UnknownName, match='did you mean "campaign"'):
        earned(mine, "campain")
    with pytest.raises(DataError, match="at least one day, got 0"):
        earned(mine, "campaign", 0)

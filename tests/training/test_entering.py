"""Who enters a rule? Populations and labels against an oracle in plain Python over the rows of the files."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import (
    START,
    Facts,
    Row,
    components,
    known_at,
    lines_of,
    make_shop,
    profiles_at,
    record,
    sale,
    shop_facts,
)

from features.labels import bridge
from foretell import Enters, PredictionTask
from foretell.errors import DataError, ForetellError, UnknownName
from foretell.project import Project
from lake.engine import session
from training import dataset, entering

T = START + timedelta(days=220, hours=3, microseconds=5)
HORIZON, SETTLE = timedelta(days=60), timedelta(days=10)
END, L = T + HORIZON, T + HORIZON + SETTLE
DAY, TICK = timedelta(days=1), timedelta(microseconds=1)
State = dict[str, Any]
Crowd = dict[str, State]


def a_task(rule: str, **changes: Any) -> PredictionTask:
    said: dict[str, Any] = {
        "name": "enters", "population": "orders_365d > 0", "horizon": HORIZON, "settle": SETTLE, "label": Enters(rule),
        "views": ("orders",), "metric": "auc", "purpose": "test",
    }  # fmt: skip
    return PredictionTask(**{**said, **changes})


# --- the oracle ------------------------------------------------------------------------------------------------------


def top(crowd: Crowd, feature: str, share: str, *, lowest: bool = False) -> set[str]:
    """The ceiling of the share of those whose value is known; of equals the smaller profile id."""
    known = {who: state[feature] for who, state in crowd.items() if state[feature] is not None}
    ranked = sorted(known, key=lambda who: (known[who] if lowest else -known[who], who))
    return set(ranked[: math.ceil(Decimal(share) * len(known))])


def those(crowd: Crowd, condition: Callable[[State], bool]) -> set[str]:
    return {who for who, state in crowd.items() if condition(state)}


RULES: dict[str, Callable[[Crowd], set[str]]] = {
    "top(spend_90d, 0.2)": lambda c: top(c, "spend_90d", "0.2"),
    "bottom(days_since_order, 0.3)": lambda c: top(c, "days_since_order", "0.3", lowest=True),
    "top(orders_90d, 0.25)": lambda c: top(c, "orders_90d", "0.25"),  # many are equal
    "orders_90d >= 3": lambda c: those(c, lambda s: s["orders_90d"] >= 3),
    "top(orders_365d, 0.4) and not days_since_order > 30": lambda c: (
        top(c, "orders_365d", "0.4") & those(c, lambda s: s["days_since_order"] is not None
                                                  and s["days_since_order"] <= 30)
    ),
}  # fmt: skip


def state(rows: list[Row], at: datetime) -> State:
    """The features that the rules read, of one person's till lines before `at`."""
    bought = [row for row in rows if row["cancelled"] == "false"]

    def orders(window: int) -> int:
        return len({row["order_id"] for row in bought if row["sold_at"] >= at - timedelta(days=window)})

    last = max((row["sold_at"] for row in bought), default=None)
    return {
        "orders_90d": orders(90),
        "orders_365d": orders(365),
        "spend_90d": sum((Decimal(r["amount"]) for r in rows if r["sold_at"] >= at - timedelta(days=90)), Decimal(0)),
        "days_since_order": None if last is None else (int(at.timestamp()) - int(last.timestamp())) / 86400,
    }


def states(facts: Facts, owner: dict[str, str], at: datetime, known_by: datetime) -> Crowd:
    """Every profile of the graph as known by then, with its state at `at`."""
    parts = components(facts, known_by)
    assert owner.keys() == parts.keys()
    assert all(len({owner[node] for node in part}) == 1 for part in set(parts.values()))
    return {profile: state(mine, at) for profile, mine in lines_of(facts, owner, at, known_by).items()}


@dataclass
class Oracle:
    """What the population and the labels of a rule should be; `known_by` and `settled` are for making it wrong."""

    facts: Facts
    project: Project
    at: datetime = T
    settled: datetime = L

    def population(self, rule: str) -> tuple[set[str], set[str]]:
        """(those asked about, those inside already) at T."""
        everyone = states(self.facts, profiles_at(self.project, self.at), self.at, self.at)
        crowd = {who: state for who, state in everyone.items() if state["orders_365d"] > 0}
        inside = RULES[rule](crowd)
        return crowd.keys() - inside, inside

    def labels(self, rule: str) -> dict[str, float]:
        """The label of everyone in the population at T, those inside too."""
        asked, inside = self.population(rule)
        then, later = profiles_at(self.project, self.at), profiles_at(self.project, self.settled)
        persons = {then[node]: later[node] for node in then if then[node] in asked | inside}
        everyone = states(self.facts, later, self.at + HORIZON, self.settled)
        entered = RULES[rule]({person: everyone[person] for person in persons.values()})
        return {profile: float(person in entered) for profile, person in persons.items()}


# --- the lake --------------------------------------------------------------------------------------------------------


def enriched(facts: Facts) -> Facts:
    """Late facts around every boundary, pairs of cards that merge in the horizon and after it, and equals."""
    cards = sorted({row["card"] for row in facts["shop"] if row["card"]})
    for n, card in enumerate(cards[::4]):
        big = {"amount": f"{500 + n}.00"}
        facts["shop"] += [
            sale(T - DAY, card, recorded_at=T + n * DAY, **big),  # before T, known later: no feature, but a state
            sale(END - DAY, card, recorded_at=L - TICK, **big),  # in the horizon, known just in time
            sale(END - 2 * DAY, card, recorded_at=L, amount="5000.00"),  # known too late
            sale(END, card, recorded_at=END, amount="6000.00"),  # after the horizon
        ]
    for n, (one, other) in enumerate(zip(cards[:16:2], cards[1:16:2], strict=True)):
        when = [T, T + 20 * DAY, L - TICK, L][n % 4]
        facts["crm"] += [record(when, card, f"{one}@pair.example") for card in (one, other)]
    # one person with two cards, of which the second will be somebody else's (see below)
    facts["crm"] += [record(T - 40 * DAY, card, "two@cards.example") for card in ("TWO1", "TWO2")]
    facts["shop"] += [sale(T - 30 * DAY, "TWO1", "1.00"), sale(END - 30 * DAY, "TWO2", "9000.00")]
    for n in range(12):  # twelve who are alike
        facts["shop"] += [sale(at, f"ALIKE{n}", "99.00") for at in (T - 9 * DAY, T + 9 * DAY)]
    return facts


@pytest.fixture(scope="module")
def facts() -> Facts:
    return enriched(shop_facts(seed=3, people=45, days=330))


@pytest.fixture(scope="module")
def lake(facts: Facts, tmp_path_factory: pytest.TempPathFactory) -> Project:
    return make_shop(tmp_path_factory.mktemp("entering") / "shop", facts=facts, days=330)


def found(project: Project, task: PredictionTask, at: datetime = T) -> tuple[set[str], pd.DataFrame]:
    """(population, labels) by the code under test."""
    dataset.build_for(project, [task], [at])
    with session(project) as con:
        return set(dataset.population(con, project, task, at)), dataset.labels_at(con, project, task, at)


@pytest.mark.parametrize("rule", RULES)
def test_populations_and_labels_are_those_of_the_oracle(lake: Project, facts: Facts, rule: str) -> None:
    population, rows = found(lake, a_task(rule))
    oracle = Oracle(facts, lake)
    asked, inside = oracle.population(rule)
    assert population == asked
    labels = dict(zip(rows["profile_id"], rows["label"], strict=True))
    assert labels == oracle.labels(rule)
    assert inside <= labels.keys()
    assert {labels[who] for who in asked} == {0.0, 1.0}
    assert len(inside) > 5


def test_the_oracle_notices_what_the_lake_is_made_for(lake: Project, facts: Facts) -> None:
    """Were late facts, later merges or equals of no consequence here, agreement would prove little."""
    rule = "top(spend_90d, 0.2)"
    true = Oracle(facts, lake).labels(rule)
    assert Oracle(facts, lake, settled=END).labels(rule) != true
    assert Oracle(facts, lake, settled=L + 30 * DAY).labels(rule) != true
    merged = set(profiles_at(lake, T).values()) - set(profiles_at(lake, L).values())
    assert len(merged) > 3
    crowd = {f"p{n}": {"orders_90d": 2} for n in range(8)}
    assert top(crowd, "orders_90d", "0.25") == {"p0", "p1"}


def test_profiles_that_became_one_share_the_label_and_a_weight(lake: Project) -> None:
    rows = found(lake, a_task("top(spend_90d, 0.2)"))[1]
    then, later = profiles_at(lake, T), profiles_at(lake, L)
    became: dict[str, set[str]] = {}
    for node, profile in then.items():
        became.setdefault(later[node], set()).add(profile)
    shared = rows.groupby("person")
    assert (shared["label"].nunique() == 1).all()
    assert not rows["split"].any()
    for row in rows.itertuples():
        assert row.weight == pytest.approx(1 / len(became[row.person]))
    assert (rows["weight"] < 1).sum() > 4


# --- time ------------------------------------------------------------------------------------------------------------


def test_what_is_known_later_changes_nothing(lake: Project, facts: Facts, tmp_path: Path) -> None:
    """Facts of L change no label; facts of T change no population."""
    later = {name: [row for row in rows if known_at(name, row) < L] for name, rows in facts.items()}
    at_t = {name: [row for row in rows if known_at(name, row) < T] for name, rows in facts.items()}
    without_l = make_shop(tmp_path / "l", facts=later, days=330)
    without_t = make_shop(tmp_path / "t", facts=at_t, days=330)
    for rule in RULES:
        task = a_task(rule)
        population, rows = found(lake, task)
        pd.testing.assert_frame_equal(found(without_l, task)[1], rows)
        dataset.build_for(without_t, [task], [T])
        with session(without_t) as con:
            assert set(dataset.population(con, without_t, task, T)) == population


# --- what a rule may be ----------------------------------------------------------------------------------------------


def test_a_segment_may_be_named_whatever_its_name(lake: Project) -> None:
    rule = "top(spend_90d, 0.2)"
    expected = found(lake, a_task(rule))
    folder = lake.folder / "segments"
    folder.mkdir(exist_ok=True)
    for name in ("big", "big-spenders"):
        (folder / f"{name}.yaml").write_text(f"rule: {rule}\n")
        population, rows = found(lake, a_task(name))
        assert population == expected[0]
        pd.testing.assert_frame_equal(rows, expected[1])
    with pytest.raises(UnknownName, match=r'bigg: no such segment; did you mean "big"\?. \(label of enters\)'):
        found(lake, a_task("bigg"))


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("top(spend_90, 0.1)", r'spend_90: no such feature; did you mean "spend_90d"\?. \(label of enters\)'),
        ("churn > 0.5", "churn: is a score; a rule that is replayed in the past can read features only"),
        ("top(clv_percentile, 0.1)", "clv_percentile: is a score"),
        ("city = 'Oslo'", "city: is a trait; a rule that is replayed in the past can read features only; "
                          "read the feature known_city"),
        ("first_name = 'Jo'", "first_name: is a trait; .*; expand it with `foretell lookalike`"),
        ("orders_90d >", r'rule "orders_90d >".*label of enters'),
        ("top(known_city, 0.1)", r"a number or a time in top\(\)"),
        ("spend_90d = 'a lot'", "spend_90d = 'a lot'"),
    ],
)  # fmt: skip
def test_a_rule_that_cannot_be_replayed_is_refused(lake: Project, rule: str, says: str) -> None:
    with pytest.raises(ForetellError, match=says):
        found(lake, a_task(rule))


def test_a_rule_over_facts_that_nobody_loaded_is_refused(tmp_path: Path) -> None:
    project = make_shop(tmp_path / "p", facts=Facts(shop=[sale(START, "CARD1")]))
    with pytest.raises(DataError, match="enters: no redemption facts are loaded; run `foretell load` first"):
        found(project, a_task("coupons_90d > 0"), START + 100 * DAY)


def test_a_profile_that_fell_apart_enters_if_a_piece_does(lake: Project) -> None:
    """Identifiers known as one person at T, and as two by L: the graph of today cannot say so, a table can."""
    rule = "top(spend_90d, 0.2)"
    task = a_task(rule)
    population, rows = found(lake, task)
    whole, piece = profiles_at(lake, T)["loyalty_card:TWO1"], "loyalty_card:TWO2"
    assert whole in population
    with session(lake) as con:
        eligible = dataset._satisfying(con, lake, task, T)
        con.execute("CREATE TEMP TABLE kept AS SELECT * FROM member")
        con.execute("UPDATE kept SET known_to = ? WHERE node = ? AND known_to IS NULL", [T, piece])
        con.execute(
            """INSERT INTO kept SELECT node, birth_id, 'p-the-piece', ?::TIMESTAMPTZ, NULL FROM kept
               WHERE node = ? AND known_to = ?""", [T, piece, T],
        )  # fmt: skip
        con.execute("DROP VIEW member")
        con.execute("CREATE TEMP VIEW member AS SELECT * FROM kept")
        split = entering.labels_at(con, lake, task, T, eligible).set_index("profile_id")
        bridge(con, T, L)
        persons = {p for (p,) in con.execute("SELECT person FROM bridge WHERE profile_id = ?", [whole]).fetchall()}
    assert persons == {whole, "p-the-piece"}
    assert split.loc[whole, "split"]
    assert not split.drop(whole)["split"].any()
    assert len(split) == len(rows)
    assert split.loc[whole, "label"] == 1

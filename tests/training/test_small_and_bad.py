"""Whatever comes, training ends in one of two ways: a champion whose report can be read, or a refusal that helps.

Small shops, bad files and odd features go the whole way: loading, contest, the report on the terminal, the page with
its pictures, and what the champion says of everyone. A warning of a library is a failure: nobody reads a flood of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures_trained import KEY, NOW, _csv, _text

from foretell.errors import DataError
from foretell.project import Project
from ingestion.load import load
from ingestion.quarantine import Chosen, rows
from training.backtest import predict
from training.champion import contest, train
from training.document import document
from training.figures import figures
from training.metrics import Difference, stretched
from training.pooled import Judged, Pooled
from training.report import show_contest

pytestmark = [pytest.mark.filterwarnings("error::RuntimeWarning"), pytest.mark.filterwarnings("error::UserWarning")]

SOURCE = """
from foretell import Source

till = Source(
    name="till", files="till/*.csv", role="order_line", event_at="sold_at", currency="NOK",
    identifiers={"card": "card_no"}, columns={"order_id": "receipt", "amount": "amount", "quantity": "quantity"},
)
"""
CRM = """
from foretell import Source

crm = Source(
    name="crm", files="crm/*.csv", kind="records", event_at="registered_at",
    identifiers={"email": "email", "card": "card_no"}, traits={"city": "city"},
)
"""
TASK = """
from foretell import Label, PredictionTask, _, days

odd = PredictionTask(name="odd", population="{population}", horizon=days({horizon}), metric="{metric}",
    label=Label(source="order_line", value={value}), views={views}, purpose="retention")
"""
VIEW = """
from foretell import Feature, FeatureView, _

strange = FeatureView(name="strange", source="order_line", description="Odd values.", features={{{features}}})
"""
FEATURES = {
    "nothing": 'Feature((_.amount.sum() * 0).nullif(0), "never known", "money")',
    "constant": 'Feature(_.count() * 0 + 7, "seven", "count")',
    "infinite": 'Feature((_.amount.sum() * 0 + 1e308) * 10, "beyond all", "money")',
    "no_number": 'Feature((_.amount.sum() - 300).sqrt(), "none below 300", "money")',
    "enormous": 'Feature(_.amount.sum() * 1e300, "enormous", "money")',
}
VALUE = {"probability": "_.count() == 0", "amount": "_.amount.sum().fill_null(0)"}
METRIC = {"probability": "log_loss", "amount": "mae"}
BASE = {"probability": "base_rate", "amount": "mean"}
Order = tuple[str, float, str]
"""Card, days before now, amount as it stands in the file."""


def people(
    n: int, *, first: tuple[float, float] = (150, 450), scale: float = 1.0, form: str = "{:.2f}", name: str = "c{}"
) -> list[Order]:
    """Orders of n people who buy at rates of their own, about every third week, until they lose interest."""
    rng = np.random.default_rng(0)
    made = []
    for person in range(n):
        ago, rate = float(rng.uniform(*first)), rng.gamma(1.5, 1 / 30)
        while ago > 0:
            made.append((name.format(person), ago, form.format(rng.gamma(4, 25) * scale)))
            if rng.random() < 0.07:
                break
            ago -= rng.exponential(1 / max(rate, 1e-3))
    return made


def monthly(n: int, leaves: Iterable[int] = ()) -> list[Order]:
    """n people who buy for the same every thirty days; some have left four months ago."""
    gone = set(leaves)
    return [
        (f"c{p}", ago + 0.5, "100.00") for p in range(n) for ago in range(10, 460, 30) if p not in gone or ago > 120
    ]


def once(n: int) -> list[Order]:
    rng = np.random.default_rng(0)
    return [(f"c{p}", float(rng.uniform(1, 450)), f"{rng.gamma(4, 25):.2f}") for p in range(n)]


def altered(orders: list[Order], amount: Callable[[int, Order], str]) -> list[Order]:
    return [(who, ago, amount(place, (who, ago, paid))) for place, (who, ago, paid) in enumerate(orders)]


def records(rows: Iterable[tuple[int, int, str]], on: str) -> dict[str, str]:
    """A CRM that says, on a day, which card goes with which e-mail, and a city."""
    lines = [f"{on} 10:00:00,e{email}@example.org,c{card},{city}" for card, email, city in rows]
    return {"sources/crm.py": CRM, "exports/crm/a.csv": "\n".join(["registered_at,email,card_no,city", *lines, ""])}


def all_one(n: int, on: str) -> dict[str, str]:
    """Each card goes with the e-mail of the next: everybody turns out to be one person."""
    return records([(card, card + more, "Oslo") for card in range(n) for more in (0, 1)], on)


def strange(*features: str) -> dict[str, str]:
    chosen = ", ".join(f'"{name}": {FEATURES[name]}' for name in features)
    return {"views/strange.py": VIEW.format(features=chosen)}


@dataclass(frozen=True)
class Case:
    """What is loaded and asked. champion: the only one that may win; refusal: what must be said instead of one."""

    orders: list[Order]
    kind: Any = "probability"
    value: str = ""
    population: str = "orders_365d > 0"
    horizon: int = 60
    views: tuple[str, ...] = ("orders", "cadence")
    files: dict[str, str] = field(default_factory=dict)
    champion: str = ""
    refusal: str = ""


def made(case: Case, folder: Path) -> Project:
    """The case as a project, its files loaded."""
    lines = [
        [f"r{place}", f"{NOW - timedelta(days=ago):%Y-%m-%d %H:%M:%S}", who, paid, "1"]
        for place, (who, ago, paid) in enumerate(case.orders)
    ]
    _csv(folder / "exports" / "till" / "a.csv", ["receipt", "sold_at", "card_no", "amount", "quantity"], lines)
    _text(folder / "foretell.toml", f'[foretell]\nas_of = "{NOW.isoformat()}"\ncutoffs = 3\nfolds = 2\nthreads = 1\n')
    _text(folder / "sources" / "till.py", SOURCE)
    said = {"population": case.population, "horizon": case.horizon, "views": case.views, "metric": METRIC[case.kind]}
    _text(folder / "tasks" / "odd.py", TASK.format(value=case.value or VALUE[case.kind], **said))
    for name, text in case.files.items():
        _text(folder / name, text)
    project = Project(folder)
    _text(project.home / "key", KEY)
    for result in load(project, list(project.definitions.sources)):
        if isinstance(result, Exception):
            raise result
    return project


BOTH = "expected labels of both classes, got only"
APART = "expected amounts that differ, got"
FAST: dict[str, Case] = {
    "nobody": Case([], refusal="expected rows, got none; export it again"),
    "one_person": Case(people(1), refusal=BOTH),
    "two_people": Case(people(2), champion="base_rate"),
    "five_people_amount": Case(people(5), "amount", champion="mean"),
    "horizon_longer_than_history": Case(
        people(30), horizon=400, views=("orders",), refusal="needs more than 80. days of history"
    ),
    "horizon_far_longer_than_history": Case(people(30), horizon=900, refusal="needs more than 183. days of history"),
    "all_amounts_0": Case(people(30, scale=0), "amount", refusal=f"{APART} 0 in all"),
    "all_returns": Case(
        altered(people(30), lambda _, order: f"-{order[2]}"), "amount",
        refusal="expected some amounts above 0, got 0 or less in all",
    ),
    "features_that_say_nothing": Case(people(30), "amount", views=("strange",), files=strange("nothing", "constant"),
                                      champion="mean"),
}  # fmt: skip
SLOW: dict[str, Case] = {
    "one_class": Case(people(30), value="_.count() >= 0", refusal=BOTH),
    "nobody_in_the_population": Case(people(30), population="orders_365d > 9999", refusal="nobody is eligible"),
    "nobody_lately": Case(
        [order for order in people(60) if order[1] > 200], population="orders_90d > 0", refusal=BOTH
    ),
    "two_people_amount": Case(people(2), "amount", champion="mean"),
    "five_people": Case(people(5), champion="base_rate"),
    "thirty_people": Case(people(30)),
    "thirty_people_amount": Case(people(30), "amount"),
    "hundred_people": Case(people(100)),
    "hundred_people_amount": Case(people(100), "amount"),
    "only_two_cutoffs": Case(people(100), horizon=210),
    "only_two_cutoffs_amount": Case(people(100), "amount", horizon=210),
    "horizon_that_is_stretched": Case(people(30), horizon=400),
    "horizon_that_is_stretched_amount": Case(people(30), "amount", horizon=400),
    "odd_features": Case(people(100), views=("orders", "strange"), files=strange(*FEATURES)),
    "odd_features_amount": Case(people(100), "amount", views=("orders", "strange"), files=strange(*FEATURES)),
    # the blend may win all the same: of features that say nothing it still knows how much happened lately
    "features_that_say_nothing": Case(people(100), views=("strange",), files=strange("nothing", "constant")),
    "equal_amounts": Case(people(100, form="100.00"), "amount"),
    "constant_target": Case(people(30), "amount", value="_.count() * 0 + 5", refusal=f"{APART} 5 in all"),
    "all_alike": Case(monthly(60), refusal=BOTH),
    "all_alike_amount": Case(monthly(60), "amount", refusal=APART),
    "one_of_300_leaves": Case(monthly(300, leaves=[0]), champion="base_rate"),
    "some_net_returns": Case(
        altered(people(80), lambda _, order: f"-{order[2]}" if order[0] in ("c0", "c1") else order[2]), "amount"
    ),
    "mostly_returns_lately": Case(
        altered(people(60), lambda n, order: f"-{order[2]}" if order[1] < 61 and n % 9 else order[2]), "amount"
    ),
    "nothing_but_returns_at_the_exams": Case(
        altered(people(60), lambda _, order: f"-{order[2]}" if order[1] < 122 else order[2]), "amount",
        refusal="expected some amounts above 0",
    ),
    "all_order_once": Case(once(200), refusal=BOTH),
    "all_order_once_amount": Case(once(200), "amount", refusal=f"{APART} 0 in all"),
    "from_1_to_200_people": Case(monthly(1) + people(200, first=(150, 240), name="n{}")),
    "from_1_to_200_people_amount": Case(monthly(1) + people(200, first=(150, 240), name="n{}"), "amount"),
    "amounts_of_a_trillion": Case(people(100, scale=1e10), "amount"),
    # the lake keeps amounts to four decimals, so that these are 0
    "amounts_of_a_millionth": Case(people(30, scale=1e-8, form="{:.9f}"), "amount", refusal=f"{APART} 0 in all"),
    "text_of_one_value": Case(
        people(100), views=("traits",), files=records([(c, c, "Oslo") for c in range(100)], "2023-01-01")
    ),
    "text_of_500_values": Case(
        people(500), views=("orders", "traits"), files=records([(c, c, f"Town{c}") for c in range(500)], "2023-01-01")
    ),
    "one_person_by_label_time": Case(people(40), files=all_one(40, "2024-06-20")),
    "one_person_between_the_cutoffs_amount": Case(
        people(40), "amount", files=all_one(40, "2023-11-20"), champion="mean"
    ),
    "one_person_all_along": Case(people(40), files=all_one(40, "2023-01-20"), refusal=BOTH),
}  # fmt: skip
CASES = [pytest.param(case, id=name) for name, case in FAST.items()]
CASES += [pytest.param(case, id=f"{name}-slow", marks=pytest.mark.slow) for name, case in SLOW.items()]


@pytest.mark.parametrize("case", CASES)
def test_a_champion_that_can_be_read_or_a_refusal_that_helps(
    case: Case, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if case.refusal:
        with pytest.raises(DataError, match=case.refusal) as told:
            contest(made(case, tmp_path), "odd", trials=0)
        assert len(told.value.fix) > 10
        assert len(str(told.value)) < 500
        return
    found = contest(made(case, tmp_path), "odd", trials=0)
    capfd.readouterr()
    show_contest(found)
    page = document(found, figures(found))
    out, err = capfd.readouterr()
    assert err == ""  # no library has anything to say
    assert f"* {found.winner}" in out
    assert found.reason in page.replace("&#39;", "'")
    for text in (out.lower(), " ".join(part.split('"', 1)[-1] for part in page.lower().split("base64,"))):
        assert "nan" not in text.replace("finance", "")
        assert "inf" not in text.replace("infinite", "")
    assert found.winner == (case.champion or found.winner)
    low, high = found.base_rate_interval
    assert low < found.base_rate < high
    for asked in (found.rows, found.now):
        said = predict(found.final, asked[found.columns], found.kind) if len(asked) else np.empty(0)
        assert np.isfinite(said).all()
        assert (said >= 0).all()
        assert found.kind == "amount" or (said <= 1).all()
    assert found.judged_days or set(BASE.values()) & set(found.backtest.pooled.models)


def test_amounts_that_are_no_numbers_stay_out_of_training(tmp_path: Path) -> None:
    odd = ("NaN", "inf", "-inf", "1e400", "a lot")
    orders = altered(people(30), lambda n, order: odd[n % 5] if n % 7 == 0 else order[2])
    project = made(Case(orders, "amount"), tmp_path)
    assert len(rows(project, Chosen())) == sum(paid in odd for _, _, paid in orders)
    found = contest(project, "odd", trials=0)
    assert np.isfinite(found.rows["label"].to_numpy(dtype=float)).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [Case(people(5)), Case(people(30), "amount"), Case(people(60, scale=1e10), "amount")],
    ids=["five_people", "thirty_people", "amounts_of_a_trillion"],
)
def test_what_is_served_is_finite(case: Case, tmp_path: Path) -> None:
    from serving import scores
    from serving.score import score

    project = made(case, tmp_path)
    trained = train(project, "odd", trials=0)
    (scored,) = score(project, ["odd"])
    assert scored.estimator == trained.winner
    assert scored.eligible == scored.added == len(trained.contest.now) > 0
    assert np.isfinite(scored.mean)
    values = scores("odd", str(project.folder))["value"]
    assert len(values) == scored.added
    assert np.isfinite(values).all()


def test_of_few_people_an_interval_is_wider_and_of_one_it_is_unknown() -> None:
    found = Difference(1.0, 0.8, 1.1)
    two, thirty, many = (stretched(found, n) for n in (2, 30, 10_000))
    assert two.low == pytest.approx(1 - 0.2 * 12.706 / 1.96 * np.sqrt(2), rel=1e-3)
    assert two.low < thirty.low < many.low < found.low + 1e-9
    assert two.high > thirty.high > many.high > found.high - 1e-9
    assert many == pytest.approx(found, rel=1e-3)
    assert np.isnan(stretched(found, 1)[1:]).all()
    assert stretched(Difference(1.0, 1.05, 1.2), 30).low == 1.05  # of an interval that leans, no end moves inwards


def test_two_fits_of_the_same_answer_are_not_apart() -> None:
    rng = np.random.default_rng(0)
    y, profiles = rng.gamma(1.0, 100.0, 300), np.arange(300).astype(str)
    same = np.full(300, y.mean())
    pooled = Pooled("amount", [Judged(profiles, y, {"mean": same, "line": same * (1 - 1e-9), "less": same * 0.9})])
    near, far = pooled.difference("line", "mean", "mae"), pooled.difference("less", "mean", "mae")
    assert near.low <= 0 <= near.high
    assert far.high < 0


def test_a_draw_that_holds_nobody_of_a_cutoff_says_nothing_of_it() -> None:
    one, many = np.array(["p0"] * 2), np.arange(20).astype(str)
    y = np.arange(20.0)
    judged = [Judged(one, np.array([0.0, 5.0]), {"m": np.array([1.0, 2.0])}), Judged(many, y, {"m": y + 1})]
    table = Pooled("amount", judged).table()
    assert np.isfinite(table[["value", "low", "high"]].to_numpy()).all()

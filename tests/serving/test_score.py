"""Scores carry their contract, come out the same however they are asked for, and refuse what they cannot answer."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from fixtures_trained import NOW, TASKS, TrainedShop, load_all, mine, trained, write_shop

from features import build
from foretell.errors import DefinitionError, NotReady, UnknownName
from foretell.project import Project
from lake.engine import last_batch, session
from models import registry
from models.encoding import encode
from models.explain import contributions, top_reasons
from serving import profile as profile_page
from serving import status
from serving.score import SCHEMA, online_cutoff, score, score_one

__all__ = ["mine", "trained"]


def rows_of(project: Project, task: str) -> list[dict]:
    with session(project) as con:
        found = con.sql("SELECT * FROM scores WHERE task = ? ORDER BY cutoff DESC, profile_id", params=[task])
        return found.to_arrow_table().to_pylist()


def champion_of(project: Project, task: str, version: str | None = None) -> registry.Champion:
    return registry.quietly(lambda: registry.champion(project, task, version))


@pytest.fixture(scope="module")
def batch(trained: TrainedShop) -> dict[str, list[dict]]:
    return {task: rows_of(trained.project, task) for task in trained.trained}


def test_nothing_trained_yet(tmp_path: Path) -> None:
    project = Project(write_shop(tmp_path / "shop", people=3))
    load_all(project)
    with pytest.raises(NotReady, match=r"churn: nothing is trained yet; run `foretell train churn` first"):
        score(project, ["churn"])
    with pytest.raises(NotReady, match="nothing is trained yet"):
        score_one(project, "churn", "card:40000001")


def test_unknown_task(trained: TrainedShop) -> None:
    with pytest.raises(UnknownName, match=r'did you mean "clv"\?'):
        score(trained.project, ["clvv"])


def test_scoring_twice_adds_nothing(mine: Callable[[], Project], batch: dict[str, list[dict]]) -> None:
    project = mine()
    again = score(project, list(TASKS))
    assert [(s.task, s.eligible, s.added) for s in again] == [(t, len(rows), 0) for t, rows in batch.items()]
    for task, rows in batch.items():
        assert [repr(row) for row in rows_of(project, task)] == [repr(row) for row in rows]  # a NaN is not itself


def test_scoring_as_of_an_earlier_time(mine: Callable[[], Project], batch: dict[str, list[dict]]) -> None:
    project, earlier = mine(), NOW - timedelta(days=30)
    assert all(s.added == s.eligible > 0 for s in score(project, ["churn"], earlier))
    rows = rows_of(project, "churn")
    assert [repr(row) for row in rows[: len(batch["churn"])]] == [repr(row) for row in batch["churn"]]
    # what is online and what is said to be online are one, whichever cutoff it is
    online = online_cutoff(project)
    for row in [row for row in rows if row["cutoff"] == online][:3]:
        one = score_one(project, "churn", row["profile_id"])
        assert (one["cutoff"], one["value"]) == (online, pytest.approx(row["value"], abs=1e-12))
        assert one["score_id"] == row["score_id"]


@pytest.mark.parametrize("task", TASKS)
def test_contract_is_complete(trained: TrainedShop, batch: dict[str, list[dict]], task: str) -> None:
    rows, found = batch[task], trained.trained[task]
    assert len(rows) == next(s.eligible for s in trained.scored if s.task == task) > 100
    contract = champion_of(trained.project, task).contract
    for row in rows:
        assert list(row) == SCHEMA.names
        ends = ["value_low", "value_high"]
        assert [name for name, value in row.items() if value is None] == ([] if task == "clv" else ends)
        assert task != "clv" or 0 <= row["value_low"] <= row["value_high"]
        assert 0 < row["percentile"] <= 100
        assert math.isfinite(row["value"])
        assert 0 <= row["value"] <= (math.inf if task == "clv" else 1)
        assert row["base_rate"] == found.base_rate
        assert (row["model_version"], row["estimator"]) == (found.version, found.winner)
        assert row["feature_service"] == contract["service"]
        assert row["cutoff"] == NOW
        assert row["expires_at"] == NOW + found.task.horizon > row["cutoff"]
        assert row["batch"] == last_batch(trained.project)
        assert row["purpose"] == found.task.purpose
        assert row["kind"] == found.kind
        assert [name for name, _ in row["features"]] == contract["columns"]
        told = 0 if found.winner == "base_rate" else 1  # one answer for everyone has no reasons
        assert told <= len(row["reasons"]) <= 3 * told
        effects = [abs(reason["effect"]) for reason in row["reasons"]]
        assert effects == sorted(effects, reverse=True)
        assert all(reason["feature"] in contract["columns"] and reason["text"] for reason in row["reasons"])
    assert datetime.now(UTC) - rows[0]["scored_at"] < timedelta(hours=1)
    assert len({row["score_id"] for row in rows}) == len(rows) == len({row["profile_id"] for row in rows})
    best = max(rows, key=lambda row: row["value"])
    assert best["percentile"] == 100


def test_feature_row_is_the_one_that_was_built(trained: TrainedShop, batch: dict[str, list[dict]]) -> None:
    project = trained.project
    for task, rows in batch.items():
        stored = pd.DataFrame([dict(row["features"]) for row in rows], index=[row["profile_id"] for row in rows])
        model = registry.quietly(lambda task=task: registry.champion(project, task))
        with session(project) as con:
            for view in project.definitions.views_of(project.definitions.task(task)):
                built = con.execute(f"SELECT * FROM {build.read(project, view, NOW)}").df().set_index("profile_id")
                names = list(view.features)
                pd.testing.assert_frame_equal(
                    stored[names],
                    encode(built.loc[stored.index], names, model.categories),
                    check_exact=True,
                    check_names=False,
                )


def test_one_by_one_is_the_batch(trained: TrainedShop, batch: dict[str, list[dict]]) -> None:
    for task, rows in batch.items():
        for row in pd.Series(rows).sample(20 if task == "churn" else 2, random_state=5):
            one = score_one(trained.project, task, row["profile_id"])
            assert one["value"] == pytest.approx(row["value"], abs=1e-12)
            assert one["percentile"] == pytest.approx(row["percentile"], abs=1e-9)
            assert one["reasons"] == row["reasons"]
            assert one["score_id"] == row["score_id"]
            assert set(one) == set(row)


def test_one_that_is_not_eligible_is_refused(trained: TrainedShop, batch: dict[str, list[dict]]) -> None:
    scored = {row["profile_id"] for row in batch["churn"]}
    with session(trained.project) as con:
        everyone = {p for (p,) in con.execute("SELECT profile_id FROM profiles").fetchall()}
    assert everyone > scored
    with pytest.raises(NotReady, match=r"is not in the population of churn \(orders_365d > 0\)"):
        score_one(trained.project, "churn", min(everyone - scored))
    with pytest.raises(UnknownName, match="no such profile or identifier"):
        score_one(trained.project, "churn", "nobody@nowhere.example")


def test_reasons_speak_of_the_text_behind_a_code(trained: TrainedShop, batch: dict[str, list[dict]]) -> None:
    assert trained.trained["propensity"].winner == "blend"  # baselines read no text
    model = champion_of(trained.project, "propensity")
    cities, told = model.categories["known_city"], set()
    X = pd.DataFrame([dict(row["features"]) for row in batch["propensity"]])
    effects = contributions(model.model, X, model.background)
    every = top_reasons(effects, X, model.background, X.shape[1], model.categories, model.words)
    for row, reasons in zip(batch["propensity"], every, strict=True):
        assert row["reasons"] == reasons[:3]
        for reason in reasons:
            if reason["feature"] == "known_city":
                city = cities[int(dict(row["features"])["known_city"])]
                assert f"city: {city} (typical: {cities[0]}), which " in reason["text"]
                told.add(city)
    assert told == set(cities)


def test_a_city_that_training_never_saw_is_as_good_as_unknown(mine: Callable[[], Project]) -> None:
    project = mine()
    moved = [f"4000{n:04d}" for n in range(0, 60, 3)]  # they lived in Oslo
    lines = "".join(f"2024-06-30 10:00:00,,{card},Moved,Vadsø\n" for card in moved)
    (project.exports / "crm" / "moved.csv").write_text("registered_at,email,card_no,first_name,city\n" + lines)
    load_all(project)
    score(project, ["propensity"])
    cities = champion_of(project, "propensity").categories["known_city"]
    assert "Vadsø" not in cities
    with session(project) as con:
        who = {p for (p,) in con.execute("SELECT profile_id FROM profiles WHERE city = 'Vadsø'").fetchall()}
    latest = max(row["scored_at"] for row in rows_of(project, "propensity"))
    rows = [row for row in rows_of(project, "propensity") if row["profile_id"] in who and row["scored_at"] == latest]
    assert len(rows) > 5
    for row in rows:
        for reason in row["reasons"]:
            if reason["feature"] == "known_city":
                assert re.search(rf"city: unknown(, nobody says)? \(typical: {cities[0]}\)", reason["text"])
        assert math.isnan(dict(row["features"])["known_city"])
        assert 0 <= row["value"] <= 1
    one = score_one(project, "propensity", rows[0]["profile_id"])
    assert one["value"] == pytest.approx(rows[0]["value"], abs=1e-12)
    assert one["reasons"] == rows[0]["reasons"]


def test_stored_feature_row_gives_the_same_bits(trained: TrainedShop, batch: dict[str, list[dict]]) -> None:
    for task, rows in batch.items():
        model = champion_of(trained.project, task, rows[0]["model_version"])
        frame = pd.DataFrame([dict(row["features"]) for row in rows])
        assert model.predict(frame, rows[0]["cutoff"]).tolist() == [row["value"] for row in rows]


def test_an_edited_view_leaves_the_scores_what_they_were(mine: Callable[[], Project]) -> None:
    """The champion sees the view as it was trained on it: nothing about its answers changes, and it is said."""
    project = mine()
    before = score(project, ["churn"])[0]
    one = score_one(project, "churn", (who := rows_of(project, "churn")[0]["profile_id"]))
    (project.folder / "views").mkdir()
    edits = {
        "orders": ('"spend_30d": spend(30)', '"spend_31d": spend(31)'),
        "cadence": ("- 1).nullif(0)", "- 0).nullif(0)"),
    }
    for name, (old, new) in edits.items():
        text = (Path(build.__file__).parent / "views" / f"{name}.py").read_text()
        assert old in text
        (project.folder / "views" / f"{name}.py").write_text(text.replace(old, new))
    changed = Project(project.folder)
    after = score(changed, ["churn"])[0]
    assert (after.added, after.mean, after.version) == (0, before.mean, before.version)  # the same scores, all of them
    assert sorted(after.edited) == ["cadence", "orders"]
    again = score_one(changed, "churn", who)
    assert again.pop("scored_at") > one.pop("scored_at")
    assert repr(again) == repr(one)  # a NaN is not itself


def test_a_changed_source_is_refused(mine: Callable[[], Project]) -> None:
    """What the champion's features were made of is gone, and cannot be had again."""
    project = mine()
    file = project.folder / "sources" / "till.py"
    file.write_text(file.read_text().replace('currency="NOK"', 'currency="NOK", timezone="Asia/Tokyo"'))
    changed = Project(project.folder)
    with pytest.raises(DefinitionError, match=r"a source of .*orders.* has changed; run `foretell train churn` again"):
        score(changed, ["churn"])
    with pytest.raises(DefinitionError, match="`foretell train churn`"):
        score_one(changed, "churn", "card:40000001")


def test_profile_page(trained: TrainedShop, batch: dict[str, list[dict]], capsys: pytest.CaptureFixture[str]) -> None:
    project = trained.project
    scored = {row["profile_id"] for row in batch["churn"]}
    with session(project) as con:
        pairs = con.execute(
            """SELECT DISTINCT a.loser, m.profile_id FROM alias a JOIN member m ON m.birth_id = a.loser
               WHERE m.known_to IS NULL ORDER BY 1"""
        ).fetchall()
    former, today = next((loser, now) for loser, now in pairs if now in scored)
    page = profile_page.page(project, former)
    assert page["profile_id"] == today != former
    assert former in page["former_ids"]
    names = [i["identifier"] for i in page["identifiers"]]
    email = next(name for name in names if name.startswith("email:"))
    assert any(name.startswith("card:") for name in names)
    # repr: a feature without a value is NaN, which equals nothing
    assert repr(profile_page.page(project, email.removeprefix("email:").upper())) == repr(page)
    assert repr(profile_page.page(project, today)) == repr(page)
    assert {t["attribute"] for t in page["traits"]} >= {"city", "first_name"}
    tasks = [task for task in sorted(batch) if today in {row["profile_id"] for row in batch[task]}]
    assert [s["task"] for s in page["scores"]] == tasks
    assert {"churn", "clv"} <= set(tasks)
    expected = next(row for row in batch["churn"] if row["profile_id"] == today)
    assert page["scores"][0]["score_id"] == expected["score_id"]
    json.dumps(page, default=str)
    profile_page.show(page)
    shown = capsys.readouterr().out
    for part in (today, f"formerly {former}", email, expected["score_id"], "expires 2024-09-29", "Segments:"):
        assert part in shown


def test_status(trained: TrainedShop, tmp_path: Path) -> None:
    found = status.collect(trained.project)
    assert {row[0] for row in found.sources} == {"till", "web", "crm"}
    scored = {s.task: f"{s.eligible:,}" for s in trained.scored}
    assert {row[0]: row[-1] for row in found.tasks} == {
        t: scored.get(t, "0") for t in trained.project.definitions.tasks
    }
    assert found.next == "foretell segment list"
    origins = {name: origin for name, _, origin in status.settings_of(trained.project)}
    assert origins["as_of"] == "foretell.toml"
    assert origins["memory"] == "default"
    fresh = Project(write_shop(tmp_path / "fresh", people=3))
    assert status.collect(fresh).next == "foretell load"
    assert not fresh.home.exists()  # looking leaves nothing behind
    load_all(fresh)
    assert status.collect(fresh).next == "foretell train"

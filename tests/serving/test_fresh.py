"""Between two batches, what a score is computed from is what a rebuild at its T would give."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from fixtures_trained import NOW, copy_of
from streaming import Log, message, served

from features import build
from features.store import repository
from features.store.online import open_store
from foretell.project import Project
from ingestion import quarantine
from ingestion.collector.messages import INVALID
from ingestion.load import load
from ingestion.quarantine import Chosen
from ingestion.replay import Replayed, replay
from lake.engine import session
from serving.erase import erase, plan
from serving.fresh.rows import Rows
from serving.fresh.worker import Worker
from serving.http.engine import Engine
from serving.http.fresh import fresh_file
from serving.http.index import REFUSED, Index
from serving.score import score, score_one
from training import dataset
from unification.decisions import decide
from unification.identity import unify

__all__ = ["served"]

SECOND = timedelta(seconds=1)


@pytest.fixture
def project(served: Project, tmp_path: Path) -> Project:
    return copy_of(served, tmp_path / "shop")


def drain(worker: Worker) -> None:
    while worker.turn():
        pass


def opened(project: Project) -> Worker:
    worker = Worker(project, every=0)
    worker.open()
    drain(worker)
    return worker


def index_of(project: Project) -> Index:
    index = Index(project)
    index.look_for_news(project)
    return index


def fresh_rows(project: Project) -> list[str]:
    """The profiles that have a row, which goes with what is published."""
    index = index_of(project)
    assert index.fresh is not None
    profiles = [p for (p,) in index.fresh._watching.execute("SELECT profile_id FROM row ORDER BY 1").fetchall()]
    return sorted(index.newer(profiles))


def check(project: Project, profiles: list[str]) -> None:
    """The fresh rows of these profiles are those of a rebuild from the lake, once the log is loaded, a day later."""
    loaded(project)
    settings = project.folder / "foretell.toml"
    settings.write_text(settings.read_text().replace(project.now.isoformat(), (NOW + timedelta(days=1)).isoformat()))
    project = Project(project.folder)
    layout, found, rows = index_of(project).layout, index_of(project).newer(profiles), Rows(project)
    assert sorted(found) == sorted(profiles)
    for profile, (packed, at) in found.items():
        X, own, inside = rows.rebuilt(profile, at)
        np.testing.assert_allclose(layout.features(packed)[own], X[own], rtol=1e-12, err_msg=profile)
        for place, name in enumerate(layout.tasks):
            assert bool(packed[place] & ~REFUSED) == inside[place], (name, profile)


def loaded(project: Project) -> None:
    for result in load(project, ["app"]):
        assert not isinstance(result, Exception), result
    unify(project)


def settled(worker: Worker) -> None:
    """Wait until the worker has taken up what changed."""
    end = time.monotonic() + 60
    worker._look(0.0)
    while worker._coming is not None:
        assert time.monotonic() < end
        time.sleep(0.02)
        worker._look(0.0)
    drain(worker)


def scores(project: Project, who: str, task: str = "churn") -> dict:
    engine = Engine(project.folder)
    engine.refresh()
    (found,) = engine.scores([who], [task], features=True)["results"]
    engine.stop()
    return found


def test_a_day_of_events_is_what_a_rebuild_gives(project: Project) -> None:
    """People known and new, some of whom turn out to be one; turns of any size, from segments sealed or not."""
    worker, log, rng = opened(project), Log(project), random.Random(3)
    at = NOW + timedelta(hours=1)
    for turn in range(12):
        for _ in range(rng.randrange(1, 9)):
            at += SECOND
            card = f"4000{rng.randrange(60):04}" if rng.random() < 0.8 else None
            email = f"new{rng.randrange(5)}@x.example" if rng.random() < 0.3 or card is None else None
            log.add(message(at, card, rng.randrange(10, 400), email=email))
        if turn % 5 == 4:
            log.seal()
        drain(worker)
    worker.close()
    touched = fresh_rows(project)
    assert len(touched) > 10
    check(project, touched)


def test_an_answer_is_as_of_the_event(project: Project) -> None:
    before = scores(project, "40000001")
    worker, log = opened(project), Log(project)
    assert scores(project, "40000001")["scores"][0]["score_id"] == before["scores"][0]["score_id"]
    at = NOW + timedelta(hours=2)
    log.add(message(at, "40000001", 250))
    drain(worker)
    (was,), (now,) = before["scores"], scores(project, "40000001")["scores"]
    assert project.now <= now["cutoff"] < project.now + SECOND  # the last thing that is known
    assert now["features"]["orders_30d"] == was["features"]["orders_30d"] + 1
    assert now["expires_at"] - now["cutoff"] == was["expires_at"] - was["cutoff"]
    assert now["score_id"] != was["score_id"]
    assert scores(project, "40000003")["scores"][0]["cutoff"] == was["cutoff"]  # of whom nothing came in
    worker.close()


def test_somebody_new_is_found_and_a_merge_is_followed(project: Project) -> None:
    worker, log, at = opened(project), Log(project), NOW + timedelta(hours=2)
    assert scores(project, "app@x.example")["problem"] == "no such profile or identifier"
    log.add(message(at, email="app@x.example"))
    drain(worker)
    new = scores(project, "app@x.example")
    assert new["scores"][0]["features"]["orders_30d"] == 1
    known = scores(project, "40000003")
    log.add(message(at + SECOND, "40000003", email="app@x.example"))  # it was them
    drain(worker)
    for who in ("app@x.example", "40000003", new["profile_id"], known["profile_id"]):
        found = scores(project, who)
        assert found["profile_id"] == known["profile_id"]
        assert found["scores"][0]["features"]["orders_30d"] >= 2
    assert new["profile_id"] not in fresh_rows(project)
    worker.close()
    check(project, fresh_rows(project))


def test_what_is_sent_twice_counts_once_and_what_is_no_message_not_at_all(project: Project) -> None:
    worker, log, at = opened(project), Log(project), NOW + timedelta(hours=2)
    twice = message(at, "40000004", id="same")
    log.add(twice, INVALID + '"no message","message":1}', message(at, "40000004", event="looked"))
    drain(worker)
    once = scores(project, "40000004")["scores"][0]["features"]["orders_30d"]
    log.add({**twice, "receivedAt": (at + SECOND).isoformat()}, "{}", message(at, "40000005", amount="a lot"))
    drain(worker)
    assert scores(project, "40000004")["scores"][0]["features"]["orders_30d"] == once
    worker.close()
    check(project, fresh_rows(project))


def test_who_withdraws_is_not_scored_from_then_on(project: Project) -> None:
    worker, log, at = opened(project), Log(project), NOW + timedelta(hours=2)
    log.add(message(at, "40000006"), message(at + SECOND, "40000006", consent="no"))
    drain(worker)
    found = scores(project, "40000006")
    assert not found["scores"]
    assert "no consent to retention" in found["problems"][0]["problem"]
    log.add(message(at + 2 * SECOND, "40000006", consent="yes"))
    drain(worker)
    assert scores(project, "40000006")["scores"]
    worker.close()
    check(project, fresh_rows(project))


def test_whoever_is_killed_comes_to_the_same_rows(project: Project) -> None:
    """Nothing is told when it ends: what it had read is read again, and what was loaded meanwhile is caught up with."""
    worker, log, at = opened(project), Log(project), NOW + timedelta(hours=2)
    log.add(message(at, "40000007"))
    drain(worker)
    del worker
    log.add(message(at + SECOND, "40000008"))  # nobody is there
    loaded(project)
    log.add(message(at + 2 * SECOND, "40000009"))
    again = opened(project)
    rows = fresh_rows(project)
    ids = {scores(project, f"4000000{n}")["profile_id"] for n in (7, 8, 9)}
    assert set(rows) == ids
    again.close()
    check(project, rows)


def test_what_else_changes_is_taken_up(project: Project) -> None:
    """Another batch, a decision about who is who, facts of another source, a mended row, and an erasure."""
    worker, log, at = opened(project), Log(project), NOW + timedelta(hours=2)
    log.add(message(at, "40000016") | {"timestamp": "yesterday"})
    log.add(message(at, "40000011"), message(at, email="app@x.example"))
    log.add(message(at + SECOND, "40000012", email="app@x.example"))
    drain(worker)
    loaded(project)
    decide(project, "unlink", "card:40000012", "email:app@x.example")
    unify(project)
    settled(worker)
    apart = {scores(project, who)["profile_id"] for who in ("40000012", "app@x.example")}
    assert len(apart) == 2

    (project.exports / "till" / "late.csv").write_text(
        "receipt,sold_at,card_no,amount,quantity,sku\nr1,2024-06-30 12:00:00,40000015,70,1,sku1-1\n"
    )
    before = scores(project, "40000015")["scores"][0]["features"]["orders_30d"]
    for result in load(project, ["till"]):
        assert not isinstance(result, Exception)
    settled(worker)
    assert scores(project, "40000015")["scores"][0]["features"]["orders_30d"] == before + 1

    before = scores(project, "40000016")["scores"][0]["features"]["orders_30d"]
    mended = project.folder / "mended.jsonl"
    assert quarantine.export(project, Chosen(source="app"), mended) == 1
    mended.write_text(mended.read_text().replace("yesterday", at.isoformat()))
    (replayed,) = replay(project, Chosen(), mended)
    assert isinstance(replayed, Replayed)
    assert replayed.added == 1
    settled(worker)
    assert scores(project, "40000016")["scores"][0]["features"]["orders_30d"] == before + 1

    score(project, ["churn", "clv"])
    settled(worker)
    assert not fresh_rows(project)  # the batch knows it all
    log.add(message(NOW + timedelta(hours=12) - SECOND, "40000014"))
    drain(worker)
    assert len(fresh_rows(project)) == 1

    erase(project, plan(project, "40000014"))
    assert not fresh_file(project).exists()
    settled(worker)
    assert not fresh_rows(project)
    assert "problem" in scores(project, "40000014")
    worker.close()


@pytest.mark.slow
def test_kill_9_at_random_points_loses_and_doubles_nothing(project: Project) -> None:
    """The worker is killed over and over while events come in and the log is loaded: in the end all rows are right."""
    log, rng, at = Log(project), random.Random(11), NOW + timedelta(hours=2)
    command = [sys.executable, "-m", "foretell", "--project", str(project.folder), "stream"]
    sent: Counter[str] = Counter()
    for _ in range(6):
        worker = subprocess.Popen(
            [*command, "--load-every", "2"], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
        )
        assert worker.stdout
        while "Streaming" not in worker.stdout.readline():
            assert worker.poll() is None
        end = time.monotonic() + rng.uniform(0.5, 4)
        while time.monotonic() < end:
            cards = [f"4000{rng.randrange(60):04}" for _ in range(rng.randrange(1, 6))]
            at += SECOND
            log.add(*(message(at, card, rng.randrange(10, 400)) for card in cards))
            sent.update(cards)
            time.sleep(rng.uniform(0, 0.1))
        worker.kill()
        worker.wait(10)
    end = time.monotonic() + 60
    while True:  # a load that it had begun may still be at work
        done = subprocess.run([*command, "--once"], capture_output=True, text=True, cwd=Path(__file__).parents[2])
        if not done.returncode:
            break
        assert time.monotonic() < end, done.stderr
    check(project, fresh_rows(project))
    with session(project) as con:
        facts = dict(con.execute("SELECT id_card, count(*) FROM app GROUP BY 1").fetchall())
    assert facts == sent


def test_features_are_online_as_of_the_event(project: Project) -> None:
    """What Feast has of a profile is what the views are built of it at the T of its score; of others, of the batch."""
    worker, log = opened(project), Log(project)
    log.add(message(NOW + timedelta(hours=2), "40000003", 120))
    drain(worker)
    (score,) = scores(project, "40000003")["scores"]
    assert worker._state
    fresh = list(worker._state.memory.views)
    worker.close()
    store = open_store(project)
    for version in fresh:
        found = repository.get(store, version, [score["profile_id"]]).to_pylist()[0]
        assert found["event_timestamp"] == score["cutoff"], version
    settings = project.folder / "foretell.toml"
    settings.write_text(settings.read_text().replace(project.now.isoformat(), (NOW + timedelta(days=1)).isoformat()))
    loaded(later := Project(project.folder))
    rows = Rows(later)
    dataset.build_for(later, [one.task for one, _, _ in rows._asked], [score["cutoff"]])
    with session(later) as con:
        for version in fresh:
            table = build.read(later, rows._views[version], score["cutoff"])
            (built,) = (
                con.sql(f"SELECT * FROM {table} WHERE profile_id = '{score['profile_id']}'")
                .to_arrow_table()
                .to_pylist()
            )
            found = repository.get(store, version, [score["profile_id"]]).to_pylist()[0]
            for name in rows._views[version].features:
                expected = built[name]
                if isinstance(expected, float):
                    expected = pytest.approx(expected, rel=1e-12, nan_ok=True)
                assert found[name] == expected, (version, name)
    shown = score_one(later, "churn", "40000003")
    assert shown["value"] == pytest.approx(score["value"], rel=1e-12)
    assert shown["cutoff"] == score["cutoff"]

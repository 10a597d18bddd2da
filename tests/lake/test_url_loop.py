"""The whole loop with the lake in a bucket gives what it gives with one in a folder, and erased is erased there."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner
from fixtures_trained import KEY, NOW, load_all, write_shop
from test_kill import LOAD_IMPORTS, at_calls, killed, run

sys.path.append(str(Path(__file__).parent))
from bucket_server import BucketServer, bucket  # pyright: ignore[reportMissingImports]

from foretell.__main__ import cli
from foretell.errors import DataError
from foretell.project import Project
from lake import place
from lake.bucket import Bucket, Unreachable
from lake.consent import say
from lake.copying import copy
from lake.engine import session, table
from lake.scan import search
from serving.erase import erase, plan
from serving.grade import grade
from serving.score import score
from training.champion import train
from training.reproduce import reproduce
from unification.identity import unify

__all__ = ["bucket"]

MAIL, CARD = "person17@example.org", "40000017"
# with a time or an id of its own, each home another
OWN = ("batch", "received_at", "finished_at", "path", "modified_ns", "row_id", "read_at")


def shop(folder: Path, lake: str = "") -> Project:
    write_shop(folder, people=90)
    if lake:
        with (folder / "foretell.toml").open("a") as toml:
            toml.write(f'lake = "{lake}"\n')
    project = Project(folder)
    project.home.mkdir(parents=True)
    (project.home / "key").write_text(KEY)
    return project


@dataclass(frozen=True)
class Ended:
    """What a home holds when the loop is through."""

    project: Project
    before: dict[str, Any]  # the erasure
    receipt: dict[str, Any]
    after: dict[str, Any]


def held(project: Project) -> dict[str, Any]:
    """Every fact, consent, score with its features, and outcome."""
    found = {}
    with session(project) as con:
        for name in ("till", "web", "crm", "quarantine", "consents", "scores", "outcomes", "training_rows", "batches"):
            described = con.execute(f'DESCRIBE "{name}"').fetchall()
            own = [
                *OWN,
                *(["fact_id"] if name == "consents" else []),
                "scored_at",
                "score_id",
                "run_id",
                "rows",
                "features",
                "graded_at",
                "consent_id",
                "known_at",
                "event_at",
                "trained_at",
                "created_at",
            ]
            columns = [n for n, *_ in described if n not in (OWN if name in ("till", "web", "crm") else own)]
            listed = ", ".join(f'"{column}"::VARCHAR' for column in columns)
            found[name] = con.execute(f'SELECT {listed} FROM "{name}" ORDER BY ALL').fetchall()
    return found


def through(project: Project) -> Ended:
    """Load, unify, train, score, grade, erase a person."""
    load_all(project)
    unify(project)
    say(project, f"email:{MAIL}", "marketing", True, reason="called")
    train(project, "churn", trials=0)
    score(project, ["churn"])
    score(project, ["churn"], cutoff=NOW - timedelta(days=95))
    grade(project)
    before = held(project)
    return Ended(project, before, erase(project, plan(project, MAIL)), held(project))


@pytest.fixture(scope="module")
def ended(bucket: BucketServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[Ended, Ended]:
    """The loop in a folder and in a bucket."""
    folder = tmp_path_factory.mktemp("loop")
    return through(shop(folder / "local")), through(shop(folder / "remote", bucket.address()))


@pytest.mark.slow
def test_the_loop_is_the_same(ended: tuple[Ended, Ended]) -> None:
    local, remote = ended
    assert not (remote.project.home / "lake").exists()
    assert place.names(local.project) == place.names(remote.project)
    for state in ("before", "after"):
        here, there = getattr(local, state), getattr(remote, state)
        assert here.keys() == there.keys()
        for name in here:
            assert bool(here[name]) == ((state, name) != ("after", "consents")), name  # that was the person's own
            assert here[name] == there[name], (state, name)
    with session(local.project) as a, session(remote.project) as b:
        query = "SELECT profile_id, cutoff, value, percentile, features::VARCHAR FROM scores ORDER BY 1, 2"
        assert a.execute(query).fetchall() == b.execute(query).fetchall()


@pytest.mark.slow
def test_the_receipts_say_the_same(ended: tuple[Ended, Ended]) -> None:
    local, remote = (one.receipt for one in ended)
    for name in ("profile_id", "profile_ids", "identifiers", "erased", "rebuilt", "models_of_unknown_rows"):
        assert local[name] == remote[name], name
    assert {"facts/crm", "scores", "outcomes", "training_rows", "consents", "features"} <= remote["erased"].keys()
    assert local["verified"]["found"] == remote["verified"]["found"] == []
    assert remote["verified"]["files"] > local["verified"]["files"]  # the copies, and the bucket's own
    said = set(remote["outside_our_control"]["also"]) - set(local["outside_our_control"]["also"])
    assert any("earlier versions of objects" in text for text in said)


@pytest.mark.slow
def test_no_object_of_the_bucket_holds_the_person(
    ended: tuple[Ended, Ended], bucket: BucketServer, tmp_path: Path
) -> None:
    """Every version of every object, and every copy, decoded; before, there was something to be found."""
    project = ended[1].project
    ids = ended[1].receipt["profile_ids"]
    for key, data in bucket.objects(project.setting("lake")).items():
        file = tmp_path / "all" / key
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    found = search([tmp_path / "all", project.home], [MAIL, CARD, *ids])
    assert {file.relative_to(tmp_path / "all").parts[0] for file, *_ in found.hits if "all" in file.parts} == {
        "erasures"
    }
    assert {text for *_, text in found.hits} == set(ids), "the erasure's own record"
    assert found.formats["Parquet"] > 20
    assert search([ended[0].project.folder / "exports"], [MAIL, CARD]).hits


@pytest.mark.slow
def test_what_a_copy_or_an_object_still_holds_is_found(ended: tuple[Ended, Ended], bucket: BucketServer) -> None:
    """An erasure says so, with the address."""
    from serving.erase import _verified, verify

    project = ended[1].project
    key = project.setting("lake").split("/", 3)[3] + "/facts/crm/forgotten.json"
    bucket.client.put_object(Bucket=bucket.BUCKET, Key=key, Body=json.dumps({"mail": MAIL}).encode())
    try:
        found = _verified(project, verify(project, [MAIL]), complete=True)["found"]
    finally:
        bucket.client.delete_object(Bucket=bucket.BUCKET, Key=key)
    assert found == [f"{project.setting('lake')}/facts/crm/forgotten.json: its texts"]
    assert not (project.home / "cache" / "searched").exists()


@pytest.mark.slow
def test_a_model_is_learned_again_from_a_bucket(ended: tuple[Ended, Ended]) -> None:
    said = [reproduce(one.project, "churn") for one in ended]
    assert said[0] == said[1]
    assert said[1].rows_now == said[1].rows_then - said[1].erased > 0


@pytest.mark.slow
def test_a_lake_is_copied_and_read_from_there(ended: tuple[Ended, Ended], bucket: BucketServer, tmp_path: Path) -> None:
    """By the command; a copy that was cut short goes on, and nothing is switched before foretell.toml says so."""
    local = Project(shutil.copytree(ended[0].project.folder, tmp_path / "moved"))
    url, words = bucket.address(), ["--project", str(local.folder), "lake", "copy"]
    before = held(local)
    sent = iter(range(7))
    with pytest.MonkeyPatch.context() as patch:
        send = Bucket.send
        patch.setattr(Bucket, "send", lambda *args: send(*args) if next(sent) < 6 else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            list(copy(local, Bucket(url)))
    done = CliRunner().invoke(cli, [*words, url], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert f'lake = "{url}" in foretell.toml' in done.output
    assert held(Project(local.folder)) == before  # from the folder still
    rows = {line.split()[0]: int(line.split()[1].replace(",", "")) for line in done.output.splitlines()[1:-1]}
    assert rows == {name: table(local, name).rows() for name in place.names(local)}
    again = list(copy(local, Bucket(url)))
    assert [one.sent for one in again] == [0] * len(again)

    with (local.folder / "foretell.toml").open("a") as toml:
        toml.write(f'lake = "{url}"\n')
    shutil.rmtree(local.home / "lake")
    moved = Project(local.folder)
    assert held(moved) == before
    newer = []
    for one in (ended[0].project, moved):  # the same model: its scores have the same ids
        score(one, ["churn"], cutoff=NOW - timedelta(days=7))
        with session(one) as con:
            at = f"cutoff = '{NOW - timedelta(days=7)}'"
            query = f"SELECT score_id, value, features::VARCHAR FROM scores WHERE {at} ORDER BY 1"
            newer.append(con.execute(query).fetchall())
    assert newer[0] == newer[1] != []
    with pytest.raises(DataError, match="is where the lake of this project lies already"):
        list(copy(moved, Bucket(url)))
    further = bucket.address()
    assert sum(one.rows for one in copy(moved, Bucket(further))) > sum(rows.values())
    assert bucket.objects(further).keys() == bucket.objects(url).keys()


@pytest.mark.slow
def test_a_bucket_that_holds_something_else_is_left_alone(ended: tuple[Ended, Ended], bucket: BucketServer) -> None:
    project, remote = (one.project for one in ended)
    with pytest.raises(DataError, match="expected nothing there, or an earlier copy of this lake: its _delta_log"):
        list(copy(project, Bucket(remote.setting("lake"))))
    url = bucket.address()
    say(shop(project.folder.parent / "third", url), "email:x@y.org", "marketing", True)
    table(Project(project.folder.parent / "third"), "facts/other").append(_rows(), why="load")
    with pytest.raises(DataError, match="it has the table facts/other, which this lake has not"):
        list(copy(project, Bucket(url)))


def _rows() -> Any:
    import pyarrow as pa

    return pa.table({"batch": [1]})


# --- killed, and down ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_load_into_a_bucket_is_killed_and_repaired(bucket: BucketServer, tmp_path: Path) -> None:
    """Around its commits, and at any moment within them; then run to its end."""
    calm, draw = shop(tmp_path / "calm", bucket.address()), Random(5)
    whole = run(calm.folder, ["load"], [None], LOAD_IMPORTS)[0]["seconds"]
    project = shop(tmp_path / "shop", bucket.address())
    plans = at_calls(("before", 1), ("after", 1), ("before", 2), ("after", 2), ("after", 4), only=["append"])
    plans += [{"when": "clock", "seconds": draw.uniform(0.1, 0.5) * whole} for _ in range(5)]
    ends = run(project.folder, ["load"], [*plans, None], LOAD_IMPORTS)
    assert killed(ends) >= 6
    for one in (calm, project):
        unify(one)
    kept, wanted = [], "fact_id, known_at, event_at, node, payload"
    for one in (calm, project):
        with session(one) as con:
            kept.append({
                name: con.execute(f'SELECT {wanted} FROM "{name}" ORDER BY ALL').fetchall()
                for name in ("till", "web", "crm")
            })  # fmt: skip
            for name in ("till", "web", "crm"):
                assert table(one, f"facts/{name}").rows() == len(kept[-1][name])  # nor any beyond the watermark
    assert kept[0] == kept[1]


@pytest.mark.slow
def test_a_server_that_goes_away_in_a_load(
    bucket: BucketServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error in words, whatever was being done; what was committed is there, and the same command goes on."""
    project = shop(tmp_path / "shop", bucket.address())
    append, count = type(table(project, "batches")).append, 0

    def falling(self: Any, *args: Any, **kwargs: Any) -> None:
        nonlocal count
        count += 1
        if count == 3:
            monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        append(self, *args, **kwargs)

    monkeypatch.setattr(type(table(project, "batches")), "append", falling)
    done = CliRunner().invoke(cli, ["--project", str(project.folder), "load"])
    assert done.exit_code != 0
    assert "expected an answer of its store" in done.output + str(done.exception)
    shown = CliRunner().invoke(cli, ["--project", str(project.folder), "status"])
    assert isinstance(shown.exception, Unreachable)
    assert "cannot be reached" in shown.output
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.endpoint)
    monkeypatch.setattr(type(table(project, "batches")), "append", append)
    assert CliRunner().invoke(cli, ["--project", str(project.folder), "load"], catch_exceptions=False).exit_code == 0
    calm = shop(tmp_path / "calm")
    load_all(calm)
    with session(project) as a, session(calm) as b:
        query = "SELECT fact_id, node FROM till UNION ALL SELECT fact_id, node FROM crm ORDER BY ALL"
        assert a.execute(query).fetchall() == b.execute(query).fetchall()


@pytest.mark.slow
def test_a_server_that_answers_nobody_for_a_while(bucket: BucketServer, tmp_path: Path) -> None:
    """A command waits for it, and goes on when it is there again."""
    import threading

    project = shop(tmp_path / "shop", bucket.address())
    assert bucket.process
    pid = bucket.process.pid
    os.kill(pid, signal.SIGSTOP)
    timer = threading.Timer(3, os.kill, (pid, signal.SIGCONT))
    timer.start()
    say(project, "email:x@y.org", "marketing", True)
    timer.join()
    assert table(project, "consents").rows() == 1

"""Of whom nothing is known no number is said: not in a batch, not online, and not as a number anywhere."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import duckdb
import numpy as np
import pytest
from conftest import MORE_SOURCES, START, make_shop, more_facts, record, shop_facts
from fixtures_trained import mine, trained
from starlette.testclient import TestClient

from features import build
from features.wide import Wide
from foretell import __main__ as program
from foretell.project import Project
from foretell.windows import days
from lake.engine import session, table
from models.registry import Champion
from serving import batch
from serving.batch import empty_rows
from serving.evidence import Evidence, Insufficient
from serving.http import api
from serving.http.engine import Engine
from serving.http.index import Index
from serving.score import score, score_one
from training import dataset
from training.champion import train

__all__ = ["mine", "trained"]

CUTOFF = START + days(300)
STANDARD = [
    "campaign_response", "churn", "clv", "clv_180", "clv_365", "lookalike", "loyalty", "next_order", "propensity",
    "repurchase",
]  # fmt: skip
# Who stands on this list looked at a page, which no view of the standard tasks sees.
LIST = """
from foretell import Source

list = Source(
    name="list", files="list/*.csv", role="activity", event_at="registered_at", timezone="Europe/Oslo",
    identifiers={"email": "email"}, columns={"kind": "'page'"},
)
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Project:
    from ingestion.load import load
    from unification.identity import unify

    folder = tmp_path_factory.mktemp("evidence") / "shop"
    made = make_shop(folder, facts=more_facts(shop_facts(people=30), people=30), sources=MORE_SOURCES)
    (made.folder / "sources" / "list.py").write_text(LIST)
    (made.exports / "list").mkdir()
    rows = [record(START + days(9), email=f"nobody{n}@list.example") for n in range(4)]
    lines = "".join(f"{row['registered_at'].isoformat()},{row['email']}\n" for row in rows)
    (made.exports / "list" / "list.csv").write_text("registered_at,email\n" + lines)
    project = Project(made.folder)
    (loaded,) = load(project, ["list"])
    assert not isinstance(loaded, Exception)
    assert loaded.added == 4
    unify(project)
    return project


def champion_of(project: Project, task: str) -> Champion:
    """A model of all features of a task, which is never asked."""
    columns = dataset.feature_columns(project, project.definitions.task(task))
    texts = [c for c in columns if c.startswith(("known_", "favourite"))]
    return Champion(task, "1", "", None, {"columns": columns, "categories": {c: ["Oslo"] for c in texts}})


@pytest.mark.parametrize("name", STANDARD)
def test_of_whom_no_view_knows_a_fact_nothing_is_said(shop: Project, name: str) -> None:
    """Held to a count of the facts that the task's views see."""
    task, model = shop.definitions.task(name), champion_of(shop, name)
    views = shop.definitions.views_of(task)
    dataset.build_for(shop, [task], [CUTOFF])
    wide = Wide(shop, CUTOFF)
    wide.add(name, views, model.contract["columns"], model.categories)
    with session(shop) as con:
        evidence = Evidence(name, model.contract["columns"], empty_rows(con, shop, model, views, CUTOFF))
        query = f"SELECT profile_id FROM {build.read(shop, views[0], CUTOFF)} ORDER BY 1"
        profiles = con.sql(query).to_arrow_table()["profile_id"].combine_chunks()
        X, absent = wide.read(con, profiles)
        X = X[:, wide.places[name]]
        build.know_profiles(con, CUTOFF)
        seen: set[str] = set()
        for role in {role for view in views for role in view.roles}:
            facts = build.facts_before(con, shop, role, CUTOFF, CUTOFF)
            query = f"SELECT DISTINCT profile_id FROM ({facts}) JOIN at_cutoff USING (node)"
            seen |= {p for (p,) in con.execute(query).fetchall()}
        theirs = "SELECT profile_id FROM at_cutoff WHERE node LIKE 'email:nobody%'"
        listed = {p for (p,) in con.execute(theirs).fetchall()}
    assert not absent
    lacking = evidence.lacking(X)
    nothing = {p for p, lost in zip(profiles.to_pylist(), lacking, strict=True) if lost}
    assert len(listed) == 4
    assert listed <= nothing
    assert set(profiles.to_pylist()) - seen <= nothing
    assert len(nothing) < len(profiles) / 2
    for p in nothing & seen:  # facts that no feature looks at: an order that was cancelled, years ago
        place = profiles.to_pylist().index(p)
        assert evidence.problem(X[place]) is not None
    place = profiles.to_pylist().index(min(listed))
    with pytest.raises(
        Insufficient, match=rf"{name}: insufficient evidence: no fact of the profile is known to orders"
    ):
        evidence.check(X[place])
    assert json.loads(json.dumps(evidence.empty)) == evidence.empty
    known = int(np.flatnonzero(~lacking)[0])
    evidence.check(X[known])
    with pytest.raises(Insufficient, match=r"there is no row of the profile in cadence"):
        evidence.check(X[known], ["cadence"])


def test_one_feature_that_is_known_is_evidence() -> None:
    evidence = Evidence("t", ["a", "b", "c"], {"one": {"a": 0.0, "b": None}, "two": {"c": None}})
    nan = math.nan
    X = np.array([[0, nan, nan], [1, nan, nan], [0, 0, nan], [0, nan, 0], [nan, nan, nan], [-0.0, nan, nan]])
    assert evidence.lacking(X).tolist() == [True, False, False, False, False, True]
    assert not Evidence("t", ["a"], {}).lacking(X[:, :1]).any()
    assert evidence.said() == {"views": ["one", "two"], "features": ["a", "b", "c"]}


EVERYONE = '''"""Will somebody, customer or not, order within 30 days?"""

from foretell import Label, PredictionTask, _, days

anybody = PredictionTask(
    name="anybody", population="orders_365d >= 0", horizon=days(30),
    label=Label(source="order_line", value=_.count() > 0), views=("orders", "cadence"),
    metric="log_loss", purpose="acquisition",
)
'''


@pytest.fixture
def anybody(mine: Callable[[], Project]) -> Project:
    """A task whose population has people who never ordered, of whom its views know nothing. Trained."""
    project = mine()
    (project.folder / "tasks").mkdir()
    (project.folder / "tasks" / "anybody.py").write_text(EVERYONE)
    people = "".join(f"2024-06-2{n} 10:00:00,new{n}@example.org,,New,Oslo\n" for n in range(5))
    (project.exports / "crm" / "new.csv").write_text("registered_at,email,card_no,first_name,city\n" + people)
    from fixtures_trained import load_all

    load_all(project)
    project = Project(project.folder)
    train(project, "anybody", trials=0)
    return project


def test_in_a_batch_and_online(anybody: Project, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    project = anybody
    (found,) = score(project, ["anybody"])
    with session(project) as con:
        view = build.read(project, project.definitions.view("cadence"), project.now)
        never = f"SELECT profile_id FROM {view} WHERE order_days_ever = 0"
        nobody = {p for (p,) in con.execute(never).fetchall()}
        scored = dict(con.execute("SELECT profile_id, percentile FROM scores WHERE task = 'anybody'").fetchall())
        everyone = con.execute(f"SELECT count(*) FROM {view}").fetchall()[0][0]
    assert len(nobody) >= 5
    assert found.insufficient == len(nobody)
    assert (found.eligible, found.added) == (everyone, everyone - len(nobody))
    assert found.lacking == ("orders", "cadence")
    assert not nobody & scored.keys()
    assert max(scored.values()) == 100.0
    assert min(scored.values()) > 0
    last = batch.last(project, "anybody")
    assert last is not None
    assert set(last.values()["profile_id"]) == scored.keys()
    assert len(last.crowd()) == len(scored)
    who = min(nobody)
    assert last.value_of(who) == [None]
    with pytest.raises(Insufficient, match="anybody: insufficient evidence: no fact of the profile is known to orders"):
        score_one(project, "anybody", who)
    index = Index(project)
    page = index.pages([who])[who]
    assert ("anybody" in page["eligible"], page["insufficient"]) == (False, ["anybody"])
    assert index.tasks["anybody"].facts["batch"]["empty"] == last.empty
    index.close()
    engine = Engine(project.folder)
    engine.refresh()
    with TestClient(api.make(engine)[1]) as client:
        said = client.post("/v1/scores", json={"profiles": [who], "tasks": ["anybody"]}).json()["results"][0]
        assert said["scores"] == []
        assert "insufficient evidence: no fact of the profile is known to orders" in said["problems"][0]["problem"]
        answer = client.get(f"/v1/profiles/{who}/scores?task=anybody")
        assert (answer.status_code, answer.json()["error"]["problem"]) == (409, said["problems"][0]["problem"])
    engine.stop()
    monkeypatch.setattr("sys.argv", ["foretell", "--project", str(project.folder), "score", "anybody"])
    with suppress(SystemExit):
        program.main()
    out = capsys.readouterr().out
    assert (
        f"- {len(nobody)} have no score of anybody, insufficient evidence: no fact of theirs is known to orders" in out
    )
    for file in table(project, "scores").files():  # nowhere, not even as no number
        values = duckdb.execute(f"SELECT value FROM '{file}' WHERE task = 'anybody'").fetchnumpy()["value"]
        assert np.isfinite(values).all()


def test_who_has_no_row_is_not_scored(anybody: Project) -> None:
    """A view without a row of somebody: nothing is known of them, not even that they did nothing."""
    project = anybody
    task = project.definitions.task("anybody")
    dataset.build_for(project, [task], [project.now])
    score(project, ["anybody"])
    before = batch.last(project, "anybody")
    assert before is not None
    known = before.values()["profile_id"]  # read now: the next batch replaces the file
    who = known.min()
    file = build.file_of(project, project.definitions.view("cadence"), project.now)
    con = duckdb.connect()
    kept = con.execute(f"SELECT * FROM '{file}' WHERE profile_id <> ?", [who]).to_arrow_table()
    said = con.execute("SELECT value FROM parquet_kv_metadata(?) WHERE key = 'made_from'", [str(file)]).fetchall()
    con.register("kept", kept)
    con.execute(f"COPY kept TO '{file}' (FORMAT parquet, KV_METADATA {{made_from: '{said[0][0].decode()}'}})")
    (found,) = score(project, ["anybody"])
    assert found.added == 0
    last = batch.last(project, "anybody")
    assert last is not None
    assert last.value_of(who) == [None]
    assert len(last.values()) == len(known) - 1

"""What a monitor says: figures beside the exams, alerts in words, drift, who waits, and what is not compared."""

from __future__ import annotations

import json
import re
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from click.testing import CliRunner, Result
from conftest import START, make_shop, profiles_at, shop_facts
from fixtures_outcomes import as_if_trained, contract_of, write_scores

from foretell.__main__ import cli
from foretell.errors import NotReady, UnknownName
from foretell.project import Project
from lake.engine import session, table
from serving.consent import say
from serving.contract import SCHEMA
from serving.grade import grade
from serving.monitor import monitor
from serving.watched import Watched
from training import dataset
from training.drift import SCORE, reference
from training.expected import EXPECTED
from training.metrics import auc, log_loss

DAYS, MONTH = 400, timedelta(days=30)
CUTOFFS = [START + timedelta(days=200), START + timedelta(days=230), START + timedelta(days=260)]
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, dict[Any, pd.Series]]:
    """A shop of 300 people, and at each cutoff the labels of churn: cutoff -> label by profile."""
    facts = shop_facts(people=300, days=DAYS)
    project = make_shop(tmp_path_factory.mktemp("monitored") / "shop", facts=facts, days=DAYS)
    task, labels = project.definitions.task("churn"), {}
    with session(project) as con:
        for cutoff in CUTOFFS:
            labels[cutoff] = dataset.labels_at(con, project, task, cutoff).set_index("profile_id")["label"]
    return project, labels


def exam(n: int, shift: float = 0.0) -> dict[str, Any]:
    """An exam as good as what `honest` foretells, but for luck."""
    luck = 0.01 * np.sin(3.0 * n) + shift
    return {
        "cutoff": (CUTOFFS[0] - (7 - n) * MONTH).isoformat(), "rows": 300,
        "figures": {
            "auc": [0.87 + luck, 0.84, 0.9, 0.02], "log_loss": [0.45 + luck, 0.4, 0.5, 0.03],
            "bias": [luck, -0.03, 0.03, 0.02], "ece": [0.04 + abs(luck), 0.02, 0.06, 0.01],
        },
    }  # fmt: skip


def expected(X: pd.DataFrame | None = None, exams: int = 6, **other: Any) -> dict[str, Any]:
    """What such a model would have kept. X: features and scores that it learned from."""
    said: dict[str, Any] = {
        "kind": "probability", "metric": "log_loss", "horizon_days": 90.0, "judged_days": 90.0,
        "exams": [exam(n) for n in range(exams)], "figures": {"log_loss": [0.45, 0.42, 0.48]},
        "calibration": [{"bin": 1, "rows": 9, "share": 1.0, "predicted": 0.5, "actual": 0.5, "low": 0.4, "high": 0.6}],
    }  # fmt: skip
    if X is not None:
        rows = pd.DataFrame({"profile_id": [f"p{n}" for n in range(len(X))], "cutoff": pd.Timestamp(CUTOFFS[0])})
        said |= {"reference": reference(X, rows, {}), "weights": {"spend": 0.9, "idle": 0.1}}
    return json.loads(json.dumps({**said, **other}))


def honest(labels: pd.Series) -> np.ndarray:
    """Probabilities that come true, as good as the exams were."""
    rng = np.random.default_rng(len(labels))
    odds = rng.normal(np.where(labels > 0, 1.0, -1.0), 1.2)
    base = np.log(labels.mean() / (1 - labels.mean()))
    return 1 / (1 + np.exp(-(2 / 1.44 * odds + base)))


def features(n: int, shift: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(7)
    return pd.DataFrame({"spend": rng.gamma(2, 20, n) + shift, "idle": rng.normal(size=n)})


SCORED: dict[tuple[str, float], Path] = {}  # what was foretold, and the shift -> a shop scored and graded so


def watched(
    shop: tuple[Project, dict[Any, pd.Series]], folder: Path, monkeypatch: pytest.MonkeyPatch, *,
    made: Any = honest, shift: float = 0.0, kept: dict[str, Any] | None = None,
) -> Project:  # fmt: skip
    """A copy of the shop with three batches of made-up churn scores, graded. shift: of a feature, in the last one."""
    project, labels = shop
    usual = np.concatenate([made(known.sort_index()) for known in labels.values()])
    said = expected(features(len(usual)).assign(**{SCORE: usual})) if kept is None else kept
    task = project.definitions.task("churn")
    contract = {**contract_of(project, task), "estimator": "made_up", "metric": "log_loss"}
    as_if_trained(monkeypatch, {("churn", "1"): contract}, {EXPECTED: json.dumps(said)} if said else {})
    before = SCORED.get((made.__name__, shift))
    shutil.copytree(before or project.folder, folder)
    mine = Project(folder)
    if before:
        return mine
    for cutoff in CUTOFFS:
        known = labels[cutoff].sort_index()
        columns = features(len(known), shift if cutoff == CUTOFFS[-1] else 0.0)
        write_scores(
            mine, task, cutoff, known.index.tolist(), made(known).tolist(),
            features={name: columns[name].tolist() for name in columns},
        )  # fmt: skip
    grade(mine)
    SCORED[made.__name__, shift] = project.folder.parent / f"{made.__name__}-{shift}"
    shutil.copytree(folder, SCORED[made.__name__, shift])
    return mine


def only(project: Project) -> Watched:
    (found,) = monitor(project, ["churn"]).watched
    return found


def foretell(project: Project, *words: str) -> Result:
    return CliRunner().invoke(cli, ["--project", str(project.folder), *words])


def test_a_model_that_keeps_its_promise(shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = watched(shop, tmp_path / "p", monkeypatch)
    found = monitor(project)
    (of,) = found.watched
    assert found.alerts == ()
    assert [g.cutoff for g in of.graded] == CUTOFFS
    for g, cutoff in zip(of.graded, CUTOFFS, strict=True):
        labels = shop[1][cutoff].sort_index()
        assert len(g.y) == len(labels)
        assert g.verdicts["auc"].live.value == pytest.approx(auc(labels, honest(labels), g.weight), abs=1e-9)
        assert g.verdicts["log_loss"].live.value == pytest.approx(log_loss(labels, honest(labels), g.weight), abs=1e-9)
        assert g.verdicts["bias"].live.value == pytest.approx(g.foretold - g.came)
    assert {g.state for g in of.graded} <= {"within", "outside"}
    done = foretell(project, "monitor", "--fail", "--html", str(tmp_path / "page.html"))
    assert done.exit_code == 0, done.output
    assert "No alert: 1 task looked at." in done.output
    row = r"^\* log_loss +0\.\d+ \[.*\] +0\.4\d+ \[0\.42, 0\.48\] +0\.\d+ … 0\.\d+ +within"
    assert re.search(row, done.output, re.MULTILINE)
    page = (tmp_path / "page.html").read_text()
    assert page.count("<img alt=") == 4
    assert "No alert" in page
    assert not re.search(r"p[0-9a-f]{20}", page + done.output), "it names somebody"


def too_much(labels: pd.Series) -> np.ndarray:
    return 0.5 + honest(labels) / 2 * 0.99


def no_skill(labels: pd.Series) -> np.ndarray:
    return np.random.default_rng(1).permutation(honest(labels))


def test_a_model_that_foretells_too_much_is_an_alert(shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = watched(shop, tmp_path / "p", monkeypatch, made=too_much)
    found = monitor(project)
    by_level = [a for a in found.alerts if a.what == "bias"]
    assert len(by_level) == 1
    assert re.search(r"it foretold \d\d\.\d% on average at 2024-09-17, and \d\d\.\d% came", by_level[0].problem)
    assert "`foretell train churn`" in by_level[0].fix
    assert "percentiles" in by_level[0].fix
    done = foretell(project, "monitor", "--fail")
    assert done.exit_code == 1
    assert "ALERT churn v1: it foretold" in done.output
    assert foretell(project, "monitor").exit_code == 0


def test_a_model_that_lost_its_skill_is_an_alert(shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = monitor(watched(shop, tmp_path / "p", monkeypatch, made=no_skill))
    assert [a.what for a in found.alerts if a.what == "log_loss"] == ["log_loss"]
    assert "is more than chance and season explain" in found.alerts[0].problem


def test_a_feature_that_jumps_is_an_alert(shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = watched(shop, tmp_path / "p", monkeypatch, shift=100.0)
    found = monitor(project)
    assert [a.what for a in found.alerts] == ["spend"]
    assert "by spend (PSI" in found.alerts[0].problem
    levels = [{d.column: d.level for d in b.drifts} for b in only(project).batches]
    assert [level["spend"] for level in levels] == ["", "", "alert"]


def test_who_waits_and_until_when(shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = watched(shop, tmp_path / "p", monkeypatch)
    at = START + timedelta(days=350)
    write_scores(project, project.definitions.task("churn"), at, sorted(set(profiles_at(project, at).values())),
                 RNG.random(len(set(profiles_at(project, at).values()))).tolist())  # fmt: skip
    of = only(project)
    assert [(w.cutoff, w.until, w.why) for w in of.waiting] == [(at, at + timedelta(days=91), "")]
    said = foretell(project, "monitor").output
    assert f"{of.waiting[0].scores:,} scores of 1 cutoff wait for their outcome: until 2025-03-17." in said


def test_scores_of_a_segment_only_are_not_compared(shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their percentiles are those among everyone eligible, which these are not."""
    project = watched(shop, tmp_path / "p", monkeypatch)
    stored = table(project, "scores")
    with session(project) as con:
        rows = con.execute("SELECT * FROM scores WHERE percentile > 50").to_arrow_table().to_pylist()
    shutil.rmtree(stored.path)
    stored.append(pa.Table.from_pylist(rows, SCHEMA), why="test")
    of = only(project)
    assert of.graded == ()
    assert of.batches == ()
    assert any("the members of a segment only" in note for note in of.notes)


def test_who_withdrew_after_the_grade_is_left_out(shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = watched(shop, tmp_path / "p", monkeypatch)
    before = only(project).graded[0]
    with session(project) as con:
        someone = con.execute("SELECT profile_id FROM outcomes ORDER BY 1 LIMIT 1").fetchall()[0][0]
    say(project, someone, "retention", False)
    after = only(project).graded[0]
    assert (len(before.y) - len(after.y), after.left_out) == (1, 1)
    assert "left out: their people have withdrawn consent since" in foretell(project, "monitor").output


@pytest.mark.parametrize(
    ("kept", "says"),
    [
        (expected(exams=2), "It sat fewer than 3 exams"),
        (expected(judged_days=30.0), "it was examined on 30 days and foretells 90"),
        ({}, "exams are not kept"),
    ],
    ids=["two exams", "stretched", "nothing kept"],
)
def test_what_cannot_be_compared_says_why(
    shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: dict[str, Any], says: str
) -> None:
    project = watched(shop, tmp_path / "p", monkeypatch, kept=kept)
    of = only(project)
    assert {g.state for g in of.graded} == {"unknown"}
    assert monitor(project).alerts == ()
    assert says.lower() in foretell(project, "monitor").output.lower()
    assert any("drift is told from its first batch" in note for note in of.notes)
    assert [b.cutoff for b in of.batches] == CUTOFFS[1:]
    done = foretell(project, "monitor", "--html", str(tmp_path / "page.html"))
    assert done.exit_code == 0


def test_an_older_model_is_compared_by_the_tables_of_its_run(
    shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = watched(shop, tmp_path / "p", monkeypatch)
    each = pd.DataFrame([
        {"cutoff": e["cutoff"], "model": model, "metric": m, "value": e["figures"][m][0]}
        for e in map(exam, range(6)) for m in ("auc", "log_loss") for model in ("made_up", "other")
    ])  # fmt: skip
    means = pd.DataFrame([
        {"model": model, "metric": m, "value": v, "low": v - 0.02, "high": v + 0.02}
        for m, v in (("auc", 0.87), ("log_loss", 0.45)) for model in ("made_up", "other")
    ])  # fmt: skip
    contract = {
        **contract_of(project, project.definitions.task("churn")), "estimator": "made_up", "metric": "log_loss",
    }  # fmt: skip
    tables = {"evaluation.csv": means.to_csv(index=False), "by_cutoff.csv": each.to_csv(index=False)}
    as_if_trained(monkeypatch, {("churn", "1"): contract}, tables)
    of = only(project)
    assert of.exams["log_loss"][0].spread == pytest.approx(0.04 / 3.92 * np.sqrt(6))
    assert {g.verdicts["log_loss"].state for g in of.graded} <= {"within", "outside"}
    assert {g.verdicts["bias"].state for g in of.graded} == {"unknown"}
    assert any("before the spread of its exams was kept" in note for note in of.notes)


def test_a_newer_version_in_use_is_named(shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = watched(shop, tmp_path / "p", monkeypatch, made=no_skill)
    contract = contract_of(project, project.definitions.task("churn"))
    as_if_trained(monkeypatch, {("churn", "1"): contract, ("churn", "2"): contract}, {EXPECTED: json.dumps(expected())})
    found = monitor(project)
    assert not found.watched[0].in_use
    assert "v2 is in use since" in found.alerts[0].fix
    assert "churn v1, not in use any more" in foretell(project, "monitor").output


def test_before_the_first_score(shop, tmp_path: Path) -> None:
    with pytest.raises(NotReady, match="nothing has been scored yet"):
        monitor(shop[0])
    with pytest.raises(UnknownName, match='did you mean "churn"'):
        monitor(shop[0], ["chrun"])

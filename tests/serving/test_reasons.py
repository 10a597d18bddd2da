"""Reasons go to those who need them, and are those that everybody would get; the others' are asked for later."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest
from fixtures_trained import NOW, mine, trained
from test_score import rows_of

from foretell import __main__ as program
from foretell.errors import DataError, UnknownName
from foretell.project import Project
from segments.audience import audience
from serving import reasons
from serving.explain import explain
from serving.profile import page, show
from serving.reasons import Chosen, choose
from serving.score import score

__all__ = ["mine", "trained"]


def of_now(project: Project, task: str, cutoff: object) -> dict[str, dict]:
    return {row["profile_id"]: row for row in rows_of(project, task) if row["cutoff"] == cutoff}


def test_the_top_of_each_task_or_the_members_of_a_segment(
    mine: Callable[[], Project], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    project, cutoffs = mine(), [NOW - timedelta(days=n) for n in (1, 2, 3)]
    tasks = ["churn", "clv"]
    for cutoff, said in zip(cutoffs, ("top:0.1", "none", "all"), strict=True):
        for found in score(project, tasks, cutoff, reasons=said):
            rows = of_now(project, found.task, cutoff)
            ordered = sorted(rows.values(), key=lambda row: (-row["value"], row["profile_id"]))
            count = {"top:0.1": math.ceil(0.1 * len(rows)), "none": 0, "all": len(rows)}[said]
            assert [row["reasons"] is not None for row in ordered] == [n < count for n in range(len(rows))]
            assert (found.added, found.reasons, found.said) == (len(rows), count, said)
    some = next(row for row in of_now(project, "churn", cutoffs[1]).values())
    assert explain(project, some["score_id"])["reasons"]
    members = set(audience(project, "city = 'Oslo'").members["profile_id"])
    everyone = of_now(project, "churn", NOW)
    assert {p for p, row in everyone.items() if row["reasons"] is None} == set()

    file = project.folder / "foretell.toml"
    later = NOW + timedelta(hours=1)
    file.write_text(file.read_text().replace(NOW.isoformat(), later.isoformat()))
    monkeypatch.setattr("sys.argv", [
        "foretell", "--project", str(project.folder), "score", *tasks, "--reasons", "city = 'Oslo'",
    ])  # fmt: skip
    with suppress(SystemExit):
        program.main()
    project = Project(project.folder)
    rows = of_now(project, "churn", later)
    inside = {p for p, row in rows.items() if row["reasons"] is not None}
    assert inside == members & rows.keys()
    assert 0 < len(inside) < len(rows)
    out = capsys.readouterr().out
    assert "(--reasons city = 'Oslo'); `foretell score explain ID` says any other's" in out
    outside = min(rows.keys() - inside)
    show(page(project, outside))
    assert "; `foretell score explain` with it says why" in capsys.readouterr().out


def test_what_cannot_be_meant_is_refused(trained) -> None:
    project = trained.project
    for text in ("top:", "top:0", "top:1.5", "top:x", "top:nan"):
        with pytest.raises(DataError, match="expected a share above 0 and up to 1 after top:"):
            choose(project, text, 100)
    with pytest.raises(UnknownName, match='did you mean "osloers"'):
        choose(project, "oslers", 100)
    with pytest.raises(DataError, match="members are those of now"):
        score(project, ["churn"], NOW - timedelta(days=9), reasons="osloers")


def test_many_get_the_top_only_unless_it_is_said(trained, monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose(trained.project, None, reasons.FEW) == Chosen("all", 1.0)
    assert choose(trained.project, None, reasons.FEW + 1) == Chosen("top:0.05", 0.05)
    assert choose(trained.project, "all", 10**9).share == 1


def test_of_equal_values_the_first_are_taken() -> None:
    profiles = pa.array(["p1", "p2", "p3", "p4", "p5"])
    values = np.array([1.0, 3.0, 2.0, 2.0, 2.0])
    assert Chosen("top:0.4", 0.4).among(profiles, values).tolist() == [1, 2]
    assert Chosen("top:0.41", 0.41).among(profiles, values).tolist() == [1, 2, 3]
    assert Chosen("none").among(profiles, values).tolist() == []
    assert Chosen("none").nobody
    of_two = Chosen("s", members=pa.array(["p5", "p1", "nobody"]))
    assert of_two.among(profiles, values).tolist() == [0, 4]
    assert not of_two.nobody

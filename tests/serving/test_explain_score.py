"""Any score comes out again from its id: the same bits from its row, and its row from the facts, or what changed."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest
from fixtures_trained import NOW, TASKS, TrainedShop, load_all, mine, trained

from foretell import __main__ as program
from foretell.errors import NotReady, UnknownName
from foretell.project import Project
from lake.engine import last_batch, session
from models.registry import champion, quietly
from serving.explain import explain
from serving.rebuild import rebuilt
from serving.score import score
from serving.stored import find, rescored
from training.champion import train
from unification.decisions import decide
from unification.identity import resolve, unify

__all__ = ["mine", "trained"]

LATER = NOW + timedelta(days=3)


def ids_of(project: Project, where: str = "true") -> list[str]:
    with session(project) as con:
        return [i for (i,) in con.execute(f"SELECT score_id FROM scores WHERE {where} ORDER BY 1").fetchall()]


def a_while_later(project: Project, at: object = LATER) -> Project:
    file = project.folder / "foretell.toml"
    text = file.read_text()
    now = next(line for line in text.splitlines() if line.startswith("as_of"))
    file.write_text(text.replace(now, f'as_of = "{at.isoformat()}"'))  # type: ignore[attr-defined]
    return Project(project.folder)


def more_rows(project: Project, source: str, rows: list[dict[str, str]]) -> None:
    first = next((project.exports / source).glob("*.csv"))
    with first.open(newline="") as stream:
        header = next(csv.reader(stream))
    with (first.parent / f"more-{len(list(first.parent.iterdir()))}.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, header, restval="")
        writer.writeheader()
        writer.writerows(rows)
    load_all(project)
    unify(project)


def test_a_score_says_where_it_comes_from(trained: TrainedShop) -> None:
    project, facts = trained.project, 0
    for task in TASKS:
        score_id = ids_of(project, f"task = '{task}'")[7]
        found = explain(project, score_id)
        assert found["score"]["score_id"] == score_id
        assert found["rescored"] == {"value": found["score"]["value"], "identical": True, "difference": 0.0}
        assert found["same_reasons"] is True
        assert found["reasons"] == found["score"]["reasons"]
        assert found["rebuilt"] == {
            "agrees": True, "problem": None, "then": [], "today": [], "batch": last_batch(project),
        }  # fmt: skip
        assert [one["feature"] for one in found["behind"]] == [reason["feature"] for reason in found["reasons"]]
        for reason, one in zip(found["reasons"], found["behind"], strict=True):
            if one["problem"]:  # of what others buy
                assert "everybody's facts" in one["problem"]
            elif isinstance(one["value"], int | float):
                assert one["value"] == pytest.approx(reason["value"])
            assert one["facts"] or not one.get("behind")
            facts += len(one["facts"])
    assert facts > 0


def test_reasons_that_were_not_asked_for_are_said_later(mine: Callable[[], Project]) -> None:
    project = a_while_later(mine())
    said = score(project, ["churn"], reasons="none")[0]
    assert (said.reasons, said.said) == (0, "none")
    score_id = ids_of(project, f"task = 'churn' AND cutoff = TIMESTAMPTZ '{LATER.isoformat()}'")[3]
    found = explain(project, score_id)
    assert found["score"]["reasons"] is None
    assert found["same_reasons"] is None
    assert found["reasons"]


def test_an_id_that_is_none_says_what_ids_look_like(trained: TrainedShop, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match=r"churn: no score has this id; an id is 32 hexadecimal digits: `foretell pr"):
        explain(trained.project, "churn")
    (tmp_path / "foretell.toml").write_text("[foretell]\n")
    with pytest.raises(NotReady, match="nothing has been scored yet; run `foretell score` first"):
        explain(Project(tmp_path), "0" * 32)


def test_the_command_line(
    trained: TrainedShop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def foretell(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["foretell", "--project", str(trained.project.folder), *words])
        status = 0
        try:
            program.main()
        except SystemExit as stop:
            status = int(stop.code or 0)
        said = capsys.readouterr()
        return status, said.out, said.err

    score_id = ids_of(trained.project, "task = 'clv'")[0]
    status, out, _ = foretell("score", "explain", score_id)
    assert status == 0
    for part in ("clv ", "The model says the same of the stored row, to the last bit.", "facts are behind it",
                 "The row comes out of the facts of its batch again."):  # fmt: skip
        assert part in out
    status, out, _ = foretell("score", "explain", score_id, "--json")
    assert status == 0
    assert json.loads(out)["score"]["score_id"] == score_id
    status, out, _ = foretell("score", "explain", "--help")
    assert (status, "Explain the score of an ID" in out) == (0, True)
    status, _, err = foretell("score", "explain", "nonsense")
    assert (status, "no score has this id" in err) == (2, True)
    status, _, err = foretell("score", "explain")
    assert (status, "Missing argument 'ID'" in err) == (2, True)


def test_what_came_in_late_is_named(mine: Callable[[], Project]) -> None:
    """A sale of before the cutoff, and a link of before it, both loaded since."""
    project = mine()
    with session(project) as con:
        profile = resolve(con, project, "card:40000003")
        other = resolve(con, project, "card:40000006")
    score_ids = {p: ids_of(project, f"task = 'churn' AND profile_id = '{p}'") for p in (profile, other)}
    assert all(len(ids) == 1 for ids in score_ids.values())
    sold = NOW - timedelta(days=9)
    more_rows(project, "till", [
        {"receipt": "late1", "sold_at": f"{sold:%Y-%m-%d %H:%M:%S}", "card_no": "40000003", "amount": "77.70",
         "quantity": "1", "sku": "sku1"},
    ])  # fmt: skip
    found = explain(project, score_ids[profile][0])["rebuilt"]
    assert found["agrees"]  # of its own batch
    changed = {c["feature"]: c for c in found["today"]}
    assert changed["spend_30d"]["now"] == pytest.approx((changed["spend_30d"]["was"] or 0) + 77.70)
    assert changed["spend_30d"]["why"] == ["1 facts of till from before the cutoff came in later"]
    assert {c["feature"] for c in explain(project, score_ids[other][0])["rebuilt"]["today"]} <= {
        f for v in project.definitions.views.values() if v.facts_of == "everybody" for f in v.features
    }
    linked = NOW - timedelta(days=5)
    more_rows(project, "crm", [
        {"registered_at": f"{linked:%Y-%m-%d %H:%M:%S}", "email": "both@example.org", "card_no": card}
        for card in ("40000003", "40000006")
    ])  # fmt: skip
    both = [rebuilt(project, find(project, ids))[ids[0]] for ids in score_ids.values()]
    gone = [one for one in both if one.problem]
    (stays,) = [one for one in both if not one.problem]
    assert len(gone) == 1
    assert "is part of p" in gone[0].problem
    assert any("facts of crm from before the cutoff" in cause for c in stays.today for cause in c.why)
    assert all(c.why for c in stays.today)


@pytest.mark.slow
def test_a_thousand_old_scores_after_trainings_a_merge_and_its_end(mine: Callable[[], Project]) -> None:
    project = mine()
    for back in (20, 40):  # more than a thousand scores, of three cutoffs
        score(project, list(TASKS), NOW - timedelta(days=back))
    ids = ids_of(project)
    assert len(ids) > 1_000
    before = find(project, ids)

    project = a_while_later(project)
    for again in (2, 3):
        for task in TASKS:
            assert train(project, task, trials=0).version == str(again)
    more_rows(project, "crm", [
        {"registered_at": f"{NOW + timedelta(days=1):%Y-%m-%d %H:%M:%S}", "email": "two@example.org", "card_no": card}
        for card in ("40000009", "40000012")
    ])  # fmt: skip
    with session(project) as con:
        assert resolve(con, project, "card:40000009") == resolve(con, project, "card:40000012")
    score(project, list(TASKS))
    decide(project, "unlink", "email:two@example.org", "card:40000009", "two people")
    unify(project)
    with session(project) as con:
        assert resolve(con, project, "card:40000009") != resolve(con, project, "card:40000012")

    assert quietly(lambda: champion(project, "churn")).version == "3"
    drawn = dict.fromkeys(Random(1).sample(ids, 1_000))
    found = find(project, list(drawn))
    assert [repr(found[i]) for i in drawn] == [repr(before[i]) for i in drawn]
    assert {row["task"] for row in found.values()} == set(TASKS)
    again = rescored(project, found)
    assert [i for i in drawn if not again[i].identical] == []
    assert [i for i in drawn if again[i].reasons != found[i]["reasons"]] == []
    rows = rebuilt(project, found)
    assert [i for i in drawn if not rows[i].agrees and not all(c.why for c in rows[i].then)] == []
    assert [i for i in drawn if not all(c.why for c in rows[i].today)] == []
    assert sum(rows[i].agrees for i in drawn) == 1_000
    for i in list(drawn)[:20]:
        assert rescored(project, {i: replace_value(found[i])})[i].identical is False


def replace_value(row: dict) -> dict:
    """The same score with another value: it must not pass."""
    return {**row, "value": row["value"] * (1 + 1e-15) + 1e-17}

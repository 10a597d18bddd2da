"""Only what a rule reads is made, and it is the same as if everything were: attributes, and ranks by threshold."""

from __future__ import annotations

from datetime import timedelta
from random import Random

import duckdb
import pandas as pd
import pytest
from conftest import START
from fixtures_segments import TASKS, at, score, scored_shop

from foretell.project import Project
from lake.consent import say
from lake.engine import session, table
from segments import attributes
from segments.predicate import parse
from segments.ranking import thresholds

KINDS = {
    "whole": "(random() * 7)::INTEGER", "number": "random()", "few": "round(random(), 1)::DECIMAL(6, 2)",
    "odd": "CASE (random() * 5)::INTEGER WHEN 0 THEN 'NaN'::DOUBLE WHEN 1 THEN 'inf'::DOUBLE WHEN 2 THEN -0.0 "
    "ELSE random() END",
    "day": "DATE '2024-01-01' + (random() * 9)::INTEGER",
    "moment": "TIMESTAMPTZ '2024-01-01' + to_microseconds((random() * 1e15)::BIGINT)",
    "nobody": "NULL::DOUBLE", "same": "1",
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_threshold_chooses_whom_sorting_chooses(kind: str) -> None:
    """For all types that can be ranked, with ties and missing values, from almost nobody to everybody."""
    with duckdb.connect() as con:
        con.execute(f"SET TimeZone='UTC'; SELECT setseed({(list(KINDS).index(kind) + 1) / 10})")
        con.execute(
            f"""CREATE TABLE attributes AS SELECT 'p' || hash(i) AS profile_id,
                CASE WHEN random() < 0.8 THEN {KINDS[kind]} END AS x FROM range(337) t(i)"""
        )
        shares = ("0.000000001", "0.01", "0.1", "0.25", "0.3333", "0.5", "0.9", "0.999", "1")
        rules = [parse(f"{best}(x, {share})") for best in ("top", "bottom") for share in shares]
        rules.append(parse("not top(x, 0.2) and (bottom(x, 0.5) or x is null)"))
        ranks = thresholds(con, rules)
        for rule in rules:
            one, other = rule.condition(), rule.condition(ranks=ranks)
            assert "SELECT" not in other
            differ = f"SELECT count(*) FROM attributes WHERE ({one}) IS DISTINCT FROM ({other})"
            assert con.execute(differ).fetchall()[0][0] == 0, rule


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Scored often, early and late: by several versions, under ids that have merged since, for refused purposes.

    Not to be changed.
    """
    project = scored_shop(tmp_path_factory.mktemp("lean") / "shop")
    with pytest.MonkeyPatch.context() as patched:
        for days in (150, 300, 380):
            score(at(project, START + timedelta(days=days), patched), days=400)
        score(at(project, START + timedelta(days=380), patched), model_version="12", days=400)
        score(at(project, START + timedelta(days=390), patched), task="past", purpose="", days=2)
        score(at(project, START + timedelta(days=395), patched), task="churn", purpose="email", days=400)
    score(project, task="old")
    moved = Project(project.folder)
    with session(moved) as con:
        nodes = [
            n for (n,) in con.execute("SELECT node FROM member WHERE node LIKE 'loyalty_card:%' ORDER BY 1").fetchall()
        ]
    for node in Random(1).sample(nodes, 12):
        say(moved, node, Random(node).choice(["email", "retention"]), False)
    return moved


def wide(project: Project, columns: list[str] | None = None) -> pd.DataFrame:
    with session(project) as con:
        found = attributes.known(con, project)
        found.create(columns)
        listed = ", ".join(
            f'"{c}"' for c in dict.fromkeys(["profile_id", *(found.schema if columns is None else columns)])
        )
        return con.execute(f"SELECT {listed} FROM attributes ORDER BY profile_id").df()


def test_scores_are_the_latest_live_ones_of_whoever_a_profile_has_become(shop: Project) -> None:
    """Held to the exact query, one profile at a time."""
    everyone = wide(shop).set_index("profile_id")
    assert "past" not in everyone.columns
    moved = set()
    with session(shop) as con:
        gone = "SELECT DISTINCT profile_id FROM scores WHERE profile_id NOT IN (SELECT profile_id FROM profiles)"
        moved = {p for (p,) in con.execute(gone).fetchall()}
        for profile in everyone.index:
            exact = {s["task"]: s for s in attributes.scores_of(con, shop, profile)}
            for task in (*TASKS, "old"):
                value, percentile = everyone.loc[profile, [task, f"{task}_percentile"]]
                if task in exact:
                    assert (value, percentile) == (exact[task]["value"], exact[task]["percentile"])
                else:
                    assert pd.isna(value)
                    assert pd.isna(percentile)
    assert len(moved) > 5
    assert everyone["churn"].isna().sum() > 2


@pytest.mark.parametrize("seed", range(6))
def test_any_choice_of_columns_is_a_part_of_the_whole(shop: Project, seed: int) -> None:
    whole = wide(shop)
    names = [name for name in whole.columns if name != "profile_id"]
    some = Random(seed).sample(names, [1, 2, 5, 9, 30, 0][seed])
    pd.testing.assert_frame_equal(wide(shop, some), whole[["profile_id", *some]])


def test_what_is_not_asked_for_is_not_read(shop: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    with session(shop) as con:
        found = attributes.known(con, shop)
        monkeypatch.setattr(attributes.Attributes, "_latest", lambda *_: pytest.fail("no score was asked for"))
        found.create({"city", "orders_365d", "consent_email"})
        made = [name for name, *_ in con.execute("DESCRIBE attributes").fetchall()]
    assert made == ["profile_id", "city", "orders_365d", "consent_email"]
    assert table(shop, "scores").exists


def test_the_tree_of_a_rule() -> None:
    rule = parse("a > 1 and (b = 'x' or not top(c, 0.5)) and d is not null and e between 1 and 2 and not (f and g)")
    assert [p.text for p in rule.parts] == [
        "a > 1", "b = 'x' OR NOT top(c, 0.5)", "d IS NOT NULL", "e BETWEEN 1 AND 2", "NOT (f AND g)",
    ]  # fmt: skip
    assert [p.operator for p in rule.parts] == ["", "or", "", "", "not"]
    assert [p.text for p in rule.parts[1].parts] == ["b = 'x'", "NOT top(c, 0.5)"]
    assert [p.columns for p in rule.parts[4].parts] == [{"f", "g"}]
    assert [r.attribute for r in rule.ranks] == ["c"]
    assert parse("((a > 1))").operator == ""
    assert parse("a > 1").parts == []
    whole, parts = rule.condition(), [p.condition() for p in rule.parts]
    assert whole == " AND ".join(f"({part})" for part in parts)

"""What is published is what is known: who is who by the same rules, everyone's page, and each task's last batch."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import duckdb
import numpy as np
import pytest
from fixtures_trained import NOW, TrainedShop, mine, trained
from hypothesis import given, settings
from hypothesis import strategies as st

from foretell.errors import ForetellError, NotReady, UnknownName
from foretell.project import Project
from ingestion.normalise import identifier, plain
from lake.engine import session
from serving import batch, publish
from serving.http.index import Index, file_of
from serving.profile import page
from serving.score import score
from unification.identity import resolve

__all__ = ["mine", "trained"]

PIECES = [
    "jo@home.org", "TEST@x.org", "unknown@", "no-reply@", "0", "00", "1", "001", "+1", "2125550103", "-", "-1", " ",
    "@", ".", "null", "N/A", "a", "Z", "(", ")", "?", "'", '"', "\\", "$", "card:", "email:",
]  # fmt: skip
written = st.lists(st.sampled_from(PIECES), max_size=6).map("".join) | st.text(
    st.characters(min_codepoint=32, max_codepoint=126), max_size=20
)


@settings(max_examples=60, deadline=None)
@given(values=st.lists(written, min_size=1, max_size=40))
def test_one_value_is_normalised_as_a_column_is(values: list[str]) -> None:
    for kind in ("email", "phone", "loyalty_card", "customer_no"):
        query = f"SELECT {identifier(kind, 'v')} FROM (SELECT unnest(?::VARCHAR[]) AS v)"
        assert [n for (n,) in duckdb.execute(query, [values]).fetchall()] == [plain(kind, v) for v in values]


@pytest.fixture(scope="module")
def index(trained: TrainedShop) -> Iterator[Index]:
    made = Index(trained.project)
    yield made
    made.close()


def test_resolves_as_unification_does(index: Index, trained: TrainedShop) -> None:
    with session(trained.project) as con:
        nodes = [n for (n,) in con.execute("SELECT DISTINCT node FROM member ORDER BY 1").fetchall()]
        births = [b for (b,) in con.execute("SELECT DISTINCT birth_id FROM member ORDER BY 1").fetchall()]
        asked = [*nodes[::7], *(n.partition(":")[2] for n in nodes[::7]), *births[::7]]
        asked += [n.upper() for n in nodes[::11]] + [f" {n.partition(':')[2]} " for n in nodes[::11]]
        asked += [
            "",
            ":",
            "email:",
            "card:",
            "x:y",
            "nobody",
            "0",
            "p",
            "émile@exämple.org",
            "CARD:40000001",
            "\x00",
            "\n",
        ]
        expected = []
        for text in asked:
            try:
                expected.append(resolve(con, trained.project, text))
            except UnknownName as error:
                expected.append(str(error))
    found = index.resolve(asked)
    assert [str(f) for f in found] == expected
    assert sum(isinstance(f, ForetellError) for f in found) < len(asked) / 2


def test_a_value_that_means_two_people_is_refused(trained: TrainedShop) -> None:
    index = Index(trained.project)
    one, two = index.resolve(["card:40000001", "card:40000002"])
    index.close()
    who = sqlite3.connect(":memory:")
    index._free.append(who)
    who.execute("CREATE TABLE who (key TEXT, profile_id TEXT)")
    who.executemany("INSERT INTO who VALUES (?, ?)", [("card:7", one), ("email:7", two), ("phone:1234567", one)])
    index.kinds = ["card", "phone"]
    assert index.resolve(["7"]) == [one]
    index.kinds = ["card", "customer_no"]
    who.execute("INSERT INTO who VALUES ('customer_no:7', ?)", [two])
    (error,) = index.resolve(["7"])
    assert isinstance(error, UnknownName)
    assert error.problem.startswith("means 2 profiles (p")
    assert error.fix == "say which type: email:…, phone:…"
    assert index.resolve(["card:7", "customer_no:7"]) == [one, two]


def test_everyones_page_is_the_one_of_the_command_line(index: Index, trained: TrainedShop) -> None:
    with session(trained.project) as con:
        profiles = [p for (p,) in con.execute("SELECT profile_id FROM profiles ORDER BY 1").fetchall()]
    pages = index.pages(profiles)
    assert pages.keys() == set(profiles)
    for profile in profiles[::40]:
        known, found = page(trained.project, profile), pages[profile]
        assert found["segments"] == known["segments"]
        assert found["former_ids"] == known["former_ids"]
        assert found["eligible"] == [s["task"] for s in known["scores"]]
        for part, at in (("traits", "known_at"), ("identifiers", "known_since")):
            stamped = [{**row, at: f"{row[at]:%Y-%m-%dT%H:%M:%S.%f}Z"} for row in known[part]]
            assert found[part] == stamped


def test_the_batch_is_the_crowd(index: Index, trained: TrainedShop) -> None:
    for task in trained.trained:
        last = batch.last(trained.project, task)
        assert last is not None
        with session(trained.project) as con:
            values = con.execute("SELECT value FROM scores WHERE task = ? ORDER BY value", [task]).df()["value"]
        np.testing.assert_array_equal(index.crowds[task], values.to_numpy())
        assert index.tasks[task].cutoff == last.cutoff == NOW


def test_an_earlier_cutoff_does_not_replace_the_last_batch(mine: Callable[[], Project]) -> None:
    project = mine()
    before = batch.last(project, "churn")
    score(project, ["churn"], NOW - timedelta(days=30))
    assert batch.last(project, "churn") == before
    assert Index(project).tasks["churn"].cutoff == NOW


def test_replaced_whole_or_not_at_all(
    mine: Callable[[], Project], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    project = mine()
    file = file_of(project)
    before, reader = file.read_bytes(), Index(project)
    monkeypatch.setattr(publish, "_write_profiles", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        publish.publish(project)
    assert file.read_bytes() == before
    assert os.listdir(file.parent) == [file.name]
    monkeypatch.undo()
    publish.publish(project)
    assert reader.published_at < Index(project).published_at
    assert reader.resolve(["card:40000001"])  # who reads the old one may go on


def test_before_anything_is_published(tmp_path: Path) -> None:
    (tmp_path / "foretell.toml").write_text("[foretell]\n")
    with pytest.raises(NotReady, match="nothing has been published yet; run `foretell score` first"):
        Index(Project(tmp_path))
    with pytest.raises(NotReady, match="run `foretell load` and `foretell unify` first"):
        publish.publish(Project(tmp_path))

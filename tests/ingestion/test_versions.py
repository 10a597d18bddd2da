"""A contract's key: a row that changes counts once, as it was known then, in features and in labels."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from systems import Sqlite, make_project, order

from features.build import facts_before
from foretell.errors import DefinitionError
from foretell.project import Project
from ingestion.load import Loaded, load
from lake.engine import session
from unification.identity import unify


def spent(project: Project, at: datetime) -> dict[str, float]:
    with session(project) as con:
        known = facts_before(con, project, "orders", at, at)
        return {
            who: float(total)
            for who, total in con.execute(f"SELECT node, sum(amount) FROM ({known}) GROUP BY 1").fetchall()
        }


def pull(project: Project) -> Loaded:
    (result,) = load(project, ["orders"])
    assert isinstance(result, Loaded), result
    unify(project)
    return result


def test_a_changed_row_counts_once_and_as_known_then(tmp_path: Path) -> None:
    system = Sqlite(tmp_path)
    system.put(order(5, amount="10.00"), order(10, amount="1.00"))
    project = make_project(tmp_path / "shop", system.connector(rows=100), key='"id"')
    pull(project)
    then = datetime.now(UTC)
    assert spent(project, then) == {"email:p0@x.org": 11.0}
    time.sleep(0.01)
    system.put(order(5, 100, amount="12.50"))
    assert pull(project).added == 1
    assert spent(project, datetime.now(UTC)) == {"email:p0@x.org": 13.5}
    assert spent(project, then) == {"email:p0@x.org": 11.0}  # what was known then does not change
    in_the_past = datetime(2024, 5, 2, tzinfo=UTC)  # the first version counts as known when it happened
    assert spent(project, in_the_past) == {"email:p0@x.org": 11.0}
    system.put(order(5, 200, amount="0.00", email="p1@x.org"))  # it turns out to be somebody else's
    pull(project)
    assert spent(project, datetime.now(UTC)) == {"email:p0@x.org": 1.0, "email:p1@x.org": 0.0}


def test_when_a_change_was_made_may_be_said_by_the_row(tmp_path: Path) -> None:
    """Then a first load already knows the past: versions that a change log keeps are told apart by their time."""
    system = Sqlite(tmp_path)
    system.run("CREATE TABLE log (id, email, amount, ordered_at, updated_at)")
    at = "2024-05-01 10:00:00"
    rows = [(1, "a@x.org", 5, at, at), (1, "a@x.org", 7, at, "2024-06-01 10:00:00"), (None, "a@x.org", 1, at, at)]
    system.run("INSERT INTO log VALUES (?, ?, ?, ?, ?)", rows)
    project = make_project(
        tmp_path / "shop", system.connector(table="log", rows=100), key='"id"', known_at='"updated_at"'
    )
    result = pull(project)
    assert result.reasons == ["table log:0: no key: id is empty"]
    day = timedelta(days=1)
    assert spent(project, datetime(2024, 6, 1, tzinfo=UTC)) == {"email:a@x.org": 5.0}
    assert spent(project, datetime(2024, 6, 1, tzinfo=UTC) + day) == {"email:a@x.org": 7.0}


def test_an_empty_key_is_refused(tmp_path: Path) -> None:
    project = make_project(tmp_path / "shop", Sqlite(tmp_path).connector(), key='" "')
    with pytest.raises(DefinitionError, match="key is an empty expression"):
        _ = project.definitions

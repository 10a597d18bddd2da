"""The Feast repository of a home: made from the definitions, of use to Feast's own command line, for every entity."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from conftest import MORE_SOURCES, START, make_shop, more_facts, shop_facts

from features import build
from features.store import repository
from features.store.online import open_store
from foretell.__main__ import cli
from foretell.project import Project
from foretell.windows import days
from lake.engine import session

CUTOFF = START + days(300)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("repository") / "shop"
    return make_shop(folder, facts=more_facts(shop_facts(people=25)), sources=MORE_SOURCES)


def run(project: Project, *words: str) -> str:
    done = CliRunner().invoke(cli, ["--project", str(project.folder), *words])
    assert done.exit_code == 0, done.output
    return done.output


def feast(project: Project, *words: str) -> str:
    """Feast's own command line in the home's repository."""
    command = [str(Path(sys.executable).with_name("feast")), "-c", str(project.home / "feast"), *words]
    root = str(Path(build.__file__).parents[1])
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, "PYTHONPATH": root}
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_apply_registers_every_view_once(shop: Project) -> None:
    said = run(shop, "features", "apply")
    sources = dict(shop.definitions.sources)
    versions = {build.versioned(view, sources) for view in shop.definitions.views.values()}
    assert {line[2:] for line in said.splitlines() if line.startswith("+ ")} == versions
    assert repository.versions(shop) == versions
    assert f"0 registered, {len(versions)} were there" in run(shop, "features", "apply")
    store = open_store(shop)
    orders = store.get_feature_view(build.versioned(shop.definitions.view("orders"), sources))
    described = {field.name: field.description for field in orders.schema}
    assert described["days_since_order"] == "since the last order (days, ever); null: no order yet"
    assert described["spend_90d"] == "spent, refunds deducted (money, 90 days)"


@pytest.mark.slow
def test_feast_has_its_own_command_line(shop: Project) -> None:
    """`feast apply` finds all that is registered in the repository's file, and so removes nothing."""
    run(shop, "features", "apply")
    before = repository.versions(shop)
    (shop.folder / "views").mkdir()
    (shop.folder / "views" / "extra.py").write_text(
        "from foretell import FeatureView, _\n\n"
        'extra = FeatureView(name="extra", source="order_line", features={"lines_ever": _.count()})\n'
    )
    listed = feast(shop, "feature-views", "list")
    assert all(version in listed for version in before)
    assert {"profile", "account", "category"} <= set(feast(shop, "entities", "list").split())
    feast(shop, "apply")
    (added,) = repository.versions(shop) - before
    assert added.startswith("extra__")
    (shop.folder / "views" / "extra.py").unlink()
    feast(shop, "apply")
    assert repository.versions(shop) == before | {added}


def test_rows_of_accounts_and_categories(shop: Project) -> None:
    """Through Feast's own point-in-time join, by the entity's keys."""
    project = Project(shop.folder)
    views = [project.definitions.view(name) for name in ("account_orders", "category_orders")]
    build.build(project, views, [CUTOFF])
    store = repository.apply(project, [], views)
    sources = dict(project.definitions.sources)
    for view in views:
        version = build.versioned(view, sources)
        with session(project) as con:
            rows = con.execute(f"SELECT * FROM {build.read(project, view, CUTOFF)}").df()
        asked = rows[[*view.keys]].head(20).assign(event_timestamp=pd.Timestamp(CUTOFF + days(1)))
        found = store.get_historical_features(asked, features=[f"{version}:{name}" for name in view.features]).to_df()
        keys = list(view.keys)
        found = found.sort_values(keys, ignore_index=True)[[*keys, *view.features]]
        expected = rows.head(20).sort_values(keys, ignore_index=True)[[*keys, *view.features]]
        pd.testing.assert_frame_equal(found, expected.astype(found.dtypes.to_dict()))
        assert len(found) == min(20, len(rows)) > 8


def test_a_row_of_an_account_is_that_of_its_people(shop: Project) -> None:
    """Held to a sum over the profiles: orders are of one person each here."""
    from unification import accounts

    project = Project(shop.folder)
    company, of_account = (project.definitions.view(name) for name in ("company", "account_orders"))
    with session(project) as con:
        mine = con.execute(build.rows_at(con, project, project.definitions.view("orders"), CUTOFF)).df()
        theirs = con.execute(build.rows_at(con, project, of_account, CUTOFF)).df()
        told = con.execute(build.rows_at(con, project, company, CUTOFF)).df().set_index("profile_id")
        people = con.execute(f"SELECT DISTINCT account_id, profile_id FROM ({accounts.members_at(CUTOFF)})").df()
    sums = people.merge(mine, on="profile_id").groupby("account_id")[["orders_90d", "spend_365d"]].sum()
    theirs = theirs.set_index("account_id")
    assert len(theirs) == len(sums) > 5
    pd.testing.assert_frame_equal(sums, theirs[["orders_90d", "spend_365d"]], check_dtype=False, check_names=False)
    for profile, accounts_of in people.groupby("profile_id")["account_id"]:
        first = theirs.loc[min(accounts_of)]
        assert told.loc[profile, "company_orders_90d"] == first["orders_90d"]
        assert told.loc[profile, "company_spend_365d"] == pytest.approx(first["spend_365d"])
    assert (told.loc[~told.index.isin(people["profile_id"]), "company_orders_365d"] == 0).all()


def test_list_tells_what_a_view_means(shop: Project) -> None:
    said = run(shop, "features", "list", "gaps")
    assert re_row(said, "median_gap_days_ever").endswith("float64")
    assert "fewer than two order days" in re_row(said, "median_gap_days_ever")
    assert " never " in re_row(run(shop, "features", "list", "orders"), "orders_90d")
    everything = run(shop, "features", "list")
    assert "message, redemption" in re_row(everything, "response")
    assert "profile_category" in re_row(everything, "category_orders")


def re_row(text: str, first: str) -> str:
    (line,) = [line for line in text.splitlines() if line.split()[:1] == [first]]
    return line

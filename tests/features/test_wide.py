"""Many people's features, read from the built files: to the last bit what Feast's point-in-time join gives."""

from __future__ import annotations

from datetime import datetime
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from conftest import MORE_SOURCES, START, make_shop, more_facts, shop_facts

from features import build
from features.store import repository
from features.wide import Wide, empty_row
from foretell.project import Project
from foretell.views import FeatureView
from foretell.windows import days, hours
from lake.engine import instant, session
from models.encoding import encode

NOBODY = ["p0000", "pzzzz"]  # before and after all others


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("wide") / "shop"
    return make_shop(folder, facts=more_facts(shop_facts(people=40), people=40), sources=MORE_SOURCES)


@pytest.fixture(scope="module")
def cutoffs(shop: Project) -> tuple[datetime, datetime]:
    """(the day before, a cutoff), such that two people known the day before are one at the cutoff."""
    with session(shop) as con:
        query = f"SELECT known_at FROM alias WHERE known_at > {instant(START + days(250))} ORDER BY 1 LIMIT 1"
        merged = con.execute(query).fetchall()[0][0]
    later = merged + hours(1)
    views = list(shop.definitions.of_profiles.values())
    build.build(shop, views, [later - days(1), later])
    repository.apply(shop, [], views)
    return later - days(1), later


def views_of(project: Project) -> list[FeatureView]:
    return list(project.definitions.of_profiles.values())


def known(project: Project, cutoff: datetime) -> list[str]:
    with session(project) as con:
        table = build.read(project, project.definitions.view("orders"), cutoff)
        return [p for (p,) in con.execute(f"SELECT profile_id FROM {table} ORDER BY 1").fetchall()]


def by_feast(project: Project, profiles: list[str], cutoff: datetime) -> pd.DataFrame:
    sources = dict(project.definitions.sources)
    asked = pd.DataFrame({"profile_id": pd.Series(profiles, dtype=object), "event_timestamp": pd.Timestamp(cutoff)})
    names = [f"{build.versioned(view, sources)}:{name}" for view in views_of(project) for name in view.features]
    found = repository.apply(project, [], views_of(project)).get_historical_features(asked, features=names).to_df()
    return found.set_index("profile_id").loc[profiles].reset_index()


def categories_of(project: Project, rows: pd.DataFrame) -> dict[str, list[str]]:
    """Codes of every text feature but one, of which a model learned nothing; the rarest value has none."""
    sources = dict(project.definitions.sources)
    texts = [f for view in views_of(project) for f, kind in build.types(view, sources).items() if kind == "string"]
    assert len(texts) > 3
    return {f: sorted(rows[f].dropna().unique())[1:] for f in texts[1:]}


def test_every_view_is_read_as_feast_reads_it(shop: Project, cutoffs: tuple[datetime, datetime]) -> None:
    _, cutoff = cutoffs
    profiles = sorted([*known(shop, cutoff), *NOBODY])
    rows = by_feast(shop, profiles, cutoff)
    categories = categories_of(shop, rows)
    columns = [feature for view in views_of(shop) for feature in view.features]
    wide = Wide(shop, cutoff)
    wide.add("all", views_of(shop), columns, categories)
    with session(shop) as con:
        X, absent = wide.read(con, pa.array(profiles))
    expected = encode(rows, columns, categories).to_numpy()
    np.testing.assert_array_equal(X[:, wide.places["all"]], expected)
    assert np.isfinite(expected).any(axis=0).mean() > 0.9  # else it would prove little
    assert absent.keys() == set(wide.views["all"])
    for lost in absent.values():
        assert [profiles[place] for place in np.flatnonzero(lost)] == NOBODY


def test_who_is_no_more_is_absent(shop: Project, cutoffs: tuple[datetime, datetime]) -> None:
    """Feast looks for the last row within a view's ttl: of an id that has merged away that is one of before."""
    before, cutoff = cutoffs
    gone = sorted(set(known(shop, before)) - set(known(shop, cutoff)))
    assert gone
    wide = Wide(shop, cutoff)
    wide.add("orders", [shop.definitions.view("orders")], ["orders_365d"], {})
    with session(shop) as con:
        X, absent = wide.read(con, pa.array(gone))
    assert np.isnan(X).all()
    assert absent[wide.views["orders"][0]].all()
    assert by_feast(shop, gone, cutoff)["orders_365d"].notna().all()


def test_in_pieces_as_at_once_and_each_set_by_its_places(shop: Project, cutoffs: tuple[datetime, datetime]) -> None:
    _, cutoff = cutoffs
    profiles = known(shop, cutoff)
    wide = Wide(shop, cutoff)
    orders, traits = (shop.definitions.view(name) for name in ("orders", "traits"))
    wide.add("one", [orders, traits], ["spend_90d", "known_city", "orders_90d"], {"known_city": ["Oslo"]})
    wide.add("two", [traits, orders], ["known_city", "orders_90d"], {"known_city": ["Bergen", "Oslo"]})
    assert [c.feature for c in wide.columns] == ["spend_90d", "known_city", "orders_90d", "known_city"]
    assert [p.tolist() for p in wide.places.values()] == [[0, 1, 2], [3, 2]]
    with session(shop) as con:
        whole, _ = wide.read(con, pa.array(profiles))
        parts = [wide.read(con, pa.array(profiles[start : start + 7]))[0] for start in range(0, len(profiles), 7)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    city = whole[:, 3]
    assert set(city[np.isfinite(city)]) == {0.0, 1.0}
    assert set(whole[city == 1.0, 1]) == {0.0}
    assert np.isnan(whole[city == 0.0, 1]).all()


VIEWS = [path.stem for path in sorted((Path(build.__file__).parent / "views").glob("[a-z]*.py"))]


@pytest.mark.parametrize(
    "name", [n for n in VIEWS if vars(import_module(f"features.views.{n}"))[n].entity == "profile"]
)
def test_the_empty_row_is_that_of_a_profile_without_facts(shop: Project, name: str) -> None:
    """Before the first fact of a source everybody known has it."""
    view = shop.definitions.view(name)
    with session(shop) as con:
        found = empty_row(con, shop, view, START + days(300))
        rows = con.execute(build.rows_at(con, shop, view, START + days(300))).df()
        nobody = con.execute("SELECT * FROM empty_row").df()
    assert list(found) == list(view.features)
    alike = nobody.columns.str.partition("__").get_level_values(2)
    for feature, place in zip(alike, nobody.columns, strict=True):
        value = nobody[place][0]
        assert pd.isna(found[feature]) if pd.isna(value) else found[feature] == value
    assert len(rows) > 20

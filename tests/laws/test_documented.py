"""Every feature says what it is, of which time, in which unit, and what its nulls mean; and what it says is so."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
from conftest import MORE_SOURCES, START, make_shop, more_facts, shop_facts, write_shop

from features import build
from foretell.discovery import discover
from foretell.project import Project
from foretell.views import UNITS, FeatureView
from foretell.windows import days
from lake.engine import session

EXAMPLES = Path(__file__).parents[2] / "examples"
DAYS = 520  # long enough for last year's windows
CUTOFFS = [START + days(n) for n in (40, 300, DAYS - 1)]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Project:
    facts = more_facts(shop_facts(days=DAYS), days=DAYS)
    return make_shop(tmp_path_factory.mktemp("documented") / "shop", facts=facts, days=DAYS, sources=MORE_SOURCES)


def standard(folder: Path) -> dict[str, FeatureView]:
    return dict(discover(write_shop(folder / "shop", {}, sources=MORE_SOURCES).folder).views)


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FeatureView]:
    found = standard(tmp_path_factory.mktemp("views"))
    return dict(discover(EXAMPLES / "complete_journey").views) | found


NAMES = sorted(p.stem for p in (Path(build.__file__).parent / "views").glob("[!_]*.py"))
OF_EXAMPLES = sorted(p.stem for p in EXAMPLES.glob("*/views/[!_]*.py"))


@pytest.mark.parametrize("name", [*NAMES, *OF_EXAMPLES])
def test_every_feature_is_documented(views: dict[str, FeatureView], name: str) -> None:
    view = views[name]
    assert view.description.strip() or name in OF_EXAMPLES
    for feature in view.features:
        doc = view.docs.get(feature)
        assert doc is not None, f'{name}.{feature}: write Feature(…, "what it tells")'
        assert doc.what[0].islower() or doc.what[0].isdigit(), f"{feature}: {doc.what!r} is no sentence"
        assert doc.unit in UNITS


@pytest.mark.parametrize("name", [*NAMES, *OF_EXAMPLES])
def test_a_name_says_its_window(views: dict[str, FeatureView], name: str) -> None:
    """spend_90d is of 90 days; a feature of all times says so, or is such by its word."""
    view = views[name]
    for feature in view.features:
        window = view.window(feature)
        said = {int(n) for n in re.findall(r"_(\d+)d(?=_|$)", feature)}
        if window == "ever":
            timeless = r"_ever$|^days_since_|^days_first_|_half_life_\d+d$|^known_|^age_"
            assert re.search(timeless, feature), f"{feature} is of all times: call it {feature}_ever"
        elif not feature.endswith("_last_year"):
            lengths = {int(n) for n in re.findall(r"\d+", window)}
            assert said, f"{feature} is of {window}: say so in its name"
            assert said <= lengths, f"{feature} is of {window}"


@pytest.mark.parametrize("name", NAMES)
def test_values_are_what_is_said(shop: Project, name: str) -> None:
    view, kinds = shop.definitions.view(name), build.types(shop.definitions.view(name), dict(shop.definitions.sources))
    with session(shop) as con:
        rows = pd.concat([con.execute(build.rows_at(con, shop, view, cutoff)).df() for cutoff in CUTOFFS])
    assert len(rows) > 20
    for feature, doc in view.docs.items():
        values, kind = rows[feature], kinds[feature]
        assert values.notna().any(), f"{feature} is never known in the small shop: the test proves nothing"
        if doc.null:
            assert values.isna().any(), f"{feature} is never null: its null says {doc.null!r}"
        else:
            assert values.notna().all(), f"{feature} is null: say what that means, null=…"
        assert (kind == "string") == (doc.unit == "text"), f"{feature} is a {kind} in {doc.unit}"
        if kind == "string":
            continue
        known = values.dropna().astype(float)
        if doc.unit == "count":
            assert (known >= 0).all()
            assert kind == "int64" or "half_life" in feature or feature.endswith("_last_year")
        elif doc.unit == "share":
            assert known.between(0, 1).all() or feature == "discount_share_90d"
        elif doc.unit in ("days", "hours", "minutes", "bits"):
            assert (known >= 0).all()


def test_the_views_that_tasks_learn_from_are_those_in_the_document(tmp_path: Path) -> None:
    text = (EXAMPLES.parent / "docs" / "features.md").read_text()
    rows = re.findall(r"^\| ([a-z0-9_, ]+?)(?: \(.*\))? \| (orders, [a-z_, ]+) \|", text, flags=re.M)
    said = {task: tuple(views.split(", ")) for tasks, views in rows for task in tasks.split(", ")}
    known = discover(write_shop(tmp_path / "shop", {}, sources=MORE_SOURCES).folder)
    assert said == {name: task.view_names for name, task in known.tasks.items()}

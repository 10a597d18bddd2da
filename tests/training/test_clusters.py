"""Kinds of customers of a shop that has three: found, named, kept as segments whose audiences are the groups."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from fixtures_trained import KEY, NOW, SOURCES, copy_of, load_all
from sklearn.metrics import adjusted_rand_score

import training
from foretell.__main__ import cli
from foretell.errors import DataError, NotReady, UnknownName
from foretell.project import Project
from lake.engine import session
from segments.audience import audience, sizes
from segments.definitions import load_segments
from training import clustering
from training.clustering import Clusters, cluster, write

AGAIN = """
from dataclasses import replace
from models.propensity import propensity
again = replace(propensity, name="again", views=("orders", "cadence"))
"""
ODD = """
from foretell import Feature, FeatureView, _

odd = FeatureView(
    name="odd", source="order_line",
    features={
        "never_ever": Feature(_.amount.max(where=_.amount < 0), "paid at a loss", "money", "never"),
        "always_one": Feature(_.count() * 0 + 1, "one"),
        "text_ever": Feature(_.order_id.max(), "an order", "text", "no order yet"),
        "dear_ever": Feature(_.amount.max(where=_.amount > 250), "paid for the dearest", "money", "nothing dear yet"),
    },
)
broken = FeatureView(
    name="broken", source="order_line",
    features={"ratio_ever": _.amount.sum().cast("float64") / (_.count(where=_.amount > 250) * 1.0)},
)
"""


def people() -> dict[str, list[tuple[float, float]]]:
    """Card -> (days ago, amount) of each order. r: every week for more than a year. o: once, long ago, dear. n: new."""
    rng = np.random.default_rng(3)
    found = {}
    for i in range(90):
        found[f"r{i}"] = [(float(day), float(rng.gamma(9, 2))) for day in np.arange(rng.uniform(1, 7), 480, 7)]
        found[f"o{i}"] = [(float(rng.uniform(200, 330)), float(rng.uniform(260, 400)))]
        found[f"n{i}"] = [(day, float(rng.gamma(9, 4))) for day in rng.uniform(1, 60, 5)]
    return found


def shop(folder: Path, shuffled: bool = False) -> Project:
    for part in ("exports/till", "sources", "tasks", "views", ".foretell"):
        (folder / part).mkdir(parents=True)
    lines = [
        f"{card}-{at},{NOW - timedelta(days=days):%Y-%m-%d %H:%M:%S},{card},{amount:.2f},1,sku"
        for card, orders in people().items()
        for at, (days, amount) in enumerate(orders)
    ]
    if shuffled:
        np.random.default_rng(0).shuffle(lines)
    head = "receipt,sold_at,card_no,amount,quantity,sku"
    (folder / "exports" / "till" / "all.csv").write_text("\n".join([head, *lines]) + "\n")
    (folder / "sources" / "till.py").write_text(SOURCES["till"])
    (folder / "tasks" / "again.py").write_text(AGAIN)
    (folder / "views" / "odd.py").write_text(ODD)
    (folder / ".foretell" / "key").write_text(KEY)
    settings = f'[foretell]\nas_of = "{NOW.isoformat()}"\ncutoffs = 1\nfolds = 1\nthreads = 1\n'
    (folder / "foretell.toml").write_text(settings + 'purposes = { marketing = "opt-out" }\n')
    project = Project(folder)
    load_all(project)
    return project


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The shop, with one task trained and scored, which makes features attributes. Do not change it."""
    from serving.score import score
    from training.champion import train

    project = shop(tmp_path_factory.mktemp("kinds") / "shop")
    train(project, "again", trials=0)
    score(project, ["again"])
    return project


@pytest.fixture(scope="module")
def found(kinds: Project) -> Clusters:
    return cluster(kinds)


@pytest.fixture
def mine(kinds: Project, tmp_path: Path) -> Callable[[], Project]:
    return lambda: copy_of(kinds, tmp_path / "mine")


def kind_of(project: Project, found: Clusters) -> pd.Series:
    """Of each member the kind of customer that it was made as."""
    with session(project) as con:
        cards = dict(con.execute("SELECT profile_id, node FROM member WHERE node LIKE 'card:%'").fetchall())
    return found.members["profile_id"].map(cards).str.removeprefix("card:").str[0]


def members_of(found: Clusters, name: str) -> list[str]:
    return sorted(found.members.loc[found.members["name"] == name, "profile_id"])


def test_the_kinds_are_found_and_named(kinds: Project, found: Clusters) -> None:
    assert found.population == "days_since_order <= 365"
    assert len(found.members) == 270
    assert adjusted_rand_score(kind_of(kinds, found), found.members["name"]) == 1.0
    assert found.members["profile_id"].is_monotonic_increasing
    groups = found.groups.set_index("name")
    assert found.groups["title"].tolist() == [
        "occasional buyers, away for long", "new occasional small spenders", "long-standing frequent big spenders",
    ]  # fmt: skip
    assert found.groups["rule"].tolist() == [
        "days_since_order <= 365 and orders_365d <= 3",
        "days_since_order <= 365 and orders_365d > 3 and orders_365d <= 30",
        "days_since_order <= 365 and orders_365d > 30",
    ]
    assert groups["profiles"].tolist() == [90, 90, 90]
    assert (groups["found_again"] > 0.95).all()
    assert found.left_out == {}


def test_a_group_is_what_its_rule_selects(mine: Callable[[], Project], found: Clusters) -> None:
    project = mine()
    files = write(project, found)
    segments = load_segments(project.folder / "segments")
    assert sorted(file.stem for file in files) == sorted(segments) == sorted(found.groups["name"])
    for group in found.groups.to_dict("records"):
        segment = segments[group["name"]]
        assert segment.rule.text == group["rule"]
        assert segment.purpose == "marketing"
        assert audience(project, segment.name).members["profile_id"].tolist() == members_of(found, segment.name)
    assert [size for _, size, _ in sizes(project)] == [90, 90, 90]
    assert segments["new-occasional-small-spenders"].description == (
        "New occasional small spenders: 90 of 270 profiles on 2024-07-01. Typical: first order 51 days ago; 5 orders "
        "in 365 days; 180.16 spent, refunds deducted, in 365 days; no order for 8.9 days"
    )


def test_files_are_not_overwritten(mine: Callable[[], Project], found: Clusters) -> None:
    project = mine()
    first, second, third = write(project, found)
    before = first.read_text()
    assert write(project, found) == [first, second, third]  # they say the same
    third.write_text(third.read_text().replace("marketing", "retention"))
    first.unlink()
    with pytest.raises(DataError) as error:
        write(project, found)
    assert str(error.value) == (
        f"segments/{third.name}: there is such a segment already, which says something else; "
        "rename it or remove it, then write again"
    )
    assert not first.exists()  # nothing is half-written
    third.unlink()
    (project.folder / "segments" / "mine.yaml").write_text(f"name: {first.stem}\nrule: orders_90d > 3\n")
    with pytest.raises(DataError, match=r"segments/mine\.yaml: there is such a segment already"):
        write(project, found)
    (project.folder / "segments" / "mine.yaml").unlink()
    write(project, found)
    assert first.read_text() == before
    assert sorted(p.name for p in first.parent.iterdir()) == sorted(f.name for f in (first, second, third))


def test_it_is_looked_whether_people_stay(kinds: Project, found: Clusters) -> None:
    stayed = dict(zip(found.groups["name"], found.groups["stayed"], strict=True))
    assert 0 < found.stayed <= 1
    assert max(stayed.values()) == 1.0
    views, nobody = list(kinds.definitions.of_profiles.values())[:1], pd.Series([], dtype=object)
    before = NOW - timedelta(days=900)  # nothing was known then
    same, share = clustering._stayed(
        kinds, views, None, found.found, nobody, np.zeros(0, dtype=int), before, lambda _: None
    )
    assert np.isnan(same).all()
    assert np.isnan(share)


def test_now_may_be_the_clock(mine: Callable[[], Project]) -> None:
    project = mine()
    settings = (project.folder / "foretell.toml").read_text()
    (project.folder / "foretell.toml").write_text(settings.replace("as_of", "# as_of"))
    found = cluster(Project(project.folder), "card is not null", ["order_days_ever", "days_since_first_order"])
    assert found.groups["profiles"].tolist() == [90, 90, 90]
    assert found.stayed == 1.0  # nobody has bought since


def test_the_order_of_rows_does_not_matter(tmp_path: Path, found: Clusters) -> None:
    again = cluster(shop(tmp_path / "shuffled", shuffled=True))
    pd.testing.assert_frame_equal(again.groups, found.groups)
    pd.testing.assert_frame_equal(again.members, found.members)
    pd.testing.assert_frame_equal(again.tried, found.tried)


def test_who_does_not_agree_is_in_no_group(mine: Callable[[], Project], found: Clusters) -> None:
    from serving.consent import say

    project = mine()
    gone = found.members["profile_id"][7]
    say(project, gone, "marketing", False)
    project = Project(project.folder)
    left = cluster(project)
    assert set(found.members["profile_id"]) - set(left.members["profile_id"]) == {gone}
    write(project, left)
    assert sum(len(audience(project, name).members) for name in left.groups["name"]) == 269
    assert len(cluster(project, purpose="service").members) == 270  # nobody is asked about that


def test_any_features_and_any_population(kinds: Project) -> None:
    found = cluster(kinds, among="order_days_ever >= 1", by=["odd", "order_days_ever", "cadence"], groups=3)
    assert found.population == "order_days_ever >= 1"
    assert {"dear_ever", "order_days_ever", "mean_gap_days_ever"} <= set(found.typical.columns)
    assert found.groups["title"].tolist() == [
        "frequent long-standing buyers, small baskets", "new buyers, fair baskets",
        "occasional buyers, fewer than two order days",
    ]  # fmt: skip
    for name, rule in zip(found.groups["name"], found.groups["rule"], strict=True):
        assert audience(kinds, rule).members["profile_id"].tolist() == members_of(found, name)
        assert len(members_of(found, name)) == 90
    assert found.left_out == {
        "never_ever": "nobody's is known", "always_one": "it is the same of everybody", "text_ever": "it is no number",
    }  # fmt: skip


def test_a_population_may_be_a_segment_over_traits(mine: Callable[[], Project]) -> None:
    project = mine()
    (project.folder / "segments").mkdir()
    rule = "card like 'R%' or card like 'N%' or orders_365d < 0"
    (project.folder / "segments" / "some.yaml").write_text(f"name: some\nrule: {rule}\npurpose: marketing\n")
    found = cluster(project, among="some", groups=2)
    assert len(found.members) == 180
    assert all(said.startswith(f"({rule}) and ") for said in found.groups["rule"])
    write(project, found)
    assert [size for segment, size, _ in sizes(project) if segment.name != "some"] == [90, 90]


def test_bad_questions(mine: Callable[[], Project], kinds: Project) -> None:
    for options, kind, says in (
        (
            {"by": ["ordes_90d"]},
            UnknownName,
            'ordes_90d: no such feature or view of profiles; did you mean "orders_90d"',
        ),
        (
            {"by": ["orders_90d"]},
            NotReady,
            "groups: expected two features or more to tell profiles by, got orders_90d; ",
        ),
        (
            {"by": ["text_ever", "orders_90d"]},
            DataError,
            "text_ever: expected a feature that is a number, got one that is",
        ),
        ({"by": ["never_ever", "orders_90d"]}, DataError, "groups: expected at least two features that differ between"),
        (
            {"among": "orders_90d > 9000"},
            DataError,
            "groups: expected at least 100 profiles to find groups among, got 0;",
        ),
        (
            {"among": "orders_365d > 30"},
            DataError,
            "groups: expected at least 100 profiles to find groups among, got 90;",
        ),
        ({"among": "ordes_90d > 3"}, UnknownName, 'ordes_90d: no such attribute; did you mean "orders_90d"'),
        (
            {"by": ["ratio_ever", "orders_90d"]},
            DataError,
            "ratio_ever: expected finite numbers or null, got 180 that are",
        ),
        (
            {"groups": 12},
            DataError,
            "groups: expected 12 of at least 20 profiles each, got fewer among 270; ask for fewer",
        ),
    ):
        with pytest.raises(kind) as error:
            cluster(kinds, **options)  # type: ignore[arg-type]
        assert str(error.value).startswith(says)


# --- the command and the front door ----------------------------------------------------------------------------------


OUTPUT = """\
3 groups of 270 profiles: days_since_order <= 365
typical of                           profiles   share  days_since_first_order  orders_365d  spend_365d  days_since_order
occasional buyers, away for long           90   33.3%  271 days                          1      328.30  271 days
new occasional small spenders              90   33.3%  51 days                           5      180.16  8.9 days
long-standing frequent big spenders        90   33.3%  476 days                         52      934.51  4.1 days
everybody                                 270  100.0%  271 days                          5      328.30  8.9 days

segment                              found again  stayed 30 days  rule
occasional-buyers-away-for-long             100%             55%  days_since_order <= 365 and orders_365d <= 3
new-occasional-small-spenders               100%            100%  days_since_order <= 365 and orders_365d > 3 and orders_365d <= 30
long-standing-frequent-big-spenders         100%            100%  days_since_order <= 365 and orders_365d > 30

Found again: of the weakest group another sample has 100% in common.
72% were in the same group 30 days before.
The rules tell 97% of how profiles differ; unrelated features would 39%, groups without rules (k-means) 97%, which put 100% of the profiles alike.
wrote PICTURE
wrote 3 files into segments/; next: foretell score, then foretell segment list
"""  # noqa: E501


def foretell(project: Project, *words: object) -> Result:
    return CliRunner().invoke(cli, ["--project", str(project.folder), *map(str, words)])


def test_the_command(mine: Callable[[], Project], tmp_path: Path, found: Clusters) -> None:
    project, picture = mine(), tmp_path / "deep" / "groups.png"
    done = foretell(project, "cluster", "--write", "--plot", picture)
    assert done.exit_code == 0, done.output
    assert done.output == OUTPUT.replace("PICTURE", str(picture))
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert len(list((project.folder / "segments").glob("*.yaml"))) == 3
    from models import registry

    tracking = registry.client(project)
    (run,) = tracking.search_runs([registry.experiment(project, "clusters")])
    assert run.data.metrics["groups"] == 3
    assert run.data.metrics["found_again"] == pytest.approx(found.found.found_again.min())
    kept = {file.path for file in tracking.list_artifacts(run.info.run_id)}
    assert kept == {"groups.csv", "typical.csv", "standing.csv", "tried.csv", "groups.png"}
    refused = foretell(project, "cluster", "--plot", "groups.xlsx")
    assert refused.exit_code == 2
    assert "--plot draws a PNG, SVG or PDF: name it groups.png" in refused.output


def test_groups_that_do_not_hold_are_called_so(mine: Callable[[], Project]) -> None:
    done = foretell(mine(), "cluster", "--groups", 6)
    assert done.exit_code == 0, done.output
    assert "; they do NOT hold: another sample would give other groups." in done.output
    assert "Keep them as segments: foretell cluster --write, with the options given here" in done.output


def test_the_front_door(kinds: Project, found: Clusters) -> None:
    again = training.clusters(project=str(kinds.folder))
    pd.testing.assert_frame_equal(again.groups, found.groups)
    assert again.plot()._repr_png_().startswith(b"\x89PNG")

"""Discovery: what a project folder brings, what it may not, and what importing Foretell costs."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from foretell import days
from foretell.discovery import Definitions, discover
from foretell.errors import DefinitionError, ForetellError, NotReady, UnknownName
from foretell.project import Project

ROOMS = ["foretell", "lake", "ingestion", "unification", "features", "segments", "models", "training", "serving"]

TILL = """
from foretell import Source

columns = {"order_id": "o", "amount": "a"}
till = Source(name="till", files="till/*.csv", role="order_line", event_at="at", columns=columns)
"""
VIEW = """
from foretell import FeatureView, _

returns = FeatureView(name="{name}", source="{source}", features={{"returns_ever": _.count(where=_.cancelled)}})
"""
TASK = """
from foretell import Label, PredictionTask, _, days

churn = PredictionTask(
    name="churn", population="orders_90d > 0", horizon=days({horizon}), views=({views},), metric="log_loss",
    purpose="retention", label=Label(source="order_line", value={value}),
)
"""

# The standard views that a till alone cannot fill.
NO_SUCH_ROLE = {
    view: f"no source plays the role {role}"
    for view, role in {
        "coupons": "redemption", "messages": "message", "response": "message", "support": "ticket", "traits": "person",
        "visits": "activity", "campaign_response": "redemption",
    }.items()
} | dict.fromkeys(("account_orders", "company"), "no source says who belongs to which account")  # fmt: skip


def write(folder: Path, **files: str) -> Path:
    """Files of a project, named as folder__file."""
    (folder / "foretell.toml").write_text("[foretell]\n")
    for name, text in files.items():
        place = folder / f"{name.replace('__', '/')}.py"
        place.parent.mkdir(exist_ok=True)
        place.write_text(text)
    return folder


def found(folder: Path, **files: str) -> Definitions:
    return discover(write(folder, **files))


def test_standard_definitions_beside_the_projects_own(tmp_path):
    known = found(tmp_path, sources__till=TILL, views__returns=VIEW.format(name="returns", source="till"))
    assert set(known.views) == {
        "orders", "cadence", "basket", "promotions", "affinity", "returns", "decay", "trend", "gaps", "items",
        "favourites", "order_size", "category_orders", "season", "assortment",
    }  # fmt: skip
    assert known.view("returns").source == "till"
    assert known.idle == NO_SUCH_ROLE  # a till says nothing about these, and the tasks do without
    most = ["orders", "cadence", "gaps", "items", "season", "assortment", "order_size", "basket"]
    assert {name: [view.name for view in known.views_of(task)] for name, task in known.tasks.items()} == {
        "churn": most,
        "clv": ["orders", "cadence", "gaps", "items", "decay", "basket"],
        "propensity": most,
        "lookalike": most,
        "clv_180": ["orders", "cadence", "gaps", "items", "decay", "basket"],
        "clv_365": ["orders", "cadence", "gaps", "items", "decay", "basket"],
        "loyalty": most,
        "next_order": most,
        "repurchase": ["orders", "cadence", "basket"],
    }


def test_a_projects_definition_replaces_a_standard_one(tmp_path):
    task = TASK.format(horizon=7, views='"orders"', value="_.count() == 0")
    known = found(
        tmp_path, sources__till=TILL, tasks__churn=task, views__mine=VIEW.format(name="orders", source="till")
    )
    assert known.task("churn").horizon == days(7)
    assert known.task("clv").horizon == days(90)
    assert list(known.view("orders").features) == ["returns_ever"]


def test_a_changed_copy_of_a_standard_task(tmp_path):
    copy = "from dataclasses import replace\nfrom foretell import days\nfrom models.churn import churn as standard\n"
    known = found(tmp_path, sources__till=TILL, tasks__churn=copy + "churn = replace(standard, horizon=days(14))\n")
    assert known.task("churn").horizon == days(14)


def test_a_view_handed_to_a_task_as_an_object(tmp_path):
    view = VIEW.format(name="returns", source="till")
    task = TASK.format(horizon=7, views='"orders", returns', value="_.count() == 0")
    known = found(tmp_path, sources__till=TILL, tasks__churn=view + task)
    assert known.view("returns").source == "till"
    assert known.task("churn").view_names == ("orders", "returns")


def test_idle_without_a_source_that_plays_the_role(tmp_path):
    known = found(tmp_path, views__returns=VIEW.format(name="returns", source="order_line"))
    reason = "no source plays the role order_line"
    assert {n: known.idle[n] for n in ("orders", "returns", "churn")} == dict.fromkeys(
        ("orders", "returns", "churn"), reason
    )
    assert not known.views
    assert not known.tasks


def test_idle_without_a_view_that_can_be_filled(tmp_path):
    view = VIEW.format(name="sent", source="message").replace("_.cancelled", '_.kind == "x"')
    task = TASK.format(horizon=7, views='"sent"', value="_.count() == 0")
    known = found(tmp_path, sources__till=TILL, views__sent=view, tasks__churn=task)
    assert known.idle == {
        **NO_SUCH_ROLE, "sent": "no source plays the role message", "churn": "none of its views can be filled"
    }  # fmt: skip


TARGETS = """
from foretell import Label, PredictionTask, _, days

buys = PredictionTask(
    name="buys", population="orders_90d > 0", horizon=days(30), views=("orders",), metric="auc", purpose="test",
    label=Label(source="order_line", value=_.count() > 0), targets={targets},
)
"""


def test_targets_are_discovered_with_their_views(tmp_path):
    targets = '{"tea": _.category == "TEA", "coffee": _.category == "COFFEE"}'
    known = found(tmp_path, sources__till=TILL, tasks__buys=TARGETS.format(targets=targets))
    assert {"buys", "buys_tea", "buys_coffee"} <= set(known.tasks)
    assert [view.name for view in known.views_of(known.task("buys_tea"))] == ["orders", "buys_tea"]
    assert "tea_facts_90d" in known.view("buys_tea").features
    assert known.family(["buys"]) == ["buys", "buys_tea", "buys_coffee"]
    assert known.family(["buys_tea", "buys", "churn"]) == ["buys_tea", "buys", "buys_coffee", "churn"]
    with pytest.raises(UnknownName, match=r'buys_te: no such task; did you mean "buys_tea"\?'):
        known.family(["buys_te"])


TWICE = {
    "a task of its own": (
        {"tasks__buys": TARGETS.format(targets='{"tea": _.brand == "x"}'),
         "tasks__other": TASK.format(horizon=7, views='"orders"', value="_.count() == 0").replace("churn", "buys_tea")},
        r"buys_tea: is a target of buys and a task of its own; rename one\. \(tasks/buys\.py\)",
    ),
    "a target of another task": (
        {"tasks__buys": TARGETS.format(targets='{"tea": _.brand == "x"}'),
         "tasks__more": TARGETS.format(targets='{"tea": _.brand == "x"}').replace("buys", "more")},
        r"tea_facts_90d: is a feature of more_tea and a feature of buys_tea; rename one\. \(tasks/buys\.py\)",
    ),
    "a feature of a view": (
        {"tasks__buys": TARGETS.format(targets='{"order": _.brand == "x"}')},
        r"days_since_order: is a feature of buys_order and a feature of orders; rename one",
    ),
    "a misspelt column": (
        {"tasks__buys": TARGETS.format(targets='{"tea": _.categry == "x"}')},
        r'buys_tea\.tea_facts_90d: no column or method \'categry\'; did you mean "category"\?.*tasks/buys\.py',
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TWICE)
def test_targets_that_cannot_be_are_refused(tmp_path, case):
    files, message = TWICE[case]
    with pytest.raises(ForetellError, match=message):
        found(tmp_path, sources__till=TILL, **files)


CRM = """
from foretell import Source

crm = Source(name="crm", files="crm/*.csv", kind="records", identifiers={{"email": "e"}}, traits={traits})
"""
FEATURE = """
from foretell import FeatureView, _

home = FeatureView(name="home", source="order_line", features={{"{name}": _.count()}})
"""
NAMED = '"orders"', "_.count() == 0"
ONE_NAME = {
    "a trait and a feature": (
        {"sources__crm": CRM.format(traits={"city": "c"}), "views__home": FEATURE.format(name="city")},
        "city: is a trait and a feature of home; rename one. (views/home.py)",
    ),
    "an identifier and a feature": (
        {"sources__crm": CRM.format(traits={"city": "c"}), "views__home": FEATURE.format(name="email")},
        "email: is an identifier and a feature of home; rename one. (views/home.py)",
    ),
    "a feature and a score": (
        {"views__home": FEATURE.format(name="churn")},
        "churn: is a feature of home and the score of churn; rename one. (models/churn.py)",
    ),
    "a feature and a percentile": (
        {"views__home": FEATURE.format(name="clv_percentile")},
        "clv_percentile: is a feature of home and the percentile of clv; rename one. (models/clv.py)",
    ),
    "a trait and a score": (
        {"sources__crm": CRM.format(traits={"churn": "c"})},
        "churn: is a trait and the score of churn; rename one. (models/churn.py)",
    ),
    "a score and a percentile": (
        {"tasks__mine": TASK.format(horizon=7, views=NAMED[0], value=NAMED[1]).replace("churn", "clv_percentile")},
        "clv_percentile: is the score of clv_percentile and the percentile of clv; rename one. (models/clv.py)",
    ),
    "two features": (
        {"views__home": FEATURE.format(name="orders_90d")},
        "orders_90d: is a feature of orders and a feature of home; rename one. (views/home.py)",
    ),
    "our own columns": (
        {"views__home": FEATURE.format(name="label")},
        "label: is a column of Foretell's own and a feature of home; rename one. (views/home.py)",
    ),
    "our own columns, for a trait": (
        {"sources__crm": CRM.format(traits={"profile_id": "c"})},
        "profile_id: is a trait and a column of Foretell's own; rename it. (sources/crm.py)",
    ),
}


@pytest.mark.parametrize("case", ONE_NAME)
def test_a_name_means_one_attribute(tmp_path, case):
    files, message = ONE_NAME[case]
    with pytest.raises(DefinitionError) as error:
        found(tmp_path, sources__till=TILL, **files)
    assert str(error.value).replace(str(tmp_path.name), "project") == message


def test_a_trait_may_repeat_an_identifier_and_another_sources_trait(tmp_path):
    crm = CRM.format(traits={"email": "e", "city": "c"})
    mail = CRM.format(traits={"city": "town"}).replace("crm", "mail")
    assert set(found(tmp_path, sources__crm=crm, sources__mail=mail).sources) == {"crm", "mail"}


def test_files_with_an_underscore_and_other_suffixes_are_left_alone(tmp_path):
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources" / "notes.txt").write_text("not Python")
    known = found(tmp_path, sources___helper="this is not Python", sources__till=TILL)
    assert list(known.sources) == ["till"]


def test_a_projects_files_never_shadow_ours(tmp_path):
    known = found(tmp_path, sources__models=TILL, views__features=VIEW.format(name="returns", source="till"))
    assert "till" in known.sources
    assert importlib.import_module("models").__file__ != str(tmp_path / "sources" / "models.py")


MEND = r"; mend the file\. \(sources/till\.py\)$"
BROKEN = {
    "syntax": ("till = Source(", r"^till\.py: cannot be loaded: SyntaxError: '\(' was never closed .*" + MEND),
    "import": (
        "import no_such_library",
        r"^till\.py: cannot be loaded: ModuleNotFoundError: No module named 'no_such_library'" + MEND,
    ),
    "misspelt import": (
        "from foretell import Sauce",
        r"^till\.py: cannot be loaded: ImportError: cannot import name 'Sauce' from 'foretell' .*\(sources/till\.py\)$",
    ),
    "unknown argument": (
        "from foretell import Source\ntill = Source(nam='till')",
        r"^till\.py: cannot be loaded: TypeError: .*unexpected keyword argument 'nam'" + MEND,
    ),
    "refused": (
        "from foretell import Source\ntill = Source(name='till', files='x.csv')",
        r"^till: events need a time; say event_at=\"<column>\"\. \(sources/till\.py\)$",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_file_that_cannot_be_loaded(tmp_path, case):
    text, message = BROKEN[case]
    with pytest.raises(DefinitionError, match=message):
        found(tmp_path, sources__till=text)


def test_two_definitions_of_one_name(tmp_path):
    with pytest.raises(DefinitionError, match=r"^till: declared twice; rename one\. \(.*sources/till2\.py\)$"):
        found(tmp_path, sources__till=TILL, sources__till2=TILL)


def test_an_imported_declaration_is_not_a_second_one(tmp_path):
    view = "from features.views.orders import orders\n" + VIEW.format(name="returns", source="till")
    assert "returns" in found(tmp_path, sources__till=TILL, views__returns=view).views


WRONG = {
    "view column": (
        {"views__returns": VIEW.format(name="returns", source="till").replace("cancelled", "canceled")},
        "returns.returns_ever: no column or method 'canceled'; did you mean \"cancelled\"?. (views/returns.py)",
    ),
    "view source": (
        {"views__returns": VIEW.format(name="returns", source="tilll")},
        'tilll: no such source or role; did you mean "till"?. (views/returns.py)',
    ),
    "task view": (
        {"tasks__churn": TASK.format(horizon=7, views='"order"', value="_.count() == 0")},
        'order: no such feature view; did you mean "orders"?. (tasks/churn.py)',
    ),
    "label column": (
        {"tasks__churn": TASK.format(horizon=7, views='"orders"', value="_.amuont.sum()")},
        "churn.label: no column or method 'amuont'; did you mean \"amount\"?. (tasks/churn.py)",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_bound_to_the_sources_before_anything_runs(tmp_path, case):
    files, message = WRONG[case]
    with pytest.raises(UnknownName) as error:
        found(tmp_path, sources__till=TILL, **files)
    assert str(error.value) == message


def test_unknown_names_are_answered_with_the_nearest(tmp_path):
    known = found(tmp_path, sources__till=TILL)
    for ask, name, message in [
        (known.source, "tlil", 'tlil: no such source; did you mean "till"?'),
        (known.view, "order", 'order: no such feature view; did you mean "orders"?'),
        (known.task, "chrun", 'chrun: no such task; did you mean "churn"?'),
        (known.source, "zzz", "zzz: no such source; known: till"),
    ]:
        with pytest.raises(UnknownName) as error:
            ask(name)
        assert str(error.value) == message
    with pytest.raises(UnknownName) as error:
        Definitions({}, {}, {}).source("till")
    assert str(error.value) == "till: no such source; none is known yet"


def test_the_project_is_the_nearest_folder_upwards(tmp_path, monkeypatch):
    monkeypatch.delenv("FORETELL_PROJECT", raising=False)
    deep = tmp_path / "shop" / "views" / "deep"
    deep.mkdir(parents=True)
    with pytest.raises(
        NotReady, match=r"no foretell\.toml here or above; run `foretell init FOLDER`, or pass --project"
    ):
        Project.find(deep)
    write(tmp_path / "shop")
    assert Project.find(deep).folder == (tmp_path / "shop").resolve()
    monkeypatch.setenv("FORETELL_PROJECT", str(tmp_path / "shop"))
    monkeypatch.chdir("/")
    assert Project.find().folder == (tmp_path / "shop").resolve()


# What comes with the package itself


def modules() -> list[str]:
    return [
        info.name
        for room in ROOMS
        for info in pkgutil.walk_packages(importlib.import_module(room).__path__, f"{room}.")
        if not info.name.endswith("__main__")
    ]


def test_doctests():
    ran = 0
    for name in modules():
        result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
        assert result.failed == 0, f"doctest of {name}; run it with -v"
        ran += result.attempted
    assert ran > 0


def test_no_other_distribution_owns_a_name_of_ours():
    owners = packages_distributions()
    others = {room: set(owners.get(room, [])) - {"foretell"} for room in ROOMS}
    assert not {room: names for room, names in others.items() if names}


@pytest.mark.parametrize("module", ["foretell", "foretell.errors", "foretell.settings", "foretell.project"])
def test_importing_is_light(module):
    heavy = {"ibis", "pandas", "numpy", "duckdb", "pyarrow", "feast", "mlflow", "sklearn"}
    code = f"import sys, {module}; print(*sorted({heavy} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""

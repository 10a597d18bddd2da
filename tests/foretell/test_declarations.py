"""Declarations: each wrong one is refused where it is made, with what was expected, what came and how to mend it."""

from __future__ import annotations

import pickle
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from foretell import (
    Enters,
    Feature,
    FeatureView,
    Label,
    PredictionTask,
    Source,
    _,
    days,
    days_since,
    future,
    hours,
    latest,
    past,
    top_share,
)
from foretell.binding import bind_task, bind_view, facts_schema, kind_of
from foretell.errors import DefinitionError, ForetellError, UnknownName
from foretell.roles import ROLES
from foretell.windows import attributes, future_windows

HERE = "foretell/test_declarations.py"
TILL = Source(name="till", files="*.csv", role="order_line", event_at="at", columns={"order_id": "o", "amount": "a"})
SOURCES = {"till": TILL}


def make_source(**changes):
    return Source(**{"name": "till", "files": "*.csv", "event_at": "at", **changes})


def make_view(expression=_.count(), **changes):  # noqa: B008  (deferred expressions are immutable)
    return FeatureView(**{"name": "orders", "source": "order_line", "features": {"n": expression}, **changes})


def make_task(value=_.count() == 0, **changes):  # noqa: B008
    fields = {
        "name": "churn", "population": "n > 0", "horizon": days(60), "views": ("orders",), "metric": "log_loss",
        "purpose": "retention", "label": Label(source="order_line", value=value),
    }  # fmt: skip
    return PredictionTask(**{**fields, **changes})


CONDITION = 'write for example _.category == "DELI"'
NAME = "is lower-case letters, digits and _, starting with a letter; rename it"
REFUSED = {
    "source kind": (make_source, {"kind": "facts"}, 'till: kind is "events" or "records", got \'facts\''),
    "no time": (make_source, {"event_at": None}, 'till: events need a time; say event_at="<column>"'),
    "role": (make_source, {"role": "order_lin"}, 'order_lin: no such role; did you mean "order_line"?'),
    "role far off": (
        make_source,
        {"role": "zzz"},
        "zzz: no such role; known: activity, message, order_line, person, redemption, ticket",
    ),
    "role column": (
        make_source,
        {"role": "message", "columns": {"chanel": "c"}},
        "till.chanel: role message has no such column; known: campaign_id, channel, kind; "
        "or give its type in types={...}",
    ),
    "role needs": (
        make_source,
        {"role": "order_line", "columns": {"amount": "a"}},
        "till: role order_line needs columns ['order_id']; map them",
    ),
    "negative delay": (
        make_source,
        {"delay": days(-1)},
        "till: delay must be a duration that is not negative, got -1 day, 0:00:00; use days(0) or more",
    ),
    "delay a number": (
        make_source,
        {"delay": 1},
        "till: delay must be a duration that is not negative, got 1; use days(0) or more",
    ),
    "time zone": (
        make_source,
        {"timezone": "Europe/Olso"},
        "till: unknown time zone 'Europe/Olso'; use a name such as \"Europe/Oslo\"",
    ),
    "times_in": (
        make_source,
        {"times_in": "../etc/passwd"},
        "till: unknown time zone '../etc/passwd'; use a name such as \"Europe/Oslo\"",
    ),
    "source name": (make_source, {"name": "Till"}, f"'Till': the name of a source {NAME}"),
    "source name with SQL": (make_source, {"name": 'a"; --'}, f"'a\"; --': the name of a source {NAME}"),
    "name ends in a newline": (make_source, {"name": "till\n"}, f"'till\\n': the name of a source {NAME}"),
    "no name": (make_source, {"name": None}, f"None: the name of a source {NAME}"),
    "identifier": (make_source, {"identifiers": {"E-mail": "e"}}, f"'E-mail': the name of an identifier type {NAME}"),
    "no condition": (
        make_source,
        {"only": " "},
        'till: only is an empty condition; say only="price > 0", or leave it',
    ),
    "one alias": (
        make_source,
        {"aliases": {"sku": "item"}},
        'till: aliases are several names, got the text \'item\'; write {"sku": ("item",)}',
    ),
    "one optional column": (
        make_source,
        {"optional": "shelf"},
        "till: optional is several names, got the text 'shelf'; write (\"shelf\",)",
    ),
    "trait": (
        make_source,
        {"kind": "records", "traits": {"Home town": "t"}},
        f"'Home town': the name of a trait {NAME}",
    ),
    "view name": (make_view, {"name": "2nd"}, f"'2nd': the name of a feature view {NAME}"),
    "feature name": (make_view, {"features": {"Orders": _.count()}}, f"'Orders': the name of a feature {NAME}"),
    "no features": (
        make_view,
        {"features": {}},
        'orders: a view needs at least one feature; features={"orders_90d": ...}',
    ),
    "lookback": (
        make_view,
        {"lookback": days(0)},
        "orders: lookback must be a positive duration, got 0:00:00; use days(90), or leave it out",
    ),
    "ttl": (make_view, {"ttl": days(0)}, "orders: ttl must be a positive duration, got 0:00:00; use days(2)"),
    "a look ahead": (
        make_view,
        {"expression": _.amount.sum(where=past(days(9)) & future(days(1)))},
        "orders.n: looks into the future; a feature is what was known before the cutoff; use past(...); future(...) "
        "belongs in a Label",
    ),
    "a hidden look ahead": (
        make_view,
        {"expression": _["horizon_start"].max()},
        "orders.n: looks into the future; a feature is what was known before the cutoff; use past(...); future(...) "
        "belongs in a Label",
    ),
    "task name": (make_task, {"name": "will churn"}, f"'will churn': the name of a task {NAME}"),
    "horizon zero": (
        make_task,
        {"horizon": days(0)},
        "churn: horizon must be a positive duration, got 0:00:00; use days(90)",
    ),
    "horizon negative": (
        make_task,
        {"horizon": days(-2)},
        "churn: horizon must be a positive duration, got -2 days, 0:00:00; use days(90)",
    ),
    "horizon a number": (
        make_task,
        {"horizon": 90},
        "churn: horizon must be a positive duration, got 90; use days(90)",
    ),
    "settle": (
        make_task,
        {"settle": hours(-1)},
        "churn: settle must be a duration that is not negative, got -1 day, 23:00:00; use days(1)",
    ),
    "settle a number": (
        make_task,
        {"settle": 1},
        "churn: settle must be a duration that is not negative, got 1; use days(1)",
    ),
    "no purpose": (make_task, {"purpose": ""}, 'churn: a prediction needs a purpose; say purpose="retention"'),
    "no views": (make_task, {"views": ()}, 'churn: a task needs at least one view; views=("orders",)'),
    "too far ahead": (
        make_task,
        {"value": _.count(where=future(days(90))) == 0},
        "churn: label looks 90 days ahead but horizon is 60; raise horizon or use days(60)",
    ),
    "one of two too far ahead": (
        make_task,
        {"value": _.count(where=future(days(7))) + _.count(where=future(days(61)))},
        "churn: label looks 61 days ahead but horizon is 60; raise horizon or use days(60)",
    ),
    "a condition too far ahead": (
        make_task,
        {"label": Label(source="order_line", value=_.count(), only=future(days(61)))},
        "churn: label looks 61 days ahead but horizon is 60; raise horizon or use days(60)",
    ),
    "a condition that is text": (
        Label,
        {"source": "order_line", "value": _.count(), "only": "category"},
        f"only: expected a condition on the facts, got 'category'; {CONDITION}",
    ),
    "a label without facts": (
        Label,
        {"source": "order_line", "value": 3},
        "label: expected an aggregate of the facts, got 3; write for example _.amount.sum()",
    ),
    "a feature without facts": (
        make_view,
        {"expression": "amount"},
        "orders.n: expected an aggregate of the facts, got 'amount'; write for example _.amount.sum()",
    ),
    "no label": (
        make_task,
        {"label": "orders_90d > 3"},
        "churn: expected a Label, Until or Enters, got 'orders_90d > 3'; "
        'write label=Label(source="order_line", value=_.count() > 0)',
    ),
    "no rule": (
        Enters,
        {"rule": " "},
        "Enters: expected a rule or the name of a segment, got ' '; write Enters(\"top(spend_90d, 0.1)\")",
    ),
    "no population": (
        make_task,
        {"population": None},
        'churn: expected a rule for whom it is asked, got None; write population="orders_365d > 0"',
    ),
    "views without a comma": (
        make_task,
        {"views": "orders"},
        "churn: views are names or FeatureViews, got 'orders'; write views=(\"orders\",), with the comma",
    ),
    "targets without conditions": (
        make_task,
        {"targets": ["deli"]},
        'churn: targets are names with conditions, got [\'deli\']; write targets={"deli": _.category == "DELI"}',
    ),
    "a target that is no condition": (
        make_task,
        {"targets": {"deli": "DELI"}},
        f"churn, target deli: expected a condition on the facts, got 'DELI'; {CONDITION}",
    ),
    "target name": (make_task, {"targets": {"Deli": _.brand == "x"}}, f"'Deli': the name of a target {NAME}"),
    "targets of a rule": (
        make_task,
        {"label": Enters("n > 3"), "targets": {"deli": _.category == "DELI"}},
        "churn: targets narrow the facts of a Label, and Enters has none; write one task for each rule",
    ),
    "hours too far ahead": (
        make_task,
        {"value": _.count(where=future(hours(36))) == 0, "horizon": days(1)},
        "churn: label looks 36 hours ahead but horizon is 24; raise horizon or use hours(24)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_what_why_and_where(case):
    make, changes, message = REFUSED[case]
    with pytest.raises(ForetellError) as error:
        make(**changes)
    assert str(error.value) == f"{message}. ({HERE})"


def test_the_edges_are_allowed():
    assert make_task(_.count(where=future(days(60))) == 0).horizon == days(60)
    assert make_task(settle=timedelta(0)).settle == timedelta(0)
    assert make_task(label=Label(source="order_line", value=_.count(), only=future(days(60)))).horizon == days(60)
    assert make_source(delay=None).delay is None
    assert make_source(delay=timedelta(0), timezone="America/Argentina/Ushuaia", times_in="UTC").trust == 0


# Bound to the facts they will see, at discovery.

MISSPELT = {
    "column": (_.amuont.sum(), UnknownName, "orders.n: no column or method 'amuont'; did you mean \"amount\"?"),
    "method": (
        _.amount.summ(),
        UnknownName,
        "orders.n: no method 'summ' of type decimal(18, 4); did you mean \"sum\"?",
    ),
    "method of another type": (
        _.brand.sum(),
        UnknownName,
        "orders.n: no method 'sum' of type string; "
        "known: cast, count, fill_null, isin, isnull, max, min, nullif, nunique",
    ),
    "aggregate": (_.cuont(), UnknownName, "orders.n: no column or method 'cuont'; did you mean \"count\"?"),
    "column of a condition": (
        _.amount.sum(where=_.canceled),
        UnknownName,
        "orders.n: no column or method 'canceled'; did you mean \"cancelled\"?",
    ),
}


MISSPELT |= {
    "column of the latest": (
        latest(_.brnd), UnknownName, "orders.n: no column or method 'brnd'; did you mean \"brand\"?",
    ),
    "latest of an aggregate": (
        latest(_.amount.max()), UnknownName,
        "orders.n: no method 'first' of type decimal(18, 4); known: cast, fill_null, isin, isnull, nullif",
    ),
    "column of the top share": (
        top_share(_.categry), UnknownName, "orders.n: no column or method 'categry'; did you mean \"category\"?",
    ),
    "column of the top share's condition": (
        top_share(_.category, where=_.canceled), UnknownName,
        "orders.n: no column or method 'canceled'; did you mean \"cancelled\"?",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MISSPELT)
def test_a_misspelt_word_in_a_view(case):
    expression, kind, message = MISSPELT[case]
    with pytest.raises(kind) as error:
        bind_view(make_view(expression), SOURCES)
    assert str(error.value) == f"{message}. ({HERE})"


def test_a_misspelt_word_in_a_label():
    task = make_task(_.amount.sum(where=_.brnd == "x"))
    with pytest.raises(UnknownName) as error:
        bind_task(task, {"orders": make_view()}, {"orders": make_view()}, SOURCES)
    assert str(error.value) == f"churn.label: no column or method 'brnd'; did you mean \"brand\"?. ({HERE})"


@pytest.mark.parametrize(
    ("expression", "kind"),
    [
        (latest(_.event_at), "timestamp"),
        (_.event_day.max(), "date"),
        (_.brand.collect(), "array<string>"),
        (_.cutoff.max() - _.event_at.max(), "interval"),
    ],
)
def test_a_feature_is_a_number_a_truth_or_text(expression, kind):
    message = rf"^orders\.n: a feature is a number, true/false or text, got {kind}.*; write days_since\(\.\.\.\) for an"
    with pytest.raises(DefinitionError, match=message):
        bind_view(make_view(expression), SOURCES)
    for fits in (latest(_.brand), latest(_.amount), latest(_.cancelled), days_since(_.event_at.max()), _.count() > 1):
        assert bind_view(make_view(fits), SOURCES) is None


ONLY = {
    "column": (_.categry == "DELI", r"churn\.only: no column or method 'categry'; did you mean \"category\"\?"),
    "method": (_.brand.startwith("x"), r"churn\.only: no method 'startwith' of type string"),
    "number": (_.amount, r"churn\.only: not a condition on fact_id, .*: it is decimal\(18, 4\); write for example"),
    "text": (_.category, r"it is string; write for example"),
    "aggregate": (_.count() > 3, r"it has one value for all facts; write for example"),
    "compared with another type": (_.amount == "x", r"Arguments amount:decimal\(18, 4\) and Literal\(x\):string"),
}


@pytest.mark.parametrize("case", ONLY)
def test_what_counts_for_a_label_is_a_condition_on_facts(case):
    only, message = ONLY[case]
    task = make_task(label=Label(source="order_line", value=_.count() == 0, only=only))
    with pytest.raises(ForetellError, match=f"^.*{message}.*{HERE}"):
        bind_task(task, {"orders": make_view()}, {"orders": make_view()}, SOURCES)


def test_targets_are_tasks_of_their_own():
    label = Label(source="order_line", value=_.count() > 0, only=_.quantity > 0)
    task = make_task(label=label, targets={"deli": _.category == "DELI", "own_brand": _.brand == "OURS"})
    same, deli, own = task.expanded()
    assert same is task
    assert [t.name for t in (same, deli, own)] == ["churn", "churn_deli", "churn_own_brand"]
    assert [(t.base, t.target) for t in (same, deli, own)] == [("", ""), ("churn", "deli"), ("churn", "own_brand")]
    assert deli.view_names == ("orders", "churn_deli")
    for one in (deli, own):
        assert (one.population, one.horizon, one.settle, one.metric, one.purpose, one.where) == (
            task.population, task.horizon, task.settle, task.metric, task.purpose, __file__
        )  # fmt: skip
        assert one.targets == {}
        assert one.expanded() == [one]
        assert kind_of(one, SOURCES) == "probability"
    # a target narrows what the label counts by itself
    assert attributes(deli.label.only) == {"quantity", "category"}
    assert attributes(own.label.only) == {"quantity", "brand"}
    view = deli.views[-1]
    assert set(view.features) == {
        "deli_facts_90d", "deli_facts_365d", "days_since_deli", "deli_orders_365d", "deli_spend_365d"
    }  # fmt: skip
    assert bind_view(view, SOURCES) is None
    redeemed = make_task(label=Label(source="redemption", value=_.count() > 0), targets={"app": _.kind == "app"})
    assert set(redeemed.expanded()[1].views[-1].features) == {"app_facts_90d", "app_facts_365d", "days_since_app"}
    copy = pickle.loads(pickle.dumps(deli))
    assert (copy.name, copy.target, copy.view_names) == ("churn_deli", "deli", ("orders", "churn_deli"))


def test_a_feature_is_an_aggregate():
    message = (
        r"^orders\.n: not an aggregate of fact_id, .*: it has a value for every row; write for example _\.amount\.sum"
    )
    with pytest.raises(DefinitionError, match=message):
        bind_view(make_view(_.amount * 2), SOURCES)


@pytest.mark.parametrize(("source", "near"), [("order_lines", "order_line"), ("tilll", "till")])
def test_an_unknown_source_or_role(source, near):
    with pytest.raises(UnknownName) as error:
        bind_view(make_view(source=source), SOURCES)
    assert str(error.value) == f'{source}: no such source or role; did you mean "{near}"?. ({HERE})'
    task = make_task(label=Label(source=source, value=_.count() == 0))
    with pytest.raises(UnknownName, match=f'{source}: no such source or role; did you mean "{near}"'):
        bind_task(task, {"orders": make_view()}, {"orders": make_view()}, SOURCES)


def test_an_unknown_view_of_a_task():
    with pytest.raises(UnknownName) as error:
        bind_task(make_task(views=("order",)), {"orders": make_view()}, {}, SOURCES)
    assert str(error.value) == f'order: no such feature view; did you mean "orders"?. ({HERE})'


def test_a_label_is_a_truth_or_a_number():
    with pytest.raises(DefinitionError) as error:
        bind_task(make_task(_.brand.max()), {"orders": make_view()}, {"orders": make_view()}, SOURCES)
    assert str(error.value) == f"churn: a label is true/false or a number, got string; compare or sum. ({HERE})"
    assert kind_of(make_task(_.count() == 0), SOURCES) == "probability"
    assert kind_of(make_task(_.amount.sum()), SOURCES) == "amount"


def test_only_a_label_sees_the_horizon():
    assert "horizon_start" in facts_schema("order_line", SOURCES, label=True)
    assert "horizon_start" not in facts_schema("order_line", SOURCES)


def test_own_fields_have_their_types():
    own = make_source(role="order_line", columns={"order_id": "o", "amount": "a", "shelf": "s", "weight": "w"},
                      types={"shelf": "INTEGER", "weight": "DOUBLE"})  # fmt: skip
    assert own.fields["shelf"] == "INTEGER"
    assert own.fields["brand"] == "VARCHAR"
    crm = make_source(kind="records", event_at=None, traits={"city": "town", "shoe": "size"})
    assert crm.role == "person"  # rows about a person need not say so
    assert crm.fields == {**ROLES["person"], "shoe": "VARCHAR"}
    assert bind_view(make_view(_.weight.sum(), source="till"), {"till": own}) is None


def test_declarations_pickle():
    view = pickle.loads(pickle.dumps(make_view(_.amount.sum(where=past(days(30))))))
    assert (view.name, attributes(view.features["n"])) == ("orders", {"amount", "sum", "event_at", "cutoff"})
    assert bind_view(view, SOURCES) is None
    task = pickle.loads(pickle.dumps(make_task(_.count(where=future(days(30))) == 0, views=(view,))))
    assert future_windows(task.label.value) == [days(30)]
    assert task.view_names == ("orders",)
    assert pickle.loads(pickle.dumps(TILL)).fields == TILL.fields


def test_a_changed_copy_is_checked_and_belongs_to_its_file():
    assert replace(make_task(), horizon=days(7)).where == __file__
    with pytest.raises(DefinitionError, match="horizon must be a positive duration"):
        replace(make_task(), horizon=days(0))


# Views of several roles, of rows made of facts, of other entities.


def _bound(view: FeatureView) -> str | None:
    return bind_view(view, {**SOURCES, "desk": Source(name="desk", files="*", event_at="at", role="message")})


def by_product(facts):
    return facts.group_by("profile_id", "cutoff", "product_id").aggregate(lines=facts.count())


def test_rows_made_of_facts_are_aggregated() -> None:
    assert _bound(make_view(_.lines.max(), each=by_product)) is None
    with pytest.raises(UnknownName, match=r"orders\.n: no column or method 'line'; did you mean"):
        _bound(make_view(_.line.max(), each=by_product))


def test_only_windows_of_a_view_of_everybodys_facts_mix_profiles() -> None:
    def shared(f):
        return f.mutate(n=f.amount.sum().over(group_by=f.product_id))

    def all_of_it(f):
        return f.group_by("cutoff", "product_id").aggregate(profile_id=f.profile_id.max())

    assert _bound(make_view(_.n.max(), each=shared, facts_of="everybody")) is None
    with pytest.raises(DefinitionError, match="a window would mix"):
        _bound(make_view(_.n.max(), each=shared))
    with pytest.raises(DefinitionError, match="an aggregate would mix"):
        _bound(make_view(_.count(), each=all_of_it, facts_of="everybody"))


@pytest.mark.parametrize(
    ("each", "said"),
    [
        (
            lambda f: f.group_by("cutoff", "product_id").aggregate(profile_id=f.profile_id.max()),
            "an aggregate would mix",
        ),
        (lambda f: f.mutate(n=f.amount.sum().over(order_by=f.event_at)), "a window would mix"),
        (lambda f: f.join(f.view(), "product_id").select("profile_id", "cutoff"), "a join would mix"),
        (lambda f: f.limit(3), "a limit would mix"),
        (
            lambda f: f.mutate(n=f.amount.count().over(group_by=f.profile_id, order_by=f.event_at)),
            r"over an order is of all rows, before and after; say rows=\(None, 0\)",
        ),
        (lambda f: f.select("profile_id"), "expected a table with cutoff, profile_id; got the columns profile_id"),
        (lambda f: 3, "expected a table with cutoff, profile_id; got 3"),
        (lambda f: f.filter(f.cancel), "no column or method 'cancel'; did you mean"),
    ],
)
def test_each_must_keep_profiles_apart(each: Any, said: str) -> None:
    with pytest.raises((DefinitionError, UnknownName), match=said):
        _bound(make_view(_.count(), each=each))


def test_a_view_of_several_roles_sees_the_columns_of_all() -> None:
    both = ("order_line", "message")
    assert (
        _bound(make_view(_.campaign_id.nunique(where=_.role == "message") + _.order_id.nunique(), source=both)) is None
    )
    with pytest.raises(UnknownName, match="did you mean"):
        _bound(make_view(_.count(), source=("order_line", "mesage")))
    assert (
        bind_view(make_view(_.count(), source=("order_line", "ticket")), SOURCES) == "no source plays the role ticket"
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"entity": "person"}, 'entity is one of "profile", "account", "profile_category"'),
        ({"entity": "account", "facts_of": "account"}, "facts_of says whose facts"),
        ({"facts_of": "family"}, 'facts_of is one of "profile", "account", "everybody"'),
        ({"facts_of": "everybody"}, "without each"),
        ({"each": 3}, "each is a function"),
        ({"source": ()}, "source is the name of a role or a source"),
        ({"tasks": "churn"}, 'write tasks=("churn",)'),
    ],
)
def test_views_are_refused_with_a_way_out(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(DefinitionError, match=re.escape(said)):
        make_view(_.count(), **changes)


@pytest.mark.parametrize(
    ("what", "unit", "said"), [("lines", "line", "unit is one of"), (" ", "count", "says nothing")]
)
def test_a_feature_says_what_it_is(what: str, unit: str, said: str) -> None:
    with pytest.raises(DefinitionError, match=said):
        Feature(_.count(), what, unit)


def test_a_category_must_be_among_the_facts() -> None:
    with pytest.raises(DefinitionError, match="its facts have no category"):
        _bound(make_view(_.count(), source="message", entity="profile_category"))


def test_accounts_need_a_source_that_says_them() -> None:
    for changes in ({"entity": "account"}, {"facts_of": "account"}):
        assert "which account" in str(_bound(make_view(_.count(), **changes)))


def test_a_view_joins_the_tasks_it_names(tmp_path: Path) -> None:
    """A new feature is one file: no task is edited."""
    from conftest import write_shop

    from foretell.discovery import discover

    folder = write_shop(tmp_path / "shop", {}).folder
    (folder / "views").mkdir()
    text = (
        "from foretell import FeatureView, _\n"
        'extra = FeatureView(name="extra", source="order_line", features={"n_ever": _.count()}, tasks=("churn",))\n'
    )
    (folder / "views" / "extra.py").write_text(text)
    found = discover(folder)
    assert found.task("churn").view_names[-1] == "extra"
    assert "extra" not in found.task("clv").view_names
    (folder / "views" / "extra.py").write_text(text.replace("churn", "chrun"))
    with pytest.raises(UnknownName, match=r'did you mean "churn"'):
        discover(folder)
    (folder / "views" / "extra.py").write_text(
        text.replace(', tasks=("churn"', ', entity="profile_category", tasks=("churn"')
    )
    with pytest.raises(DefinitionError, match="is about profiles, and the view extra about a profile_category"):
        discover(folder)

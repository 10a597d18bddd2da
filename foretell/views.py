"""How is a feature view declared? Aggregates of facts before T, each with what it means.

Equality is identity (`eq=False`): deferred expressions can be pickled, but neither hashed nor compared.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from foretell.checks import caller, check_aggregate, check_choice, check_duration, check_name, short
from foretell.errors import DefinitionError
from foretell.windows import FUTURE_COLUMN, attributes, past_windows

# Of whom or what a row may be -> the columns that name it. An account is a company (see unification.accounts).
ENTITIES: dict[str, tuple[str, ...]] = {
    "profile": ("profile_id",),
    "account": ("account_id",),
    "profile_category": ("profile_id", "category"),
}
# What a value may be counted in. money: in the source's currency; share: 0 to 1; ratio: one thing over
# another; points: on a scale of the source's own.
UNITS = ("count", "money", "days", "years", "hours", "minutes", "points", "share", "ratio", "bits", "text", "yes/no")
# In what a feature says: a part that may be left out, and a place for a value, with the noun that it counts.
OPTIONAL = re.compile(r"\[([^\[\]]*)\]")
PLACE = re.compile(r"\{([a-z][a-z0-9_]*)(?::([^{}\[\]:/]+)(?:/([^{}\[\]:/]+))?)?\}")
_SENTENCE = 'says="no order for {value}[, usually every {mean_gap_days_ever}]"'


@dataclass(frozen=True, eq=False)
class Feature:
    """An aggregate and what it means.

    value: deferred aggregate of the facts. what: what it tells, in words. unit: one of UNITS. null: what it means that
    there is no value, such as "no order yet"; "" where there always is one.
    says: the sentence about a profile when this is a reason of its score; "": one is made of the words above.
        {value} is the profile's value in words, {typical} that of a typical profile, and any other feature of the same
        model goes by its name. {value:order} counts: "no orders", "1 order", "3 orders"; {value:box/boxes}, where an s
        is not enough. A part in [square brackets] is left out when what it names is unknown, so whatever is not
        {value} is named in one. Of who has no value, `null` is said.
    """

    value: Any
    what: str
    unit: str = "count"
    null: str = ""
    says: str = ""
    where: str = field(init=False, default_factory=caller, repr=False)

    def __post_init__(self) -> None:
        at = short(self.where)
        check_choice(self.what or "feature", "unit", self.unit, UNITS, at)
        if not self.what.strip():
            raise DefinitionError(
                "feature", "says nothing about itself", 'Feature(_.count(), "lines bought")', where=at
            )
        if self.says != "":
            _check_says(self.what, self.says, at)


def _check_says(subject: str, says: Any, at: str) -> None:
    if not isinstance(says, str):
        raise DefinitionError(subject, f"says is a sentence, got {says!r}", f"write {_SENTENCE}", where=at)
    always, optional = OPTIONAL.sub(" ", says), OPTIONAL.findall(says)
    if any(re.search(r"[{}\[\]]", PLACE.sub("", part)) for part in (always, *optional)):
        problem = f"says has places such as {{value}} or {{value:order}}, and parts in [square brackets], got {says!r}"
        raise DefinitionError(subject, problem, f"write for example {_SENTENCE}", where=at)
    if {name for name, *_ in PLACE.findall(always)} != {"value"}:
        problem = f"says names {{value}} outside of square brackets, and nothing else there, got {says!r}"
        raise DefinitionError(subject, problem, f"write for example {_SENTENCE}", where=at)
    if plain := [part for part in optional if not PLACE.search(part)]:
        problem = f"a part in square brackets is left out when what it names is unknown, and [{plain[0]}] names nothing"
        raise DefinitionError(subject, problem, "name a feature in it, or take the brackets away", where=at)


@dataclass(frozen=True, eq=False)
class FeatureView:
    """What did we know about an entity at T? Aggregates of facts before T.

    name: of the view. source: a role such as "order_line", the name of one source, or several of them: the facts then
    have the columns of all, and `role` says which of them a fact is of. features: feature name -> aggregate expression
    (deferred, `_` is the table of facts), or a Feature, which says what it means. ttl: how long a row may be used after
    its T.
    lookback: the features see the facts of `[T − lookback, T)` only, which is faster than `past(...)` in each of them;
        None: of all times.
    entity: of whom or what a row is, of ENTITIES. Of a profile_category there are rows where there are facts.
    facts_of: "profile": the facts are those of the entity itself; "account": a profile's features are made of the
        facts of everybody in its account; "everybody": the windows of `each` may be of all profiles, by product for
        instance. Such a view is built for all profiles whenever anybody has a new fact.
    tasks: tasks that see this view beside those that name it in their `views`: a new view is one file.
    each: what the features aggregate, where that is not facts but something made of them, such as visits or products:
        a function from the table of facts to one of rows, both of ibis, that keeps `profile_id` and `cutoff`. It must
        not mix profiles: whatever it groups or orders is grouped by `profile_id` too, but for windows in a view of
        everybody's facts.
    docs: feature -> what it means; filled from the features that say so.
    """

    name: str
    source: str | tuple[str, ...]
    features: Mapping[str, Any]
    ttl: timedelta = timedelta(days=2)
    lookback: timedelta | None = None
    entity: str = "profile"
    description: str = ""
    facts_of: str = "profile"
    tasks: tuple[str, ...] = ()
    each: Callable[[Any], Any] | None = None
    docs: Mapping[str, Feature] = field(default_factory=dict, repr=False)
    where: str = field(init=False, default_factory=caller, repr=False)

    def __post_init__(self) -> None:
        check_name("feature view", self.name, self.where)
        at = short(self.where)
        if not self.features:
            raise DefinitionError(
                self.name, "a view needs at least one feature", 'features={"orders_90d": ...}', where=at
            )
        documented = {n: f for n, f in self.features.items() if isinstance(f, Feature)}
        object.__setattr__(self, "docs", {**self.docs, **documented})  # `replace` hands on what was said before
        plain = {name: f.value if isinstance(f, Feature) else f for name, f in self.features.items()}
        object.__setattr__(self, "features", plain)
        check_duration(self.name, "ttl", self.ttl, self.where, "use days(2)")
        if self.lookback is not None:
            check_duration(self.name, "lookback", self.lookback, self.where, "use days(90), or leave it out")
        check_choice(self.name, "entity", self.entity, tuple(ENTITIES), at)
        check_choice(self.name, "facts_of", self.facts_of, ("profile", "account", "everybody"), at)
        if self.facts_of != "profile" and self.entity != "profile":
            problem = f"facts_of says whose facts a profile's features are made of, and the entity is {self.entity}"
            raise DefinitionError(self.name, problem, "leave it out", where=at)
        if self.facts_of == "everybody" and self.each is None:
            problem = "without each, a profile's features are made of its own facts, and facts_of is everybody"
            raise DefinitionError(self.name, problem, "give it each=..., or leave facts_of out", where=at)
        if isinstance(self.tasks, str):
            problem = f"tasks are several names, got the text {self.tasks!r}"
            raise DefinitionError(self.name, problem, f'write tasks=("{self.tasks}",)', where=at)
        if self.each is not None and not callable(self.each):
            problem = f"each is a function from the table of facts to one of rows, got {self.each!r}"
            raise DefinitionError(self.name, problem, "write each=products, the function's name", where=at)
        if not self.source or not all(isinstance(name, str) for name in self.roles):
            problem = f"source is the name of a role or a source, or several, got {self.source!r}"
            raise DefinitionError(self.name, problem, 'write source="order_line"', where=at)
        for name, expression in self.features.items():
            check_name("feature", name, self.where)
            check_aggregate(f"{self.name}.{name}", expression, self.where)
            if FUTURE_COLUMN in attributes(expression):
                raise DefinitionError(
                    f"{self.name}.{name}", "looks into the future; a feature is what was known before the cutoff",
                    "use past(...); future(...) belongs in a Label", where=at,
                )  # fmt: skip

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles and sources whose facts it sees."""
        return self.source if isinstance(self.source, tuple) else (self.source,)

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns that name the entity a row is of."""
        return ENTITIES[self.entity]

    def window(self, feature: str) -> str:
        """Of which time a feature is: "90 days", "30 and 90 days" if it compares two, or "ever"."""
        lengths = {*past_windows(self.features[feature]), *([self.lookback] if self.lookback else [])}
        said = [f"{length / timedelta(days=1):g}" for length in sorted(lengths)]
        return f"{', '.join(said[:-1])}{' and ' if said[:-1] else ''}{said[-1]} days" if said else "ever"


@dataclass(frozen=True, eq=False)
class FrozenView(FeatureView):
    """A view as it was when a model was trained on it: its SQL in place of its expressions.

    version: name and fingerprint. sql: (one row per entity with facts, the empty row), as features.compiling makes it.
    kinds: feature -> type. contracts: what of the sources, and of the rules, its values hang on, as JSON.
    """

    version: str = ""
    sql: tuple[str, str] = ("", "")
    kinds: Mapping[str, str] = field(default_factory=dict)
    contracts: str = ""

    def __post_init__(self) -> None:
        """It was checked when it was a declaration."""

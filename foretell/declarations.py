"""How is a source, an attribute, a label or a task declared? Frozen dataclasses, checked when they are made.

Equality is identity (`eq=False`): deferred expressions can be pickled, but neither hashed nor compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from foretell.checks import (
    caller,
    check_aggregate,
    check_choice,
    check_condition,
    check_country,
    check_duration,
    check_name,
    check_rule,
    short,
)
from foretell.connectors import REST, SQL, Connector, Kafka
from foretell.errors import DefinitionError, unknown
from foretell.roles import REQUIRED, ROLES
from foretell.views import Feature, FeatureView
from foretell.windows import _, days_since, days_until, future_windows, past

# Tables that every lake has beside its sources'.
RESERVED = {
    "batches", "quarantine", "scores", "attributes", "facts", "member", "alias", "edges", "refused_edges", "golden",
    "profiles", "normal_forms", "accounts", "account_members", "consents", "training_rows", "erasures", "decisions",
}  # fmt: skip
# What a trait can be, and what those of these names are unless a contract says otherwise.
KINDS = ("name", "full name", "date", "date dmy", "date mdy", "address", "city", "postcode", "country", "text")
KIND_OF = {
    "first_name": "name", "last_name": "name", "full_name": "full name", "birth_date": "date", "street": "address",
    "city": "city", "postcode": "postcode", "country": "country",
}  # fmt: skip
PARTIES = ("first", "second", "third")
ENRICH = ("fill", "update")
_ACCOUNT_COLUMNS = {"id", "domain", "domains", "ids", "people", "known_since"}
KEEP = ("most_trusted", "most_recent", "most_frequent", "longest")


def _say(lengths: list[timedelta]) -> tuple[str, list[str]]:
    """The unit that says all of these durations exactly, and how many of it each is."""
    unit = "days" if all(length % timedelta(days=1) == timedelta(0) for length in lengths) else "hours"
    return unit, [f"{length / timedelta(**{unit: 1}):g}" for length in lengths]


@dataclass(frozen=True, eq=False)
class Source:
    """A source contract: where its files lie, what a row is, and how its columns are understood.

    name: also the name of its table in the lake.
    files: glob below the project's `exports` folder; .csv, .jsonl/.ndjson, .parquet or .xlsx.
    connector: in place of files, a database or an API to pull rows from, or a topic to follow (see foretell.connectors:
        SQL, REST, Kafka).
    stream: instead of files, the stream of collected events (`foretell collect`) that it reads; several may read one.
    kind: "events" (timestamped facts) or "records" (rows about a person).
    role: which role its rows play (see foretell.roles); views are written against roles. Records play "person".
    event_at: column (or SQL expression over the row's columns) with the time the fact happened.
    columns: role column or own field -> SQL expression over the row's columns (a bare name, or `a.b` in JSON).
    types: SQL types of own fields, default VARCHAR.
    identifiers: identifier type -> expression; order is priority: the first present one anchors the fact.
    traits: for records, attribute of a profile -> expression.
    timezone, currency: the shop's; "a day" is the shop's day. Times without an offset are read in `times_in`
        (default: timezone).
    delay: backfilled facts could have been known this long after they happened; None: the file is delivered live and
        a fact is known when it is received.
    known_at: expression with the time the fact became known, when the file says so itself (overrides delay).
    known_since: for records without a time of their own: the time they count as known. Without it, load time.
    trust: rank when golden profiles are made of several sources; higher wins.
    only: SQL condition over the row's columns; rows of which it is not true are no facts of this source. They are
        counted and left out, not quarantined.
    aliases: column as this contract writes it -> other names under which files have it (in JSON: other paths, of which
        a row has one).
    optional: columns that a file may lack; there they are NULL.
    key: expression that stays the same when a row is changed, such as its number. Rows of one key are versions of one
        fact: at T, the last one known before T counts. Without it every row that differs is a fact of its own.
    unique: expression that tells one fact from another, such as "messageId": rows of one value are one fact, and the
        first counts, in whatever file the others come. Without it the whole row does, and equal rows of one file are
        several.
    country: ISO code ("US") of the country whose telephone numbers come without a country's code. Numbers then become
        "+12125550103". Without it: that of the project's other sources if they agree on one; "" says that it is not
        known. Numbers of no known country stay digits.
    kinds: what a trait is, where its name does not tell (see KIND_OF): "name", "full name", "date", "date dmy" or "date
        mdy" (what 3/4/1985 is), "address", "city", "postcode", "country"; "text": left as it came.
    rules: what holds for a good row: name -> SQL condition over the row's columns. A row of which one is false goes to
        quarantine, with the rule's name; as with SQL's CHECK, one of which it is unknown passes, and so does one
        for which it cannot be reckoned.
    quarantine_at_most: the share of a file's rows that may go to quarantine, 0 to 1. A file with more is refused
        whole, before anything of it is written. None: it is loaded, however many.
    party: whose data these are: "first" (the company's own), "second" (a partner's), "third" (bought). What is not the
        company's own enriches profiles that are known by one of the row's identifiers: it makes none, and links none.
    enrich: how, of a second or third party: "fill" (default) where nobody else says anything, or "update": its values
        compete with the company's own by the attribute's rule. An Attribute may say otherwise.
    account: expression that names the account (company) that the row's person belongs to, such as a CRM's company id.
        In records the latest row of a person's identifier counts, in events each. Sources that share the ids say a type
        for them, as of identifiers: {"company": "company_id"}.
    account_domain: expression for that account's internet domain: it links the id with e-mail addresses.
    account_traits: attribute of the account -> expression, such as its name or industry.
    consents: purpose -> expression that is yes or no (true, 1, granted, … or false, 0, withdrawn, …); where it is empty
        the row says nothing. Each is a consent given or withdrawn when the fact happened.
    """

    name: str
    files: str | None = None
    kind: str = "events"
    role: str | None = None
    event_at: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)
    identifiers: Mapping[str, str] = field(default_factory=dict)
    traits: Mapping[str, str] = field(default_factory=dict)
    timezone: str = "UTC"
    times_in: str | None = None
    currency: str = "EUR"
    delay: timedelta | None = timedelta(0)
    known_at: str | None = None
    known_since: datetime | None = None
    trust: int = 0
    only: str | None = None
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    connector: Connector | None = None
    stream: str | None = None
    key: str | None = None
    unique: str | None = None
    country: str | None = None
    kinds: Mapping[str, str] = field(default_factory=dict)
    rules: Mapping[str, str] = field(default_factory=dict)
    quarantine_at_most: float | None = None
    party: str = "first"
    enrich: str = ""
    account: str | Mapping[str, str] | None = None
    account_domain: str | None = None
    account_traits: Mapping[str, str] = field(default_factory=dict)
    consents: Mapping[str, str] = field(default_factory=dict)
    where: str = field(init=False, default_factory=caller, repr=False)

    def __post_init__(self) -> None:
        check_name("source", self.name, self.where)
        at = short(self.where)
        if self.name in RESERVED:
            raise DefinitionError(self.name, "is the name of one of the lake's own tables", "rename it", where=at)
        stream = None if isinstance(self.connector, Kafka) else self.stream  # its own is set below
        if sum(given is not None for given in (self.files, self.connector, stream)) != 1:
            fix = 'say files="orders/*.csv", connector=SQL(…) or stream="web"'
            raise DefinitionError(self.name, "expected files, a connector or a stream, one of them", fix, where=at)
        if self.stream is not None:
            check_name("stream", self.stream, self.where)
        if self.connector is not None:
            if not isinstance(self.connector, SQL | REST | Kafka):
                problem = f"connector is SQL(…), REST(…) or Kafka(…), got {self.connector!r}"
                raise DefinitionError(self.name, problem, 'write SQL(url="env:NAME", table="orders")', where=at)
            self.connector.check(self.name, at)
            if isinstance(self.connector, Kafka):  # its messages are lines of a stream, as collected ones are
                object.__setattr__(self, "stream", self.connector.stream)
        if self.kind not in {"events", "records"}:
            raise DefinitionError(self.name, f'kind is "events" or "records", got {self.kind!r}', where=at)
        if self.kind == "events" and not self.event_at:
            raise DefinitionError(self.name, "events need a time", 'say event_at="<column>"', where=at)
        if self.kind == "records" and self.role is None:
            object.__setattr__(self, "role", "person")  # rows about a person need not say so
        if self.role is not None and self.role not in ROLES:
            raise unknown("role", self.role, ROLES, where=at)
        if self.role:
            for column in self.columns:
                if column not in ROLES[self.role] and column not in self.types and self.kind == "events":
                    raise DefinitionError(
                        f"{self.name}.{column}", f"role {self.role} has no such column",
                        f"known: {', '.join(ROLES[self.role])}; or give its type in types={{...}}", where=at,
                    )  # fmt: skip
            if missing := [c for c in REQUIRED[self.role] if c not in self.columns]:
                raise DefinitionError(self.name, f"role {self.role} needs columns {missing}", "map them", where=at)
        if self.delay is not None:
            check_duration(self.name, "delay", self.delay, self.where, "use days(0) or more", zero=True)
        for zone in filter(None, (self.timezone, self.times_in)):
            try:
                ZoneInfo(zone)
            except (ZoneInfoNotFoundError, ValueError):
                raise DefinitionError(
                    self.name, f"unknown time zone {zone!r}", 'use a name such as "Europe/Oslo"', where=at
                ) from None
        for kind in self.identifiers:
            check_name("identifier type", kind, self.where)
        if self.only is not None and not self.only.strip():
            raise DefinitionError(
                self.name, "only is an empty condition", 'say only="price > 0", or leave it', where=at
            )
        if self.key is not None and not self.key.strip():
            raise DefinitionError(self.name, "key is an empty expression", 'say key="order_id", or leave it', where=at)
        if self.unique is not None and not self.unique.strip():
            problem = "unique is an empty expression"
            raise DefinitionError(self.name, problem, 'say unique="messageId", or leave it', where=at)
        for column, names in self.aliases.items():
            if isinstance(names, str):
                problem = f"aliases are several names, got the text {names!r}"
                raise DefinitionError(self.name, problem, f'write {{"{column}": ("{names}",)}}', where=at)
        if isinstance(self.optional, str):
            problem = f"optional is several names, got the text {self.optional!r}"
            raise DefinitionError(self.name, problem, f'write ("{self.optional}",)', where=at)
        for trait in self.traits:
            check_name("trait", trait, self.where)
        if self.country:
            check_country(self.name, self.country, self.where)
        for trait, kind in self.kinds.items():
            if trait not in self.traits:
                raise unknown("trait", trait, self.traits, where=at)
            if kind not in KINDS:
                raise unknown("kind of trait", kind, KINDS, where=at)
        for name, condition in self.rules.items():
            check_rule(f"{self.name}, rule {name!r}", condition, self.where)
        most = self.quarantine_at_most
        if most is not None and (isinstance(most, bool) or not isinstance(most, int | float) or not 0 <= most <= 1):
            problem = f"quarantine_at_most is a share of the rows, 0 to 1, got {most!r}"
            raise DefinitionError(self.name, problem, "say 0.05 for one row in twenty", where=at)
        check_choice(self.name, "party", self.party, PARTIES, at)
        if self.enrich and self.party == "first":
            raise DefinitionError(
                self.name, "enrich is for data of others, and party is the first", 'say party="third" too', where=at
            )
        if self.party != "first":
            object.__setattr__(self, "enrich", self.enrich or "fill")
            check_choice(self.name, "enrich", self.enrich, ENRICH, at)
        if isinstance(self.account, Mapping) and len(self.account) != 1:
            problem = f"expected one type of account id, got {list(self.account)}"
            raise DefinitionError(self.name, problem, 'write account={"company": "company_id"}', where=at)
        if self.account:
            check_name("type of account id", self.account_kind, self.where)
            if self.account_kind == "domain":
                raise DefinitionError("domain", "is what e-mail addresses say", "say account_domain=…", where=at)
        if (self.account_traits or self.account_domain) and not self.account:
            raise DefinitionError(
                self.name, "says something about an account and not which", 'say account="<column>"', where=at
            )
        for trait in self.account_traits:
            check_name("account trait", trait, self.where)
            if trait in _ACCOUNT_COLUMNS:
                raise DefinitionError(trait, "is a column that every account has", "rename it", where=at)
        for purpose in self.consents:
            check_name("purpose", purpose, self.where)
        if self.consents and not self.identifiers:
            raise DefinitionError(self.name, "consents without identifiers are nobody's", "say identifiers", where=at)

    def kind_of(self, trait: str) -> str:
        """What a trait is, of KINDS."""
        return self.kinds.get(trait, KIND_OF.get(trait, "text"))

    @property
    def standing(self) -> int:
        """Its trust where facts are ranked one by one; whatever merely fills gaps stands below all others."""
        return self.trust - 1_000_000 if self.enrich == "fill" else self.trust

    @property
    def account_kind(self) -> str:
        """The type of its account ids: its own, unless it says one."""
        return next(iter(self.account)) if isinstance(self.account, Mapping) else self.name

    @property
    def account_columns(self) -> dict[str, str]:
        """Columns of its facts that speak of the person's account -> expression."""
        account = self.account[self.account_kind] if isinstance(self.account, Mapping) else self.account
        said = {"account_id": account, "account_domain": self.account_domain}
        said |= {f"account_{trait}": text for trait, text in self.account_traits.items()}
        return {column: text for column, text in said.items() if text}

    @property
    def fields(self) -> dict[str, str]:
        """Typed columns its facts carry beside stamps and identifiers: name -> SQL type."""
        own = {c: self.types.get(c, "VARCHAR") for c in self.columns if not (self.role and c in ROLES[self.role])}
        texts = dict.fromkeys([*self.traits, *self.account_columns], "VARCHAR")
        return {**(ROLES[self.role] if self.role else {}), **own, **texts}


@dataclass(frozen=True, eq=False)
class Attribute:
    """Which value of an attribute survives in the golden record, where facts say several.

    name: a trait, or an identifier type. keep: "most_trusted" (the rule of attributes without a declaration),
    "most_recent", "most_frequent" (said by the most facts) or "longest" (in characters). A tie is settled by recency,
    then by trust, then by fact id.
    trust: source -> its rank for this attribute, in place of the source's own.
    enrich: second- or third-party source -> "fill" or "update", in place of the source's own.
    """

    name: str
    keep: str = "most_trusted"
    trust: Mapping[str, int] = field(default_factory=dict)
    enrich: Mapping[str, str] = field(default_factory=dict)
    where: str = field(init=False, default_factory=caller, repr=False)

    def __post_init__(self) -> None:
        check_name("attribute", self.name, self.where)
        check_choice(self.name, "keep", self.keep, KEEP, short(self.where))
        for source, mode in self.enrich.items():
            check_choice(f"{self.name}, {source}", "enrich", mode, ENRICH, short(self.where))


@dataclass(frozen=True, eq=False)
class Label:
    """What happened in the horizon `[T, T + horizon)`: one aggregate over the facts of a role or source.

    value: deferred aggregate; boolean makes a probability task, a number an amount task.
    only: condition on the facts that count (deferred boolean); all of them without it.
    """

    source: str
    value: Any
    only: Any = None
    where: str = field(init=False, default_factory=caller, repr=False)

    def __post_init__(self) -> None:
        check_aggregate("label", self.value, self.where)
        if self.only is not None:
            check_condition("only", self.only, self.where)


@dataclass(frozen=True, eq=False)
class Until(Label):
    """How many days until the first fact of a role or source: when will they order next?

    Whoever has none within the horizon counts as the whole horizon: it takes longer, and nobody knows how long yet.
    only: condition on the facts that are waited for.
    """

    value: Any = field(init=False, default_factory=lambda: days_until(_.event_at.min()))


@dataclass(frozen=True, eq=False)
class Enters:
    """Does the profile satisfy a rule at the end of the horizon? Asked about those that do not satisfy it at T.

    rule: over features ("top(spend_90d, 0.1)"), or the name of a declared segment whose rule reads features only.
    `top` and `bottom` rank the task's population, then and now. This is a lookalike that can be checked: who is about
    to become what the seed is.
    """

    rule: str
    where: str = field(init=False, default_factory=caller, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.rule, str) or not self.rule.strip():
            raise DefinitionError(
                "Enters", f"expected a rule or the name of a segment, got {self.rule!r}",
                'write Enters("top(spend_90d, 0.1)")', where=short(self.where),
            )  # fmt: skip


@dataclass(frozen=True, eq=False)
class PredictionTask:
    """The question: for whom, how far ahead, about what, from which views, for which purpose.

    population: who is eligible at T, a rule over features ("orders_180d > 0"). horizon: how far the label looks.
    settle: how long after the horizon late facts are waited for. views: names or FeatureViews. metric: what decides
    between candidates. purpose: what the prediction may be used for (consent is asked for it).
    targets: target -> condition on the label's facts; the same question is asked of each, as a task `<name>_<target>`
    of its own, which also sees how often and how recently the profile did just that (the view `<name>_<target>`):
    targets={"deli": _.category == "DELI"}. base: of such a task, the name of the task it came from.
    groups: features by whose values its backtest is also told apart, such as a country: groups=("known_country",).
    """

    name: str
    population: str
    horizon: timedelta
    label: Label | Enters
    views: tuple[Any, ...]
    metric: str
    purpose: str
    settle: timedelta = timedelta(days=1)
    description: str = ""
    targets: Mapping[str, Any] = field(default_factory=dict)
    base: str = ""
    groups: tuple[str, ...] = ()
    where: str = field(init=False, default_factory=caller, repr=False)

    def __post_init__(self) -> None:
        check_name("task", self.name, self.where)
        at = short(self.where)
        check_duration(self.name, "horizon", self.horizon, self.where, "use days(90)")
        check_duration(self.name, "settle", self.settle, self.where, "use days(1)", zero=True)
        if not self.purpose:
            raise DefinitionError(self.name, "a prediction needs a purpose", 'say purpose="retention"', where=at)
        if not isinstance(self.population, str) or not self.population.strip():
            problem = f"expected a rule for whom it is asked, got {self.population!r}"
            raise DefinitionError(self.name, problem, 'write population="orders_365d > 0"', where=at)
        if not self.views:
            raise DefinitionError(self.name, "a task needs at least one view", 'views=("orders",)', where=at)
        if isinstance(self.views, str) or not all(isinstance(view, str | FeatureView) for view in self.views):
            problem = f"views are names or FeatureViews, got {self.views!r}"
            raise DefinitionError(self.name, problem, 'write views=("orders",), with the comma', where=at)
        if isinstance(self.groups, str):
            problem = f"groups are several names of features, got the text {self.groups!r}"
            raise DefinitionError(self.name, problem, f'write groups=("{self.groups}",)', where=at)
        if not isinstance(self.label, Label | Enters):
            problem = f"expected a Label, Until or Enters, got {self.label!r}"
            raise DefinitionError(
                self.name, problem, 'write label=Label(source="order_line", value=_.count() > 0)', where=at
            )
        if not isinstance(self.targets, Mapping):
            problem = f"targets are names with conditions, got {self.targets!r}"
            raise DefinitionError(self.name, problem, 'write targets={"deli": _.category == "DELI"}', where=at)
        for target, condition in self.targets.items():
            check_name("target", target, self.where)
            check_condition(f"{self.name}, target {target}", condition, self.where)
        if self.targets and isinstance(self.label, Enters):
            raise DefinitionError(
                self.name, "targets narrow the facts of a Label, and Enters has none", "write one task for each rule",
                where=at,
            )  # fmt: skip
        ahead = [] if isinstance(self.label, Enters) else [self.label.value, self.label.only]
        longest = max((window for part in ahead for window in future_windows(part)), default=timedelta(0))
        if longest > self.horizon:
            unit, (far, near) = _say([longest, self.horizon])
            raise DefinitionError(
                self.name,
                f"label looks {far} {unit} ahead but horizon is {near}",
                f"raise horizon or use {unit}({near})",
                where=at,
            )

    @property
    def standard(self) -> bool:
        """Whether it comes with Foretell, rather than with the project."""
        return Path(self.where).parent == Path(__file__).parents[1] / "models"

    @property
    def target(self) -> str:
        """Of a task that came from another's targets: which target."""
        return self.name.removeprefix(f"{self.base}_") if self.base else ""

    @property
    def view_names(self) -> tuple[str, ...]:
        return tuple(v if isinstance(v, str) else v.name for v in self.views)

    def expanded(self) -> list[PredictionTask]:
        """This task, and one for each of its targets."""
        made: list[PredictionTask] = [self]
        for target, named in self.targets.items():
            assert isinstance(self.label, Label)
            condition = named if self.label.only is None else self.label.only & named
            label = replace(self.label, only=condition)
            own = _history(f"{self.name}_{target}", target, label.source, condition)
            task = replace(self, name=own.name, label=label, views=(*self.views, own), targets={}, base=self.name)
            for part in (label, own, task):
                object.__setattr__(part, "where", self.where)
            made.append(task)
        return made


def _history(name: str, target: str, source: str, condition: Any) -> FeatureView:
    """A target's own recency and frequency, and its money where the facts are order lines."""
    recent, year = past(timedelta(days=90)) & condition, past(timedelta(days=365)) & condition
    features = {
        f"{target}_facts_90d": Feature(
            _.count(where=recent), f"facts of {target}", says=f"{{value:fact}} of {target} in 90 days"
        ),
        f"{target}_facts_365d": Feature(
            _.count(where=year), f"facts of {target}", says=f"{{value:fact}} of {target} in 365 days"
        ),
        f"days_since_{target}": Feature(
            days_since(_.event_at.max(where=condition)),
            f"since the last fact of {target}",
            "days",
            f"no {target} yet",
            f"no {target} for {{value}}",
        ),
    }
    if source == "order_line":
        features |= {
            f"{target}_orders_365d": Feature(
                _.order_id.nunique(where=year),
                f"orders with {target}",
                says=f"{{value:order}} with {target} in 365 days",
            ),
            f"{target}_spend_365d": Feature(
                _.amount.sum(where=year).fill_null(0),
                f"spent on {target}",
                "money",
                says=f"{{value}} spent on {target} in 365 days",
            ),
        }
    description = f"What the profile did of {target}, for the task {name}."
    return FeatureView(name=name, source=source, features=features, description=description)

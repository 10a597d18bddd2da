"""How are two people compared, column by column? Splink's comparison levels for the columns that a table has.

The settings are a pure function of the columns and of what was learnt, free of any engine: Splink runs the same ones on
DuckDB and on Spark. A comparison's levels go from the surest agreement to none; what is not said is never held against
anybody (its null level weighs nothing). Term frequencies make a rare name tell more than a frequent one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from foretell.errors import NotReady

RAREST = 1e-6  # share of a value from which on its rarity tells no more


@dataclass(frozen=True)
class Level:
    """make: of Splink's level, when it is wanted. usual: how often people who match are at it, before anything is
    learnt. exact: the column of which this level is equality: how often chance does it follows from its values.
    frequency: the column, equal at this level, of which a rare value tells more."""

    label: str
    make: Any
    usual: float
    exact: str = ""
    frequency: str = ""


@dataclass(frozen=True)
class Compared:
    """One comparison. levels: the surest first, the null level not among them; the value of gamma is the place from the
    end, -1 for null. null: SQL of that. reads: the columns whose values are shown. identifies: whether it says who one
    is; else where one lives, or what many are."""

    name: str
    null: str
    levels: list[Level]
    reads: list[str] = field(default_factory=list)
    identifies: bool = True


@dataclass(frozen=True)
class Learnt:
    """What a model knows. prior: probability that two records are one person. m, u: comparison -> probability of each
    level (as in `Compared.levels`) among those who are, and who are not. household: the share of pairs that live
    together, and h: level by level how those compare; {} where no address tells."""

    prior: float
    m: Mapping[str, Sequence[float]]
    u: Mapping[str, Sequence[float]]
    household: float = 0.0
    h: Mapping[str, Sequence[float]] = field(default_factory=dict)


def splink() -> Any:
    """The package, or NotReady."""
    try:
        import splink as package
    except ImportError as error:
        raise NotReady("matching", "needs Splink", "pip install 'splink>=5'") from error
    return package


def compared(columns: Sequence[str]) -> list[Compared]:
    """The comparisons for these columns of `prepare.prepare`'s table."""
    have = set(columns)
    makers = {
        "first": _first, "last": _last, "middle": _middle, "birth": _birth, "age": _age, "nid": _nid, "email": _email,
        "phone": _phone, "sex": _same("sex", 0.97), "grp": _same("grp", 0.95),
    }  # fmt: skip
    found = [make(have) for name, make in makers.items() if name in have]
    if have & {"street", "house", "place"}:
        found.append(_address(have))
    if have & {"postcode", "city", "state"}:
        found.append(_area(have))
    return found


def settings(columns: Sequence[str], blocking: Sequence[str], learnt: Learnt | None = None) -> Any:
    """Splink's SettingsCreator for a prepared table with `columns`. blocking: rules as SQL on l and r."""
    splink()
    import splink.comparison_level_library as cll
    import splink.comparison_library as cl
    from splink import SettingsCreator

    made, rules = [], list[Any](blocking)
    for one in compared(columns):
        levels: list[Any] = [cll.CustomLevel(one.null, "not said").configure(is_null_level=True)]
        for place, level in enumerate(one.levels):
            this = level.make(cll).configure(label_for_charts=level.label)
            if level.frequency:
                this.configure(tf_adjustment_column=level.frequency, tf_minimum_u_value=RAREST)
            if learnt:
                this.configure(m_probability=learnt.m[one.name][place], u_probability=learnt.u[one.name][place])
            levels.append(this)
        made.append(cl.CustomComparison(levels, output_column_name=one.name))
    return SettingsCreator(
        link_type="dedupe_only", comparisons=made, blocking_rules_to_generate_predictions=rules,
        probability_two_random_records_match=learnt.prior if learnt else 0.0001, linker_uid="foretell",
    )  # fmt: skip


def _sql(text: str) -> Any:
    return lambda cll: cll.CustomLevel(text)


def _equal(column: str) -> Any:
    return lambda cll: cll.ExactMatchLevel(column)


def _winkler(column: str, least: float) -> Any:
    return lambda cll: cll.JaroWinklerLevel(column, least)


def _typing(column: str, most: int) -> Any:
    # few slips leave some part as it was: that is looked at first, as counting slips takes long
    parts = [(1, 4), (5, 4)] if most == 1 else [(1, 3), (4, 3), (7, 3)]
    kept = " OR ".join(f"substr({column}_l, {at}, {n}) = substr({column}_r, {at}, {n})" for at, n in parts)
    return lambda cll: cll.And(cll.CustomLevel(f"({kept})"), cll.DamerauLevenshteinLevel(column, most))


def _else() -> Any:
    return lambda cll: cll.ElseLevel()


def _null(column: str) -> str:
    return f"{column}_l IS NULL OR {column}_r IS NULL"


_SWAPPED = "(first_l = last_r AND last_l = first_r)"
_SOUND_SWAPPED = "(first_sound_l = last_sound_r AND last_sound_l = first_sound_r)"


def _first(have: set[str]) -> Compared:
    swapped = [Level("first and last name swapped", _sql(f"{_SWAPPED} OR {_SOUND_SWAPPED}"), 0.02)]
    initial = "substr(first_l, 1, 1) = substr(first_r, 1, 1) AND (length(first_l) = 1 OR length(first_r) = 1)"
    return Compared("first", _null("first"), [
        Level("equal", _equal("first"), 0.8, "first", "first"),
        *(swapped if "last" in have else []),
        Level("nearly equal", _winkler("first", 0.92), 0.06),
        Level("a short form", _sql("first_canon_l = first_canon_r"), 0.02),
        Level("an initial", _sql(initial), 0.02),
        Level("alike", _winkler("first", 0.8), 0.03),
        Level("different", _else(), 0.05),
    ], ["first"])  # fmt: skip


def _last(have: set[str]) -> Compared:
    null = _null("last")
    if "first" in have:  # what the first name's comparison says already
        null += f" OR coalesce(first_l <> last_l AND ({_SWAPPED} OR {_SOUND_SWAPPED}), false)"
    within = "last_l LIKE '%' || last_r || '%' OR last_r LIKE '%' || last_l || '%'"
    part = f"length(last_l) >= 4 AND length(last_r) >= 4 AND ({within})"
    return Compared("last", null, [
        Level("equal", _equal("last"), 0.82, "last", "last"),
        Level("nearly equal", _winkler("last", 0.92), 0.07),
        Level("one within the other", _sql(part), 0.02),
        Level("alike", _winkler("last", 0.8), 0.04),
        Level("different", _else(), 0.05),
    ], ["last"])  # fmt: skip


def _middle(_: set[str]) -> Compared:
    initial = "substr(middle_l, 1, 1) = substr(middle_r, 1, 1)"
    return Compared("middle", _null("middle"), [
        Level("equal", _sql("middle_l = middle_r AND length(middle_l) > 1"), 0.5),
        Level("the same initial", _sql(initial), 0.45),
        Level("different", _else(), 0.05),
    ], ["middle"])  # fmt: skip


def _birth(_: set[str]) -> Compared:
    turned = """length(birth_l) = 8 AND length(birth_r) = 8 AND substr(birth_l, 1, 4) = substr(birth_r, 1, 4)
        AND substr(birth_l, 5, 2) = substr(birth_r, 7, 2) AND substr(birth_l, 7, 2) = substr(birth_r, 5, 2)"""
    same_day = "substr(birth_l, 5, 4) = substr(birth_r, 5, 4)"
    year = "substr(birth_l, 1, 4) = substr(birth_r, 1, 4)"
    return Compared("birth", _null("birth"), [
        Level("equal", _equal("birth"), 0.85, "birth", "birth"),
        Level("one slip of typing", lambda cll: cll.Or(_typing("birth", 1)(cll), cll.CustomLevel(turned)), 0.07),
        Level("two slips of typing", _typing("birth", 2), 0.03),
        Level("the same day of the year", _sql(same_day), 0.01),
        Level("the same year", _sql(year), 0.02),
        Level("different", _else(), 0.02),
    ], ["birth"])  # fmt: skip


def _age(_: set[str]) -> Compared:
    return Compared("age", _null("age"), [
        Level("equal", _equal("age"), 0.6, "age"),
        Level("within a year", _sql("abs(age_l - age_r) <= 1"), 0.3),
        Level("within three years", _sql("abs(age_l - age_r) <= 3"), 0.05),
        Level("different", _else(), 0.05),
    ], ["age"])  # fmt: skip


def _nid(_: set[str]) -> Compared:
    return Compared("nid", _null("nid"), [
        Level("equal", _equal("nid"), 0.9, "nid", "nid"),
        Level("one slip of typing", _typing("nid", 1), 0.06),
        Level("two slips of typing", _typing("nid", 2), 0.01),
        Level("different", _else(), 0.03),
    ], ["nid"])  # fmt: skip


def _email(_: set[str]) -> Compared:
    # people of one name choose addresses alike: the name's comparison says that already
    # and numbers tell namesakes apart
    alike = "(email_user_l = email_user_r OR substr(email_user_l, 1, 4) = substr(email_user_r, 1, 4))"
    slips = "levenshtein(email_l, email_r) > 2 OR email_digits_l <> email_digits_r"
    part = "substr(email_l, 1, 3) = substr(email_r, 1, 3) OR email_domain_l = email_domain_r"
    return Compared("email", f"{_null('email')} OR (email_l <> email_r AND {alike} AND ({slips}))", [
        Level("equal", _equal("email"), 0.7, "email", "email"),
        Level("two slips of typing", lambda cll: cll.And(
            cll.CustomLevel(f"({part}) AND email_digits_l = email_digits_r"),
            cll.DamerauLevenshteinLevel("email", 2)), 0.1),
        Level("different", _else(), 0.2),
    ], ["email"])  # fmt: skip


def _phone(_: set[str]) -> Compared:
    return Compared("phone", _null("phone"), [
        Level("equal", _equal("phone"), 0.7, "phone", "phone"),
        Level("one slip of typing", _typing("phone", 1), 0.1),
        Level("different", _else(), 0.2),
    ], ["phone"])  # fmt: skip


def _same(column: str, usual: float) -> Any:
    return lambda _: Compared(column, _null(column), [
        Level("equal", _equal(column), usual, column, column if column == "grp" else ""),
        Level("different", _else(), 1 - usual),
    ], [column], identifies=False)  # fmt: skip


def _address(have: set[str]) -> Compared:
    parts = [c for c in ("house", "street", "place") if c in have]
    null = " AND ".join(f"({_null(c)})" for c in parts)
    levels, reads = [], parts
    if {"house", "street"} <= have:
        levels += [
            Level("equal", _sql("house_l = house_r AND street_l = street_r"), 0.55),
            Level("the same house, the street alike",
                  lambda cll: cll.And(cll.ExactMatchLevel("house"), cll.JaroWinklerLevel("street", 0.8)), 0.1),
        ]  # fmt: skip
    if "place" in have:
        levels.append(Level("the same place", _sql("place_l = place_r AND length(place_l) > 6"), 0.05))
    if "street" in have:
        levels += [
            Level("the same street", _equal("street"), 0.1),
            Level("a street alike", _winkler("street", 0.9), 0.05),
        ]
    if "house" in have:
        levels.append(Level("the same house number", _equal("house"), 0.05))
    return Compared("address", null, [*levels, Level("different", _else(), 0.15)], reads, identifies=False)


def _area(have: set[str]) -> Compared:
    parts = [c for c in ("postcode", "city", "state") if c in have]
    null = " AND ".join(f"({_null(c)})" for c in parts)
    levels = []
    if {"postcode", "city"} <= have:
        both = "postcode_l = postcode_r AND city_l = city_r"
        levels.append(Level("equal", _sql(both), 0.6, "", "postcode"))
    if "postcode" in have:
        levels += [
            Level("the same postcode", _equal("postcode"), 0.1, "postcode", "postcode"),
            Level("one slip in the postcode", _typing("postcode", 1), 0.05),
        ]
    if "city" in have:
        levels += [
            Level("the same city", _equal("city"), 0.1 if levels else 0.7, "city", "city"),
            Level("a city alike", _winkler("city", 0.88), 0.05),
        ]
    if "state" in have:
        levels.append(Level("the same state", _equal("state"), 0.1))
    return Compared("area", null, [*levels, Level("different", _else(), 0.1)], parts, identifies=False)

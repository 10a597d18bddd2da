"""What would Splink's documentation do with this table? Its published set-ups as they stand there, at probability .5.

Three pages of https://moj-analytical-services.github.io/splink/ say it; nothing here was chosen by what it finds.

  QUICK   "Getting started", the quickstart on fake_1000
  FEBRL   the example "Febrl3 Dedupe": where there is a national id
  LARGE   the example "Deduplicate 50k rows historical persons": from as many rows as that has

A table that has all columns of its page's example is compared by these and no others, as there. Any other is compared
by all columns that one of the pages has, or the example "Linking the pseudopeople Census and ACS datasets" (middle
name, sex, street), each as it is there; by telephone, which none has, with the plainest comparison. Parts that read a
column that is not there fall away. A rule that brings up too many pairs to be held is narrowed by a second column, as
that example says, and as the topic guide "Run times, performance and linking large data" says, only what is needed is
retained and predictions below the threshold are not. Values go in as they are, without blanks around them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np

from unification.matching import kinds as k

MANY = 50_000  # rows from which the example of historical persons fits
HELD = 20_000_000  # pairs that one rule may bring up
NAMES = {
    k.FIRST: "first_name", k.LAST: "surname", k.BIRTH: "dob", k.ID: "id_number", k.EMAIL: "email", k.PHONE: "phone",
    k.POSTCODE: "postcode", k.CITY: "city", k.NUMBER: "street_number", k.STREET: "street", k.SEX: "sex",
    k.MIDDLE: "middle_name", k.FULL: "full_name",
}  # fmt: skip
Rule = tuple[str, ...]


@dataclass(frozen=True)
class Page:
    """compared: the columns of its example. surname: how surnames are compared. blocking, sure, passes: rules for
    predictions, for the prior (of which `recall` are found so), for the two trainings. u: pairs for chance."""

    compared: tuple[str, ...]
    blocking: tuple[Rule, ...]
    sure: tuple[Rule, ...]
    recall: float
    u: float
    passes: tuple[Rule, ...]


QUICK = Page(
    ("first_name", "surname", "dob", "city", "email"), (("first_name", "dob"), ("surname",)),
    (("first_name", "surname"),), 0.7, 1e6, (("first_name", "surname"), ("email",)),
)  # fmt: skip
FEBRL = Page(
    ("first_name", "surname", "dob", "id_number", "street_number", "postcode"),
    (("id_number",), ("first_name",), ("surname",), ("dob",), ("postcode",)),
    (("id_number",), ("first_name", "surname", "dob")), 0.9, 1e6, (("dob",), ("postcode",)),
)  # fmt: skip
LARGE = Page(
    ("first_name", "surname", "dob", "postcode", "city", "occupation"),  # its birth_place is our city
    (
        ("substr(first_name,1,3)", "substr(surname,1,4)"), ("surname", "dob"), ("first_name", "dob"),
        ("postcode", "first_name"), ("postcode", "surname"), ("dob", "city"), ("substr(postcode,1,3)", "dob"),
        ("substr(postcode,1,3)", "first_name"), ("substr(postcode,1,3)", "surname"),
        ("substr(first_name,1,2)", "substr(surname,1,2)", "substr(dob,1,4)"),
    ),
    (
        ("first_name", "surname", "dob"), ("substr(first_name,1,2)", "surname", "substr(postcode,1,2)"),
        ("dob", "postcode"),
    ), 0.6, 1e7, (("first_name", "surname"), ("dob",)),
)  # fmt: skip
OTHERWISE = (("surname",), ("full_name",), ("email",), ("phone",), ("dob",), ("first_name",))  # for odd tables


def link(
    con: duckdb.DuckDBPyConnection, table: str, kinds: Mapping[str, Sequence[str]], at: float = 0.5
) -> tuple[np.ndarray, Any]:
    """Each row's group (by its place), and SQL's table of predicted pairs (unique_id_l, unique_id_r)."""
    from splink import DuckDBAPI, Linker, SettingsCreator, block_on
    from splink.clustering import cluster_pairwise_predictions_at_threshold

    logging.getLogger("splink").setLevel(logging.ERROR)
    have = {NAMES[kind] for kind in kinds if kind in NAMES}
    texts = ", ".join(
        "nullif(trim(coalesce(" + ", ".join(f'"{c}"::VARCHAR' for c in columns) + f")), '') AS {NAMES[kind]}"
        for kind, columns in kinds.items() if kind in NAMES
    )  # fmt: skip
    both = ", first_name || ' ' || surname AS both_names" if {"first_name", "surname"} <= have else ""
    con.execute(
        f"""CREATE TABLE raw AS SELECT *{both} FROM (
            SELECT (row_number() OVER () - 1)::BIGINT AS unique_id, {texts} FROM "{table}")"""
    )
    rows = int(con.execute("SELECT count(*) FROM raw").fetchall()[0][0])
    page = FEBRL if "id_number" in have else LARGE if rows >= MANY else QUICK
    columns = set(page.compared) if set(page.compared) <= have else have

    def rules(of: Sequence[Rule], least: int = 1) -> list[Any]:
        there = [rule for rule in of if _reads(rule) <= have]
        others = [rule for rule in OTHERWISE if _reads(rule) <= have and rule not in there]
        there += others[: max(0, least - len(there))]
        return [block_on(*_held(con, rule, have)) for rule in there]

    api = DuckDBAPI(con)
    data = api.register("raw")
    linker = Linker(data, SettingsCreator(
        link_type="dedupe_only", comparisons=_comparisons(con, columns, page),
        blocking_rules_to_generate_predictions=rules(page.blocking), retain_matching_columns=False,
    ))  # fmt: skip
    linker.training.estimate_probability_two_random_records_match(rules(page.sure), recall=page.recall)
    linker.training.estimate_u_using_random_sampling(max_pairs=page.u, seed=1)
    for rule in rules(page.passes, least=2):
        try:
            linker.training.estimate_parameters_using_expectation_maximisation(rule)
        except Exception as error:  # a pass without pairs teaches nothing
            print(f"splink: no training on {rule}: {str(error)[:80]}")
    pairs = linker.inference.predict(threshold_match_probability=at)
    found = cluster_pairwise_predictions_at_threshold(data, pairs, api, "unique_id", threshold_match_probability=at)
    query = f"SELECT dense_rank() OVER (ORDER BY cluster_id) AS c FROM {found.physical_name} ORDER BY unique_id"
    label: Any = con.execute(query).fetchnumpy()["c"]
    return label, pairs.physical_name


def _reads(rule: Rule) -> set[str]:
    return {part.split("(")[-1].split(",")[0] for part in rule}


def _held(con: duckdb.DuckDBPyConnection, rule: Rule, have: set[str]) -> Rule:
    """The rule, with one more column where it brings up too many pairs."""
    said = " AND ".join(f"{key} IS NOT NULL" for key in rule)
    query = f"SELECT count(*) AS n FROM raw WHERE {said} GROUP BY {', '.join(rule)}"
    pairs = con.execute(f"SELECT coalesce(sum(n * (n - 1) // 2), 0) FROM ({query})").fetchall()[0][0]
    more = next((c for c in ("surname", "first_name", "dob") if c in have - _reads(rule)), None)
    return (*rule, more) if pairs > HELD and more else rule


def _comparisons(con: duckdb.DuckDBPyConnection, columns: set[str], page: Page) -> list[Any]:
    import splink.comparison_library as cl

    def exact(column: str) -> Any:
        return cl.ExactMatch(column).configure(term_frequency_adjustments=True)

    made: dict[str, Callable[[str], Any]] = {
        "first_name": cl.NameComparison, "surname": cl.JaroAtThresholds if page is QUICK else cl.NameComparison,
        "full_name": cl.NameComparison,
        "dob": lambda c: cl.DateOfBirthComparison(c, input_is_string=True, datetime_format=_form(con)),
        "id_number": lambda c: cl.DamerauLevenshteinAtThresholds(c, [2]), "email": cl.EmailComparison,
        "city": exact, "street_number": exact, "postcode": exact, "middle_name": exact, "sex": cl.ExactMatch,
        "street": lambda c: cl.DamerauLevenshteinAtThresholds(c).configure(term_frequency_adjustments=True),
        "phone": cl.ExactMatch,
    }  # fmt: skip
    if page is LARGE and {"first_name", "surname"} <= columns:
        both = cl.ForenameSurnameComparison("first_name", "surname", forename_surname_concat_col_name="both_names")
        return [both, *(make(c) for c, make in made.items() if c in columns - {"first_name", "surname"})]
    return [make(column) for column, make in made.items() if column in columns]


def _form(con: duckdb.DuckDBPyConnection) -> str:
    """The form that most dates have."""
    forms = ("%Y-%m-%d", "%Y%m%d", "%m/%d/%Y", "%d/%m/%Y", "%m%d%Y", "%d.%m.%Y")
    asked = ", ".join(f"count(try_strptime(dob, '{form}'))" for form in forms)
    counts = con.execute(f"SELECT {asked} FROM raw").fetchall()[0]
    return forms[int(np.argmax(counts))]

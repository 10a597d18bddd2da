"""What would Splink's documentation do with this table? Its published examples as they stand there, at probability .5.

Four example notebooks of https://moj-analytical-services.github.io/splink/ fit tables of people; nothing here was
chosen by what it finds. Which one is taken follows from the table:

  FEBRL    "Febrl3 Dedupe": where there is a national id
  LARGE    "Deduplicate 50k rows historical persons": from as many rows as that has
  CENSUS   "Linking the pseudopeople Census and ACS datasets": where there are middle names and sexes
  LABELS   "Evaluation from ground truth column", on fake_1000: otherwise. (The quickstart of "Getting started", on the
           same data, has fewer blocking rules: it finds less.)

Columns, comparisons, blocking, prior and training are the example's; parts that read a column which the table has not
fall away. Three things differ, all in Splink's favour: chance is learnt from a million pairs, the default, everywhere
(LARGE has ten times as many); only what is needed is retained, and pairs below the threshold are not, as the topic
guide "Run times, performance and linking large data" says; and a rule that brings up too many pairs to be held is
narrowed by a second column, as CENSUS does it. Values go in as they are, without blanks around them.
"""

from __future__ import annotations

import logging
import re
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
    k.MIDDLE: "middle_name", k.FULL: "full_name", k.AGE: "age", k.GROUP: "race",
}  # fmt: skip
Rule = tuple[str, ...]


@dataclass(frozen=True)
class Page:
    """compare: its comparisons, by the columns they read. blocking, sure, passes: rules for predictions, for the prior
    (of which `recall` are found so), for trainings."""

    compare: Callable[[Any, str], dict[Rule, Any]]
    blocking: tuple[Rule, ...]
    sure: tuple[Rule | str, ...]
    recall: float
    passes: tuple[Rule, ...]


def _frequent(comparison: Any) -> Any:
    return comparison.configure(term_frequency_adjustments=True)


def _dob(cl: Any, form: str) -> Any:
    return cl.DateOfBirthComparison("dob", input_is_string=True, datetime_format=form)


FEBRL = Page(
    lambda cl, form: {
        ("first_name",): cl.NameComparison("first_name"), ("surname",): cl.NameComparison("surname"),
        ("dob",): _dob(cl, form), ("id_number",): cl.DamerauLevenshteinAtThresholds("id_number", [2]),
        ("street_number",): _frequent(cl.ExactMatch("street_number")),
        ("postcode",): _frequent(cl.ExactMatch("postcode")),
    },
    (("id_number",), ("first_name",), ("surname",), ("dob",), ("postcode",)),
    (
        ("id_number",), ("first_name", "surname", "dob"),
        "l.first_name = r.surname and l.surname = r.first_name and l.dob = r.dob",
    ), 0.9, (("dob",), ("postcode",)),
)  # fmt: skip
LARGE = Page(
    lambda cl, form: {
        ("first_name", "surname"): cl.ForenameSurnameComparison(
            "first_name", "surname", forename_surname_concat_col_name="both_names"
        ),
        ("dob",): _dob(cl, form), ("postcode",): cl.PostcodeComparison("postcode"),
        ("city",): _frequent(cl.ExactMatch("city")),  # its birth_place
    },
    (
        ("substr(first_name,1,3)", "substr(surname,1,4)"), ("surname", "dob"), ("first_name", "dob"),
        ("postcode", "first_name"), ("postcode", "surname"), ("dob", "city"), ("substr(postcode,1,3)", "dob"),
        ("substr(postcode,1,3)", "first_name"), ("substr(postcode,1,3)", "surname"),
        ("substr(first_name,1,2)", "substr(surname,1,2)", "substr(dob,1,4)"),
    ),
    (
        ("first_name", "surname", "dob"), ("substr(first_name,1,2)", "surname", "substr(postcode,1,2)"),
        ("dob", "postcode"),
    ), 0.6, (("first_name", "surname"), ("dob",)),
)  # fmt: skip
CENSUS = Page(
    lambda cl, form: {
        ("first_name",): _frequent(cl.NameComparison("first_name", jaro_winkler_thresholds=[0.9])),
        ("middle_name",): _frequent(cl.ExactMatch("middle_name")),
        ("surname",): _frequent(cl.NameComparison("surname", jaro_winkler_thresholds=[0.9])),
        ("dob",): cl.DamerauLevenshteinAtThresholds("dob", [1]),
        ("address",): _frequent(cl.DamerauLevenshteinAtThresholds("address")), ("sex",): cl.ExactMatch("sex"),
    },
    (
        ("first_name",), ("surname",), ("dob",), ("street",), ("age", "sex"), ("age", "race"), ("age", "middle_name"),
        ("street_number",), ("middle_name", "sex", "race"),
    ),
    (("first_name", "surname", "dob"),), 0.7, (("dob",), ("surname",)),  # its own prior is of another kind of task
)  # fmt: skip
LABELS = Page(
    lambda cl, form: {
        ("first_name", "surname"): cl.ForenameSurnameComparison("first_name", "surname"), ("dob",): _dob(cl, form),
        ("city",): _frequent(cl.ExactMatch("city")), ("email",): cl.EmailComparison("email"),
    },
    (("first_name",), ("surname",), ("dob",), ("email",)),
    (
        "l.first_name = r.first_name and levenshtein(r.dob, l.dob) <= 1",
        "l.surname = r.surname and levenshtein(r.dob, l.dob) <= 1",
        "l.first_name = r.first_name and levenshtein(r.surname, l.surname) <= 2", "l.email = r.email",
    ), 0.7, (("dob",), ("email",), ("first_name", "surname")),
)  # fmt: skip
OTHERWISE = (("surname",), ("full_name",), ("email",), ("phone",), ("dob",), ("first_name",))  # for odd tables


def link(
    con: duckdb.DuckDBPyConnection, table: str, kinds: Mapping[str, Sequence[str]], at: float = 0.5
) -> tuple[np.ndarray, Any]:
    """Each row's group (by its place), and SQL's table of predicted pairs (unique_id_l, unique_id_r)."""
    import splink.comparison_library as cl
    from splink import DuckDBAPI, Linker, SettingsCreator
    from splink.clustering import cluster_pairwise_predictions_at_threshold

    logging.getLogger("splink").setLevel(logging.ERROR)
    have, rows = _raw(con, table, kinds)
    page = (
        FEBRL if "id_number" in have else LARGE if rows >= MANY
        else CENSUS if {"middle_name", "sex"} <= have else LABELS
    )  # fmt: skip
    made = page.compare(cl, _form(con) if "dob" in have else "")
    compared: list[Any] = [one for columns, one in made.items() if set(columns) <= have]
    compared = compared or [cl.NameComparison(rule[0]) for rule in OTHERWISE if set(rule) <= have][:1]
    api = DuckDBAPI(con)
    data = api.register("raw")
    linker = Linker(data, SettingsCreator(
        link_type="dedupe_only", comparisons=compared, retain_matching_columns=False,
        blocking_rules_to_generate_predictions=_rules(con, page.blocking, have),
    ))  # fmt: skip
    linker.training.estimate_probability_two_random_records_match(_rules(con, page.sure, have), recall=page.recall)
    linker.training.estimate_u_using_random_sampling(max_pairs=1e6, seed=1)
    for rule in _rules(con, page.passes, have, least=2):
        try:
            linker.training.estimate_parameters_using_expectation_maximisation(rule)
        except Exception as error:  # a pass without pairs teaches nothing
            print(f"splink: no training on {rule}: {str(error)[:80]}")
    pairs = linker.inference.predict(threshold_match_probability=at)
    found = cluster_pairwise_predictions_at_threshold(data, pairs, api, "unique_id", threshold_match_probability=at)
    query = f"SELECT dense_rank() OVER (ORDER BY cluster_id) AS c FROM {found.physical_name} ORDER BY unique_id"
    label: Any = con.execute(query).fetchnumpy()["c"]
    return label, pairs.physical_name


def _raw(con: duckdb.DuckDBPyConnection, table: str, kinds: Mapping[str, Sequence[str]]) -> tuple[set[str], int]:
    """Make `raw`, with the examples' names of columns. Returns these, and how many rows there are."""
    have = {NAMES[kind] for kind in kinds if kind in NAMES}
    texts = ", ".join(
        "nullif(trim(coalesce(" + ", ".join(f'"{c}"::VARCHAR' for c in columns) + f")), '') AS {NAMES[kind]}"
        for kind, columns in kinds.items() if kind in NAMES
    )  # fmt: skip
    more = {"both_names": ("first_name", "surname"), "address": ("street_number", "street", "city", "postcode")}
    more = {name: parts for name, parts in more.items() if set(parts) <= have}
    blank = " || ' ' || "
    added = "".join(f", {blank.join(parts)} AS {name}" for name, parts in more.items())
    con.execute(
        f"""CREATE TABLE raw AS SELECT *{added} FROM (
            SELECT (row_number() OVER () - 1)::BIGINT AS unique_id, {texts} FROM "{table}")"""
    )
    return have | set(more), int(con.execute("SELECT count(*) FROM raw").fetchall()[0][0])


def _rules(con: duckdb.DuckDBPyConnection, of: Sequence[Rule | str], have: set[str], least: int = 1) -> list[Any]:
    """Those rules that can be had, and others where these are too few."""
    from splink import block_on

    there = [rule for rule in of if _reads(rule) <= have]
    others = [rule for rule in OTHERWISE if _reads(rule) <= have and rule not in there]
    there += others[: max(0, least - len(there))]
    return [rule if isinstance(rule, str) else block_on(*_held(con, rule, have)) for rule in there]


def _reads(rule: Rule | str) -> set[str]:
    if isinstance(rule, str):
        return set(re.findall(r"\b[lr]\.(\w+)", rule))
    return {part.split("(")[-1].split(",")[0] for part in rule}


def _held(con: duckdb.DuckDBPyConnection, rule: Rule, have: set[str]) -> Rule:
    """The rule, with one more column where it brings up too many pairs."""
    said = " AND ".join(f"{key} IS NOT NULL" for key in rule)
    query = f"SELECT count(*) AS n FROM raw WHERE {said} GROUP BY {', '.join(rule)}"
    pairs = con.execute(f"SELECT coalesce(sum(n * (n - 1) // 2), 0) FROM ({query})").fetchall()[0][0]
    more = next((c for c in ("surname", "first_name", "dob") if c in have - _reads(rule)), None)
    return (*rule, more) if pairs > HELD and more else rule


def _form(con: duckdb.DuckDBPyConnection) -> str:
    """The form that most dates have."""
    forms = ("%Y-%m-%d", "%Y%m%d", "%m/%d/%Y", "%d/%m/%Y", "%m%d%Y", "%d.%m.%Y")
    asked = ", ".join(f"count(try_strptime(dob, '{form}'))" for form in forms)
    counts = con.execute(f"SELECT {asked} FROM raw").fetchall()[0]
    return forms[int(np.argmax(counts))]

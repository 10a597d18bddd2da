"""What would Splink's documentation do with this table? Its comparisons and rules as they stand there, at probability
.5.

With a national id the set-up of its febrl examples, else that of its quick start; beyond 50,000 rows the blocking of
its historical people, as the quick start's would bring up hundreds of millions of pairs. Values go in as they are.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import numpy as np

from unification.matching import kinds as k

MANY = 50_000
NAMES = {
    k.FIRST: "first_name", k.LAST: "surname", k.BIRTH: "dob", k.ID: "id_number", k.EMAIL: "email", k.PHONE: "phone",
    k.POSTCODE: "postcode", k.CITY: "city", k.STATE: "state", k.NUMBER: "street_number", k.STREET: "street",
    k.SEX: "sex", k.MIDDLE: "middle_name", k.FULL: "full_name",
}  # fmt: skip


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
    con.execute(f'CREATE TABLE raw AS SELECT (row_number() OVER () - 1)::BIGINT AS unique_id, {texts} FROM "{table}"')
    rows = int(con.execute("SELECT count(*) FROM raw").fetchall()[0][0])
    api = DuckDBAPI(con)
    data = api.register("raw")
    linker = Linker(data, SettingsCreator(
        link_type="dedupe_only", comparisons=_comparisons(con, have),
        blocking_rules_to_generate_predictions=[block_on(*rule) for rule in _blocking(have, rows)],
    ))  # fmt: skip
    sure = (
        [("first_name", "surname")] if "id_number" not in have else [("id_number",), ("first_name", "surname", "dob")]
    )
    sure = [rule for rule in sure if set(rule) <= have] or [(sorted(have)[0],)]
    linker.training.estimate_probability_two_random_records_match([block_on(*rule) for rule in sure], recall=0.7)
    linker.training.estimate_u_using_random_sampling(max_pairs=1e6, seed=1)
    passes = (
        [("dob",), ("postcode",) if rows <= 6_000 else ("first_name", "surname")]
        if "id_number" in have
        else [("first_name", "surname"), ("email",), ("dob",)]
    )
    passes = [rule for rule in passes if set(rule) <= have][:2] or [("first_name", "surname"), ("id_number",)]
    for rule in passes:
        try:
            linker.training.estimate_parameters_using_expectation_maximisation(block_on(*rule))
        except Exception as error:  # a pass without pairs teaches nothing
            print(f"splink: no training on {rule}: {str(error)[:80]}")
    pairs = linker.inference.predict(threshold_match_probability=at)
    found = cluster_pairwise_predictions_at_threshold(data, pairs, api, "unique_id", threshold_match_probability=at)
    query = f"SELECT dense_rank() OVER (ORDER BY cluster_id) AS c FROM {found.physical_name} ORDER BY unique_id"
    label: Any = con.execute(query).fetchnumpy()["c"]
    return label, pairs.physical_name


def _comparisons(con: duckdb.DuckDBPyConnection, have: set[str]) -> list[Any]:
    import splink.comparison_library as cl

    made: dict[str, Any] = {
        "first_name": cl.NameComparison("first_name"), "surname": cl.NameComparison("surname"),
        "full_name": cl.NameComparison("full_name"), "middle_name": cl.JaroWinklerAtThresholds("middle_name"),
        "email": cl.EmailComparison("email"), "id_number": cl.DamerauLevenshteinAtThresholds("id_number", [2]),
        "postcode": cl.DamerauLevenshteinAtThresholds("postcode", [1, 2]),
        "street": cl.JaroWinklerAtThresholds("street"), "phone": cl.DamerauLevenshteinAtThresholds("phone", [2]),
    }  # fmt: skip
    if "dob" in have:
        made["dob"] = cl.DateOfBirthComparison("dob", input_is_string=True, datetime_format=_form(con))
    for column in ("city", "state", "street_number", "sex"):
        made[column] = cl.ExactMatch(column).configure(term_frequency_adjustments=column != "sex")
    return [comparison for column, comparison in made.items() if column in have]


def _form(con: duckdb.DuckDBPyConnection) -> str:
    """The form that most dates have."""
    forms = ("%Y-%m-%d", "%Y%m%d", "%m/%d/%Y", "%d/%m/%Y", "%m%d%Y", "%d.%m.%Y")
    asked = ", ".join(f"count(try_strptime(dob, '{form}'))" for form in forms)
    counts = con.execute(f"SELECT {asked} FROM raw").fetchall()[0]
    return forms[int(np.argmax(counts))]


def _blocking(have: set[str], rows: int) -> list[tuple[str, ...]]:
    if rows > MANY:
        rules = [("substr(first_name,1,3)", "substr(surname,1,4)"), ("surname", "dob"), ("first_name", "dob"),
                 ("postcode", "first_name"), ("postcode", "surname"), ("id_number",), ("email",)]  # fmt: skip
    elif "id_number" in have:
        rules = [
            ("id_number",),
            ("first_name",),
            ("surname",),
            ("dob",),
            ("postcode", "surname") if rows > 6_000 else ("postcode",),
        ]
    else:
        rules = [("first_name", "dob"), ("surname",), ("email",)]
    kept = [rule for rule in rules if {c.split("(")[-1].split(",")[0] for c in rule} <= have]
    return (
        kept
        or [(column,) for column in ("surname", "full_name", "email", "phone", "dob", "first_name") if column in have][
            :2
        ]
    )

"""The matcher finds who is who in tables it has never seen, says what is wrong with odd ones, and repeats itself."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice, product
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import networkx as nx
import numpy as np
import pandas as pd
import pytest

from benchmarks import _matching, _matching_people
from foretell.errors import DataError, UnknownName
from unification.matching import blocking, kinds, matcher, pairs
from unification.matching.blocking import Rule, budget, choose
from unification.matching.cluster import Fact, cluster, other_day, slips
from unification.matching.comparisons import compared, settings, splink
from unification.matching.prepare import prepare

DATA = os.environ.get("FORETELL_TEST_DATA")


def table(rows: pd.DataFrame) -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    con.register("rows", rows)
    con.execute("CREATE TABLE given AS FROM rows")
    return con


def found(con: duckdb.DuckDBPyConnection, never: Iterable[str] = (), **named: str) -> tuple[np.ndarray, matcher.Model]:
    _, columns = matcher.read(con, "given", named=named, never=list(never))
    model = matcher.train(con, columns)
    matcher.predict(con, model)
    return matcher.group(con, model).label, model


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return pd.read_parquet(_matching_people.write(tmp_path_factory.mktemp("people") / "p.parquet", 1_500))


def scores(rows: pd.DataFrame, label: np.ndarray) -> dict[str, float]:
    return _matching.cluster_scores(pd.factorize(rows["person"])[0], label)


def test_generated_people_are_found_and_two_runs_agree(generated: pd.DataFrame) -> None:
    label, model = found(table(generated), ["person"])
    assert scores(generated, label)["b3_f1"] > 0.98
    assert scores(generated, label)["b3_precision"] > 0.98
    again, same = found(table(generated), ["person"])
    assert (label == again).all()
    assert same == model


def test_other_names_forms_and_gaps_are_no_other_people(generated: pd.DataFrame) -> None:
    born = pd.to_datetime(generated["birth_date"], errors="coerce")
    other = generated.assign(
        birth_date=born.dt.strftime("%d.%m.%Y").where(generated.index % 2 == 0, born.dt.strftime("%Y%m%d")),
        first_name=generated["first_name"].str.upper(), phone="+44 " + generated["phone"].str[1:],
    )  # fmt: skip
    other = other.drop(columns=["email", "household_id"]).sample(frac=1, random_state=1)
    other = other.rename(columns={"first_name": "Forename", "last_name": "SURNAME", "birth_date": "DOB"})
    label, _ = found(table(other), ["person"])
    assert scores(other, label)["b3_f1"] > 0.96


@pytest.mark.skipif(not DATA, reason="FORETELL_TEST_DATA names no folder")
@pytest.mark.parametrize(
    ("file", "truth", "f1"), [("febrl/febrl1", "entity_id", 0.999), ("splink/fake_1000", "cluster", 0.96)]
)
def test_real_sets(file: str, truth: str, f1: float) -> None:
    con = _matching.connect(Path(str(DATA)) / f"{file}.parquet")
    label, _ = found(con, [truth])
    people = pd.factorize(con.execute(f'SELECT "{truth}" AS x FROM given').df()["x"])[0]
    assert _matching.cluster_scores(people, label)["b3_f1"] >= f1
    assert _matching.cluster_scores(people, label)["b3_precision"] >= 0.98


ODD = {
    "one column": pd.DataFrame({"surname": ["smith", "smith", "smyth", "jones"]}),
    "ten rows": pd.DataFrame({"first_name": list("abcdefghij"), "dob": ["1990-01-01"] * 5 + ["x"] * 5}),
    "empty strings": pd.DataFrame({"first_name": ["", "", "anna"], "surname": ["a", "", "b"], "dob": ["", " ", ""]}),
    "one filled": pd.DataFrame({"email": ["a@b.org", "a@b.org", "c@d.org", None], "note": [None] * 4}),
    "mixed types": pd.DataFrame({"surname": ["x", "1", "2.5", "None"], "zip": [1.0, 2.0, np.nan, 1.0]}),
    "odd names": pd.DataFrame({'first "name"': ["a", "b", "a"], "last name": ["c", "d", "c"], "a;b": [1, 2, 3]}),
    "full name": pd.DataFrame({"name": ["Smith, John", "John Smith", "Dr. Jane Doe", "Jane Doe"]}),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_tables_are_matched(name: str) -> None:
    label, _ = found(table(ODD[name]))
    assert len(label) == len(ODD[name])


REFUSED = {
    "nothing understood": pd.DataFrame({"a": [1, 2], "b": [3, 4]}),
    "all null": pd.DataFrame({"first_name": [None, None], "surname": [None, None]}),
    "constant": pd.DataFrame({"surname": ["x", "x", "x"]}),
    "only sex": pd.DataFrame({"sex": ["m", "f", "m"]}),
    "no rows": pd.DataFrame({"surname": []}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_tells_nobody_apart_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="expected columns that tell people apart"):
        found(table(REFUSED[name]))


def test_a_mapping_settles_what_a_column_is() -> None:
    con = table(pd.DataFrame({"c1": ["ann", "bob"], "c2": ["x", "y"], "given_name": ["u", "v"]}))
    assert kinds.understand(con, "given", named={"c1": "last_name"}).kinds["last_name"] == ["c1"]
    assert kinds.understand(con, "given", named={"first_name": "c2"}).kinds["first_name"] == ["c2"]
    assert "given_name" in kinds.understand(con, "given", named={"c1": "first_name"}).left_out
    assert kinds.understand(con, "given", named={"c1": "surname"}).kinds["last_name"] == ["c1"]
    with pytest.raises(UnknownName, match="kind of column"):
        kinds.understand(con, "given", named={"c1": "shoe"})
    with pytest.raises(UnknownName, match="column"):
        kinds.understand(con, "given", named={"c9": "first_name"})


NAMES = {
    "first_name": ["given_name", "Forename", "firstName", "fname", "customer_first_name", "Vorname"],
    "last_name": ["surname", "LASTNAME", "family_name", "last", "Nachname"],
    "birth_date": ["dob", "date_of_birth", "BirthDate", "birthday"],
    "national_id": ["ssn", "soc_sec_id", "national_id", "SocialSecurityNumber"],
    "postcode": ["zip", "zipcode", "post_code", "mailing_address_zipcode", "PLZ"],
    "city": ["suburb", "town", "mailing_address_city"], "street_number": ["street_number", "house_number"],
    "street": ["address_1", "street_name", "street", "mailing_address_street_name"], "email": ["e_mail", "email"],
    "phone": ["telephone", "mobile_phone", "phone_number"], "sex": ["gender", "sex"], "state": ["state", "province"],
    "middle_name": ["middle_initial", "middle_name"], "full_name": ["name", "full_name"],
    "-": ["spouse_first_name", "employer_zipcode", "dependent_1_ssn", "household_id"],
    "": ["rec_id", "unique_id", "wages", "tax_year", "event_date", "survey_date"],
}  # fmt: skip


@pytest.mark.parametrize("kind", NAMES)
def test_names_of_columns(kind: str) -> None:
    assert {name: kinds.kind_of(name) for name in NAMES[kind]} == dict.fromkeys(NAMES[kind], kind)


def test_plain_forms() -> None:
    dates = ["1985-03-12", "12.03.1985", "19850312", "12 Mar 1985", "1985-03-12 00:00:00", "l985o312", "13/03/1985"]
    con = table(pd.DataFrame({
        "dob": dates, "first_name": [" Éva ", "EVA", "e-va", "none", "", "N/A", "eva2"],
        "phone": ["+44 7911 123456", "07911 123456", "07911-123456", "1", "", "x", "(07911) 123456"],
    }))  # fmt: skip
    prepare(con, "given", kinds.understand(con, "given").kinds)
    rows = con.execute("SELECT birth, first, phone FROM people ORDER BY unique_id").fetchall()
    assert [r[0] for r in rows] == ["19850312"] * 6 + ["19850313"]
    assert [r[1] for r in rows] == ["eva", "eva", "eva", None, None, None, "eva"]
    assert {r[2] for r in rows} == {"911123456", None}


def test_blocking_stays_within_its_budget(generated: pd.DataFrame) -> None:
    con = table(pd.concat([generated] * 2, ignore_index=True))
    _, columns = matcher.read(con, "given", never=["person"])
    rules = choose(con, sorted(columns), most=20_000)
    assert len(rules) > 5
    assert sum(rule.pairs for rule in rules) <= 20_000
    assert budget(1_000_000) <= 8_000_000


@pytest.fixture(scope="module")
def learnt(generated: pd.DataFrame) -> tuple[duckdb.DuckDBPyConnection, matcher.Model]:
    """People prepared, and a model with rules of its own: in so few rows all pairs would be compared."""
    con = table(generated.assign(group=generated.index % 7))
    _, columns = matcher.read(con, "given", never=["person"], named={"group": "group"})
    model = matcher.train(con, columns)
    return con, replace(model, blocking=[rule.sql for rule in rules_of(con, columns)])


def rules_of(con: duckdb.DuckDBPyConnection, columns: Sequence[str]) -> list[Rule]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocking, "ALL", 0)
        return choose(con, sorted(columns), most=60_000)


def own(con: duckdb.DuckDBPyConnection, model: matcher.Model) -> Any:
    """Splink itself, with the model."""
    package = splink()
    people = package.DuckDBAPI(con).register("people")
    made = settings(model.columns, model.blocking, model.learnt)
    made.retain_intermediate_calculation_columns = True
    return package.Linker(people, made)


def test_pairs_are_those_that_splink_brings_up(learnt: tuple[duckdb.DuckDBPyConnection, matcher.Model]) -> None:
    con, model = learnt
    many = pairs.block(con, model.blocking, "ours")
    theirs = own(con, model).inference.compute_blocked_pairs_for_predict().physical_name
    columns = "join_key_l, join_key_r"
    assert many == con.execute(f"SELECT count(*) FROM {theirs}").fetchall()[0][0] > 10_000
    assert not con.execute(f"SELECT {columns} FROM ours EXCEPT SELECT {columns} FROM {theirs}").fetchall()


def test_weights_are_those_that_splink_gives(learnt: tuple[duckdb.DuckDBPyConnection, matcher.Model]) -> None:
    """Of every pair, and of every comparison: its level, and its bits with what a rare value adds."""
    con, model = learnt
    pairs.block(con, model.blocking, "ours")
    pairs.compare(con, model.columns, "ours", "levels")
    theirs = own(con, model).inference.predict(warning_mode="never").physical_name
    rows = con.execute(
        f"""SELECT * FROM ({pairs.weighed(con, model.columns, model.learnt, "levels")}) o
            JOIN {theirs} s ON s.unique_id_l = o.join_key_l AND s.unique_id_r = o.join_key_r"""
    ).df()
    assert len(rows) == con.execute("SELECT count(*) FROM ours").fetchall()[0][0]
    assert rows["w"].to_numpy() == pytest.approx(rows["match_weight"].to_numpy(), abs=1e-9)
    for one in model.comparisons:
        level, gamma = rows[f"c_{one.name}"], rows[f"gamma_{one.name}"]
        assert (gamma == np.where(level < 0, -1, len(one.levels) - 1 - level)).all(), one.name
        bits = rows[f"mw_{one.name}"] + rows.get(f"mw_tf_adj_{one.name}", 0.0)
        assert rows[f"b_{one.name}"].to_numpy() == pytest.approx(bits.to_numpy(), abs=1e-9), one.name


def words(count: int) -> list[str]:
    """So many different ones."""
    return ["".join(letters) for letters in islice(product("bcdfghkl", "aeiou", "lmnrst", "aeiou", "dkp"), count)]


def test_a_model_of_few_records_does_not_compare_all_pairs_of_many() -> None:
    few = table(pd.DataFrame({"last_name": ["abel", "abel", "brandt"], "first_name": ["ann", "ann", "bob"]}))
    _, model = found(few)
    assert model.blocking == ["1 = 1"]
    rows = pd.DataFrame({"last_name": words(1_000) * 2, "first_name": words(2_000)[::-1]})
    con = table(rows)
    _, columns = matcher.read(con, "given")
    matcher.fit(con, columns, model)
    matcher.predict(con, model)
    assert 1_000 <= con.execute("SELECT count(*) FROM _blocked").fetchall()[0][0] < 500_000


def test_where_nobody_agrees_with_anybody_everybody_is_alone() -> None:
    rows = pd.DataFrame({"last_name": words(2_000), "email": [f"{word[::-1]}@{word}.org" for word in words(2_000)]})
    label, _ = found(table(rows))
    assert len(set(label.tolist())) > len(rows) * 0.9


def test_rules_that_find_more_for_their_pairs_come_first(generated: pd.DataFrame) -> None:
    """In a tenth of the pairs that the loosest rules would bring up is nearly every true one."""
    con = table(generated)
    _, columns = matcher.read(con, "given", never=["person"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocking, "ALL", 0)
        rules = choose(con, sorted(columns), most=6_000)
    assert pairs.block(con, [rule.sql for rule in rules]) <= 8_000
    person = pd.factorize(generated["person"])[0]
    brought = con.execute("SELECT join_key_l, join_key_r FROM _blocked").fetchnumpy()
    same = (person[brought["join_key_l"]] == person[brought["join_key_r"]]).sum()
    assert same >= 0.97 * _matching.pairs_in(person)


def test_settings_are_the_same_for_every_engine() -> None:
    columns = [
        "first",
        "first_canon",
        "first_sound",
        "last",
        "last_sound",
        "birth",
        "nid",
        "postcode",
        "street",
        "house",
    ]
    for engine in ("duckdb", "spark"):
        made = settings(columns, ["l.last = r.last"]).create_settings_dict(engine)["comparisons"]
        assert [one["output_column_name"] for one in made] == [one.name for one in compared(columns)]
        assert [len(one["comparison_levels"]) for one in made] == [len(one.levels) + 1 for one in compared(columns)]


def graph(seed: int) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    n = int(draw.integers(2, 40))
    ends = np.sort(draw.integers(0, n, (int(draw.integers(1, 80)), 2)), axis=1)
    ends = np.unique(ends[ends[:, 0] < ends[:, 1]], axis=0)
    return n, ends[:, 0], ends[:, 1], draw.normal(1, 5, len(ends)).round(3)


@pytest.mark.parametrize("seed", range(40))
def test_without_a_mean_and_without_facts_clusters_are_connected_components(seed: int) -> None:
    n, left, right, weight = graph(seed)
    label = cluster(n, left, right, weight, mean=-np.inf).label
    whole = nx.Graph()
    whole.add_nodes_from(range(n))
    whole.add_edges_from((int(a), int(b)) for a, b, w in zip(left, right, weight, strict=True) if w >= 0)
    assert {frozenset(np.flatnonzero(label == x).tolist()) for x in set(label.tolist())} == {
        frozenset(part) for part in nx.connected_components(whole)
    }


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("with_facts", [False, True])
def test_clusters_are_those_of_a_naive_loop(seed: int, with_facts: bool) -> None:
    n, left, right, weight = graph(seed)
    days = ["19800101", "19620704", None] if with_facts else [None]
    born = [Random(seed + i).choice(days) for i in range(n)]
    facts = [Fact("birth", born, other_day)]
    got = cluster(n, left, right, weight, facts=facts)
    assert got.label.tolist() == naive(n, left, right, weight, born)
    groups = {x: np.flatnonzero(got.label == x) for x in set(got.label.tolist())}
    for place, name in got.refused:
        assert name == "birth"
        assert weight[place] < 10
    assert sum(map(len, groups.values())) == n


def naive(n: int, left: np.ndarray, right: np.ndarray, weight: np.ndarray, born: Sequence[str | None]) -> list[int]:
    """The rule, said again: best mean first, every pair of groups looked at every time."""
    known = {(int(a), int(b)): (float(w), k) for k, (a, b, w) in enumerate(zip(left, right, weight, strict=True))}
    groups, out = {i: [i] for i in range(n)}, set()

    def apart(one: list[int], other: list[int]) -> bool:
        return any(born[a] and born[b] and other_day(born[a], born[b]) for a in one for b in other)  # pyright: ignore

    while True:
        options = []
        for a in groups:
            for b in groups:
                if a < b and (a, b) not in out:
                    pairs = [known.get((min(x, y), max(x, y))) for x in groups[a] for y in groups[b]]
                    there = [p for p in pairs if p]
                    mean = sum(min(max(p[0], -6.0), 10.0) if p else -6.0 for p in pairs) / len(pairs)
                    if there and max(p[0] for p in there) >= 0 and mean >= -3.5:
                        best, k = max(there, key=lambda p: (p[0], -p[1]))
                        options.append((-mean, -best, a, b, k))
        if not options:
            label = {i: min(members) for members in groups.values() for i in members}
            return [label[i] for i in range(n)]
        _, best, a, b, k = min(options)
        own = apart([int(left[k])], [int(right[k])])
        if (own and -best < 3.2) or (not own and -best < 10 and apart(groups[a], groups[b])):
            out.add((a, b))
            continue
        groups[a] += groups.pop(b)
        out = {pair for pair in out if a not in pair and b not in pair}


def test_no_weak_edge_joins_two_birth_dates() -> None:
    """a and b were born on one day, c on another; b and c say nothing against each other."""
    born = ["19800101", None, "19620704"]
    got = cluster(3, np.array([0, 1]), np.array([1, 2]), np.array([12.0, 4.0]), facts=[Fact("birth", born, other_day)])
    assert got.label.tolist() == [0, 0, 2]
    assert got.refused == [(1, "birth")]
    assert cluster(3, np.array([0, 1]), np.array([1, 2]), np.array([12.0, 4.0])).label.tolist() == [0, 0, 0]


def test_one_weak_pair_chains_no_two_groups() -> None:
    whole = [(a, b) for group in (range(5), range(5, 10)) for a in group for b in group if a < b]
    left, right = (np.array(x) for x in zip(*[*whole, (4, 5)], strict=True))
    weight = np.array([9.0] * len(whole) + [3.0])
    assert len(set(cluster(10, left, right, weight).label.tolist())) == 2
    assert len(set(cluster(10, left, right, weight, mean=-np.inf).label.tolist())) == 1


@pytest.mark.parametrize(
    ("a", "b", "many"), [("19850312", "19850321", False), ("19850312", "1985031", False), ("abcdef", "fedcba", True)]
)
def test_slips(a: str, b: str, many: bool) -> None:
    assert slips(a, b) is slips(b, a) is many
    said = duckdb.execute("SELECT damerau_levenshtein(?, ?) > 2", [a, b]).fetchall()[0][0]
    assert said is many


def test_scores_are_those_of_the_definition() -> None:
    """Two of three records of a person together, the third with a stranger."""
    got = _matching.cluster_scores(np.array([0, 0, 0, 1]), np.array([7, 7, 8, 8]))
    assert got["b3_precision"] == pytest.approx((1 + 1 + 0.5 + 0.5) / 4)
    assert got["b3_recall"] == pytest.approx((2 / 3 + 2 / 3 + 1 / 3 + 1) / 4)
    assert got["cluster_f1"] == pytest.approx(2 * 1 / (2 + 3))
    assert _matching.household_merges(np.array([0, 1, 2]), np.array([5, 5, 6]), np.array([0, 0, 0])) == (1, 3)
    assert _matching.pair_scores(np.array([0, 0, 1]), np.array([0, 0]), np.array([1, 2]))["pair_f1"] == pytest.approx(
        2 / 3
    )

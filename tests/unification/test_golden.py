"""Golden records: every rule against a naive loop, enrichment, the past, patches, and what a declaration refuses."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import KEY

from foretell import Attribute, Source
from foretell.__main__ import cli
from foretell.errors import DefinitionError, ForetellError, UnknownName
from foretell.project import Project
from ingestion.load import load
from lake.engine import last_batch, session
from serving.profile import past
from unification.decisions import decide, decisions, take_back
from unification.golden import build_golden, golden_at
from unification.identity import members_at, owners, unify

START, DAY = datetime(2024, 1, 1, tzinfo=UTC), timedelta(days=1)
NOW = START + 400 * DAY
COLUMNS = ["at", "known", "card", "email", "city", "name", "street", "plan", "income"]
TRAITS = {
    "crm": ("city", "name", "street", "plan"),
    "web": ("city", "name", "street", "plan", "income"),
    "mailing": ("city", "name", "plan"),
    "partner": ("city", "street", "income", "plan"),
    "bought": ("city", "name", "income"),
}
MORE = {
    "crm": "trust=2",
    "web": "trust=2",
    "mailing": "",
    "partner": 'party="second", enrich="update", trust=1',
    "bought": 'party="third", trust=9',
}
RULES = """
from foretell import Attribute

city = Attribute("city", keep="most_frequent")
name = Attribute("name", keep="longest")
street = Attribute("street", keep="most_recent", enrich={"partner": "fill"})
plan = Attribute("plan", trust={"mailing": 7})
"""
KEEP = {"city": "most_frequent", "name": "longest", "street": "most_recent", "plan": "most_trusted",
        "income": "most_trusted"}  # fmt: skip

Row = dict[str, str]


def project_of(folder: Path, rules: str = RULES, now: datetime = NOW, more: Mapping[str, str] = MORE) -> Project:
    """A project of five sources with the same columns; nothing is loaded."""
    (folder / "sources").mkdir(parents=True)
    (folder / "attributes").mkdir()
    (folder / "attributes" / "rules.py").write_text(rules)
    (folder / "foretell.toml").write_text(f'[foretell]\nas_of = "{now.isoformat()}"\n')
    for source, traits in TRAITS.items():
        (folder / "sources" / f"{source}.py").write_text(
            f"""from foretell import Source

it = Source("{source}", files="{source}/*.csv", kind="records", event_at="at", known_at="known",
    identifiers={{"card": "card", "email": "email"}}, traits={ {t: t for t in traits}!r}, {more[source]})
"""
        )
    project = Project(folder)
    project.home.mkdir()
    (project.home / "key").write_text(KEY)
    return project


def row(at: datetime, card: str = "", email: str = "", known: datetime | None = None, **values: str) -> Row:
    stamps = {"at": at.isoformat(), "known": (known or at).isoformat()}
    return {**dict.fromkeys(COLUMNS, ""), **stamps, "card": card, "email": email, **values}


def bring(project: Project, facts: Mapping[str, Iterable[Row]], batch: int = 0) -> Project:
    """Write a file of each source and load them."""
    for source, rows in facts.items():
        file = project.exports / source / f"{batch}.csv"
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("w", newline="") as out:
            writer = csv.DictWriter(out, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        for result in load(project, [source]):
            if isinstance(result, ForetellError):
                raise result
            assert not result.quarantined, result.reasons
    return project


def some(draw: Random, people: int, rows: int, days: int = 380) -> dict[str, list[Row]]:
    """Facts about people, many of them at the same instant, and of few values: ties are the rule."""
    facts: dict[str, list[Row]] = {}
    for source, traits in TRAITS.items():
        made = []
        for _ in range(rows):
            person = draw.randrange(people)
            at = START + draw.randrange(6) * DAY * (days / 6)
            card = f"CARD{person}{draw.choice('AB')}" if draw.random() < 0.8 else ""
            email = f"p{draw.choice([person, person, draw.randrange(people)])}@home.org" if draw.random() < 0.5 else ""
            late = draw.choice([0, 0, 0, 30, 200]) * DAY
            values = {t: draw.choice(["", " ", "a", "bb", "cc", " bb ", "d d d", "ß"]) for t in traits}
            made.append(row(at, card, email, at + late, **values))
        facts[source] = [*made, made[0], made[0]]  # the same line thrice is three facts
    return facts


def ask(project: Project, query: str) -> list[tuple]:
    with session(project) as con:
        return con.execute(query).fetchall()


def tables(project: Project) -> dict[str, list[tuple]]:
    return {t: ask(project, f"SELECT * FROM {t} ORDER BY ALL") for t in ("golden", "profiles")}


def expected(project: Project, at: datetime = NOW) -> dict[tuple[str, str], tuple]:
    """The naive loop: (profile, attribute) -> value, source, fact_id, event_at, known_at, distinct_values, rule."""
    with session(project) as con:
        owner = dict(con.execute(f"SELECT node, profile_id FROM ({members_at(at)})").fetchall())
        claims = defaultdict(list)
        for source, contract in project.definitions.sources.items():
            found = con.execute(f'SELECT * FROM "{source}"')
            names = [d[0] for d in found.description or []]
            for values in found.fetchall():
                fact = dict(zip(names, values, strict=True))
                if fact["known_at"] >= at or fact["event_at"] >= at:
                    continue
                nodes = [f"{kind}:{fact[f'id_{kind}']}" for kind in ("card", "email") if fact[f"id_{kind}"]]
                about = {owner[n] for n in (nodes if contract.enrich else nodes[:1]) if n in owner}
                for profile in about:
                    for trait in contract.traits:
                        if value := (fact[trait] or "").strip():
                            claims[profile, trait].append((contract, value, fact))
    return {key: (*_survivor(key[1], said), len({v for _, v, _ in said}), KEEP[key[1]]) for key, said in claims.items()}


def _survivor(trait: str, said: list[tuple[Source, str, dict[str, Any]]]) -> tuple:
    def tier(source: Source) -> int:
        mode = {("street", "partner"): "fill"}.get((trait, source.name), source.enrich)
        return 0 if mode == "fill" else 1

    top = max(tier(source) for source, *_ in said)
    said = [claim for claim in said if tier(claim[0]) == top]
    facts = Counter(value for _, value, _ in said)

    def rank(claim: tuple[Source, str, dict[str, Any]]) -> tuple:
        source, value, fact = claim
        trust = 7 if (trait, source.name) == ("plan", "mailing") else source.trust
        measure = {"most_trusted": trust, "most_frequent": facts[value], "longest": len(value), "most_recent": 0}
        line, _, number = fact["fact_id"].partition("-")
        return measure[KEEP[trait]], fact["event_at"], trust, line, int(number)

    source, value, fact = max(said, key=rank)
    return value, source.name, fact["fact_id"], fact["event_at"], fact["known_at"]


def records(rows: Iterable[tuple]) -> dict[tuple[str, str], tuple]:
    """Rows of `golden` as the naive loop gives them, without those of the graph."""
    return {(profile, attribute): tuple(rest) for profile, attribute, *rest in rows if rest[1] != "identity graph"}


@pytest.mark.parametrize("seed", range(3))
def test_every_rule_keeps_what_a_naive_loop_keeps(tmp_path: Path, seed: int) -> None:
    project = bring(project_of(tmp_path / "p"), some(Random(seed), people=120, rows=260))
    unify(project)
    found = records(ask(project, "SELECT * FROM golden"))
    assert found == expected(project)
    assert {rule for *_, rule in found.values()} == set(KEEP.values())
    assert max(number for *_, number, _ in found.values()) > 3
    wide = {name: [row[0] for row in ask(project, f"SELECT {name} FROM profiles ORDER BY profile_id")] for name in KEEP}
    for name, values in wide.items():
        ids = [row[0] for row in ask(project, "SELECT profile_id FROM profiles ORDER BY 1")]
        assert values == [found.get((profile, name), (None,))[0] for profile in ids]


def test_identifiers_keep_the_one_that_became_known_last(tmp_path: Path) -> None:
    project = project_of(tmp_path / "p", 'from foretell import Attribute\nit = Attribute("card", keep="longest")\n')
    days = {"CARD1": 3, "CARD22": 1, "CARD3": 9}
    unify(bring(project, {"crm": [row(START + n * DAY, card, "jo@home.org") for card, n in days.items()]}))
    query = "SELECT attribute, value, source, fact_id, event_at, distinct_values, rule FROM golden ORDER BY 1"
    assert ask(project, query) == [
        ("card", "CARD22", "identity graph", "card:CARD22", START + DAY, 3, "longest"),
        ("email", "jo@home.org", "identity graph", "email:jo@home.org", START + DAY, 1, "most_trusted"),
    ]
    assert ask(project, "SELECT card, email, identifiers FROM profiles") == [("CARD22", "jo@home.org", 4)]


@pytest.mark.slow
@pytest.mark.parametrize("day", [0, 190, 260])
def test_the_record_of_a_past_instant_is_that_of_a_lake_which_knows_no_more(tmp_path: Path, day: int) -> None:
    facts, at = some(Random(5), people=40, rows=80), START + day * DAY + timedelta(hours=1)
    whole = bring(project_of(tmp_path / "whole"), facts)
    unify(whole)
    before = {s: [r for r in rows if datetime.fromisoformat(r["known"]) < at] for s, rows in facts.items()}
    part = bring(project_of(tmp_path / "part", now=at), {s: rows for s, rows in before.items() if rows})
    unify(part)
    with session(whole) as con:
        then = con.execute(f"SELECT * FROM ({golden_at(con, whole, at)}) ORDER BY ALL").fetchall()
    assert [_line(r) for r in then] == [_line(r) for r in ask(part, "SELECT * FROM golden ORDER BY ALL")]
    assert records(then) == expected(whole, at)
    assert all(r[6] < at for r in then)


def _line(golden: tuple) -> tuple:
    """A row but for the number of a line that came several times: another file counts them anew."""
    return tuple(str(value).partition("-")[0] if i == 4 else value for i, value in enumerate(golden))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 5))])
def test_patched_is_what_is_made_from_scratch(tmp_path: Path, seed: int) -> None:
    """Batches of facts, vetoes, vetoes taken back: only what was touched is made anew, and nothing differs."""
    draw, project = Random(seed), project_of(tmp_path / "p")
    home, kept = project.home / "derived", tmp_path / "kept"
    patched = 0
    for batch in range(7):
        before, watermark = members(project) if batch else {}, last_batch(project)
        standing = decisions(project)
        standing = list(standing[standing["known_to"].isna()]["decision_id"])
        if batch < 3 or batch % 2:
            facts = some(draw, people=60, rows=10)
            bring(project, facts, batch)
        elif standing:
            take_back(project, standing[0])
        else:
            a, b = draw.sample(max(before.values(), key=len), 2)
            decide(project, "veto", a, b)
        if batch:
            shutil.rmtree(kept, ignore_errors=True)
            kept.mkdir()
            for item in home.glob("[gp][or]*"):
                (shutil.copytree if item.is_dir() else shutil.copy)(item, kept / item.name)
        unify(project)
        scratch = tables(project)
        assert records(scratch["golden"]) == expected(project)
        if not batch:
            continue
        for item in home.glob("[gp][or]*"):
            shutil.rmtree(item) if item.is_dir() else item.unlink()
        for item in kept.iterdir():
            (shutil.copytree if item.is_dir() else shutil.copy)(item, home / item.name)
        after = members(project)
        touched = {p for p in before.keys() | after.keys() if before.get(p) != after.get(p)}
        new = " UNION ALL ".join(
            f"SELECT unnest(['card:' || id_card, 'email:' || id_email]) AS node FROM {s} WHERE batch > {watermark}"
            for s in TRAITS
        )
        touched |= {p for (p,) in ask(project, f"SELECT profile_id FROM ({members_at(NOW)}) JOIN ({new}) USING (node)")}
        assert len(touched) < len(after) or batch < 2
        with session(project) as con:
            con.execute("CREATE TEMP TABLE touched (profile_id VARCHAR)")
            con.executemany("INSERT INTO touched VALUES (?)", [[p] for p in touched or {"nobody"}])
            assert build_golden(con, project, "touched") == len(after)
        patched += (home / "golden.patches").exists()
        assert tables(project) == scratch
    assert patched


def members(project: Project) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for node, profile in sorted(owners(project).items()):
        found[profile].append(node)
    return found


# Enrichment.


def city(project: Project) -> list[tuple]:
    unify(project)
    return ask(project, "SELECT value, source FROM golden WHERE attribute = 'city'")


def test_what_fills_stands_until_the_company_itself_knows_better(tmp_path: Path) -> None:
    project = bring(project_of(tmp_path / "p", ""), {"crm": [row(START, "CARD1", "jo@home.org", name="Jo")]})
    assert city(project) == []
    bring(project, {"bought": [row(START + DAY, email="jo@home.org", city="Oslo")]}, 1)
    assert city(project) == [("Oslo", "bought")]
    bring(project, {"crm": [row(START, "CARD1", city="Bergen")]}, 2)  # older, and of a less trusted source
    assert city(project) == [("Bergen", "crm")]
    assert ask(project, "SELECT distinct_values FROM golden WHERE attribute = 'city'") == [(2,)]


@pytest.mark.parametrize(("rule", "kept"), [("most_recent", "Oslo"), ("most_trusted", "Bergen")])
def test_what_updates_competes_by_the_attributes_rule(tmp_path: Path, rule: str, kept: str) -> None:
    project = project_of(tmp_path / "p", f'from foretell import Attribute\nit = Attribute("city", keep="{rule}")\n')
    facts = {
        "crm": [row(START, "CARD1", city="Bergen")],
        "partner": [row(START + DAY, "CARD1", city="Oslo")],
        "bought": [row(START + 2 * DAY, "CARD1", city="Tromsø")],
    }
    assert [value for value, _ in city(bring(project, facts))] == [kept]


def test_what_enriches_makes_no_profile_and_links_none(tmp_path: Path) -> None:
    facts = {
        "crm": [row(START, "CARD1"), row(START, email="jo@home.org")],
        "bought": [
            row(START, "CARD1", "jo@home.org", city="Oslo"),
            row(START, "CARD9", "stranger@home.org", city="Bergen"),
        ],
    }
    project = bring(project_of(tmp_path / "p", ""), facts)
    assert unify(project)["identifiers"] == 2
    # it is about whoever has one of its identifiers
    assert ask(project, "SELECT city, card, email FROM profiles ORDER BY card") == [
        ("Oslo", "CARD1", None), ("Oslo", None, "jo@home.org"),
    ]  # fmt: skip
    bring(project, {"web": [row(START, email="stranger@home.org")]}, 1)  # known now, by one of the two
    unify(project)
    assert ask(project, "SELECT city FROM profiles WHERE email = 'stranger@home.org'") == [("Bergen",)]


# Declarations.


@pytest.mark.parametrize(
    ("rules", "problem"),
    [
        ('Attribute("citi")', 'citi: no such trait or identifier; did you mean "city"?'),
        ('Attribute("city", keep="newest")', 'city: keep is one of "most_trusted", "most_recent"'),
        ('Attribute("city", trust={"crn": 1})', 'crn: no such source; did you mean "crm"?'),
        ('Attribute("income", trust={"crm": 1})', "income: crm says nothing about it"),
        ('Attribute("city", enrich={"crm": "fill"})', 'city: crm is the company\'s own .*say party="third"'),
        ('Attribute("city", enrich={"bought": "overwrite"})', 'city, bought: enrich is one of "fill", "update"'),
        ('Attribute("city")\nother = Attribute("city")', "city: declared twice"),
    ],
)
def test_a_rule_that_cannot_be_kept_is_refused(tmp_path: Path, rules: str, problem: str) -> None:
    project = project_of(tmp_path / "p", f"from foretell import Attribute\n\nit = {rules}\n")
    with pytest.raises((DefinitionError, UnknownName), match=problem):
        _ = project.definitions


def test_a_source_says_whose_data_it_has() -> None:
    about = {"files": "x.csv", "kind": "records"}
    assert Source("x", **about).enrich == ""  # type: ignore[arg-type]
    assert Source("x", party="second", **about).enrich == "fill"  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match=r"enrich is for data of others.*say party="):
        Source("x", enrich="fill", **about)  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match='party is one of "first", "second", "third"'):
        Source("x", party="fourth", **about)  # type: ignore[arg-type]
    assert Attribute("city").keep == "most_trusted"


def test_another_rule_makes_other_records_at_the_next_run(tmp_path: Path) -> None:
    from unification.identity import ensure

    facts = {"crm": [row(START, "CARD1", city="Bergen")], "mailing": [row(START + DAY, "CARD1", city="Oslo")]}
    project = bring(project_of(tmp_path / "p", ""), facts)
    assert city(project) == [("Bergen", "crm")]
    rule = 'from foretell import Attribute\nit = Attribute("city", keep="most_recent")\n'
    (project.folder / "attributes" / "rules.py").write_text(rule)
    again = Project(project.folder)
    ensure(again)
    assert ask(again, "SELECT value FROM golden WHERE attribute = 'city'") == [("Oslo",)]


# History.


def told(project: Project, who: str, attribute: str | None = None) -> list[tuple]:
    found = past(project, who, attribute)["history"]
    return [(v["attribute"], v["value"], v["source"], v["facts"], v["survived"]) for v in found]


def test_the_history_says_who_said_what_and_when_it_stood(tmp_path: Path) -> None:
    project = project_of(tmp_path / "p", 'from foretell import Attribute\nit = Attribute("city", keep="most_recent")\n')
    facts = {
        "crm": [row(START, "CARD1", city="Oslo"), row(START + 9 * DAY, "CARD1", city="Oslo")],
        # known late, and older than what is known by then
        "web": [row(START + 5 * DAY, "CARD1", city="Bergen"),
                row(START + 2 * DAY, "CARD1", city="Bodø", known=START + 30 * DAY)],
        "bought": [row(START - 9 * DAY, "CARD1", city="Tromsø", known=START - 9 * DAY)],
    }  # fmt: skip
    facts["web"].append(row(START - 20 * DAY, "CARD1"))
    unify(bring(project, facts))
    assert told(project, "CARD1", "city") == [
        ("city", "Oslo", "crm", 2, [(START, START + 5 * DAY), (START + 9 * DAY, None)]),
        ("city", "Bergen", "web", 1, [(START + 5 * DAY, START + 9 * DAY)]),
        ("city", "Bodø", "web", 1, []),
        ("city", "Tromsø", "bought", 1, [(START - 9 * DAY, START)]),
    ]
    with pytest.raises(UnknownName, match='citi: no such trait; did you mean "city"'):
        told(project, "CARD1", "citi")
    with pytest.raises(UnknownName, match="card: is an identifier"):
        told(project, "CARD1", "card")


def test_the_history_begins_where_a_profile_took_in_another(tmp_path: Path) -> None:
    facts = {"crm": [row(START, "CARD1"), row(START + DAY, email="jo@home.org", city="Oslo"),
                     row(START + 9 * DAY, "CARD1", "jo@home.org")]}  # fmt: skip
    project = bring(project_of(tmp_path / "p", ""), facts)
    unify(project)
    assert told(project, "CARD1") == [("city", "Oslo", "crm", 1, [(START + 9 * DAY, None)])]


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_the_history_is_what_the_record_said_at_every_instant(tmp_path: Path, seed: int) -> None:
    project = bring(project_of(tmp_path / "p"), some(Random(seed), people=8, rows=30))
    unify(project)
    profiles = [p for (p,) in ask(project, "SELECT profile_id FROM profiles ORDER BY identifiers DESC LIMIT 2")]
    histories = {profile: past(project, profile)["history"] for profile in profiles}
    ends = {at for said in histories.values() for v in said for span in v["survived"] for at in span if at}
    tick = timedelta(microseconds=1)
    with session(project) as con:
        for at in sorted({instant for end in ends for instant in (end, end + tick)} | {NOW}):
            golden = con.execute(f"SELECT * FROM ({golden_at(con, project, at)})").fetchall()
            for profile, values in histories.items():
                then = {
                    (v["attribute"], v["value"], v["source"])
                    for v in values
                    for begin, end in v["survived"]
                    if begin < at and (end is None or at <= end)
                }
                assert then == {(a, v, s) for (p, a), (v, s, *_) in records(golden).items() if p == profile}


def test_the_history_is_printed(tmp_path: Path) -> None:
    facts = {"crm": [row(START, "CARD1", city="Oslo"), row(START + DAY, "CARD1", city="Bergen", name="Jo")]}
    project = bring(project_of(tmp_path / "p", ""), facts)
    unify(project)

    def printed(*words: str) -> str:
        result = CliRunner().invoke(cli, ["--project", str(project.folder), "profile", "CARD1", *words])
        assert result.exit_code == 0, result.output
        return result.output

    lines = printed("--history", "city").splitlines()
    assert lines[3].split() == ["*", "city", "Bergen", "crm", "1", "2024-01-02", "2024-01-02", "2024-01-02", "…", "now"]
    assert lines[4].split()[-3:] == ["2024-01-01", "…", "2024-01-02"]
    assert "name" in printed("--history")
    assert json.loads(printed("--history", "--json"))["history"][0]["value"] == "Bergen"
    assert "Bergen" in printed()


def test_the_readmes_section_is_real(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text()
    section = re.split(r"^## ", text.partition("## The golden record\n")[2], flags=re.M)[0]
    ((file, rules),) = re.findall(r"^```python\n# (attributes/\w+\.py)\n(.*?)^```$", section, flags=re.S | re.M)
    (commands,) = re.findall(r"^```sh\n(.*?)^```$", section, flags=re.S | re.M)
    project = project_of(tmp_path / "p", "")
    contract = (project.folder / "sources" / "bought.py").read_text().replace("bought", "data_broker")
    (project.folder / "sources" / "data_broker.py").write_text(contract)
    (project.folder / file).write_text(rules)
    facts = {
        "crm": [row(START, "CARD1", "jo@acme.com", city="Oslo"), row(START + DAY, "CARD1", city="Bergen")],
        "web": [row(START, "CARD1", income="low")],
        "data_broker": [row(START + DAY, email="jo@acme.com", income="high")],
    }
    unify(bring(project, facts))
    assert ask(project, "SELECT city, income FROM profiles") == [("Bergen", "high")]  # trust 9 of the broker counts
    for line, shown in zip(commands.strip().splitlines(), ("Bergen", "1 people"), strict=True):
        words = shlex.split(line, comments=True)
        assert words.pop(0) == "foretell"
        result = CliRunner().invoke(cli, ["--project", str(project.folder), *words])
        assert result.exit_code == 0, result.output
        assert shown in result.output

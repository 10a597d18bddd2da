"""Which profiles changed: against a plain comparison of two states, and as `foretell quarantine replay` says it."""

from __future__ import annotations

from pathlib import Path

import duckdb
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from foretell.project import Project
from unification.changes import Changes, _compare, watching
from unification.identity import ensure, owners

CRM = """
from foretell import Source

crm = Source(
    name="crm", files="crm/*.csv", kind="records", event_at={event_at},
    identifiers={{"email": "email", "phone": "phone"}}, traits={{"city": "city"}},
)
"""
MENDED = "\"coalesce(try_strptime(at, '%d.%m.%Y')::VARCHAR, at)\""
ROWS = """at,email,phone,city
2024-01-01,ann@example.org,2125550101,Oslo
2024-01-01,bob@example.org,,Bergen
2024-01-02,cid@example.org,,
05.02.2024,bob@example.org,2125550101,
06.02.2024,cid@example.org,2125550103,Tromsø
07.02.2024,dee@example.org,,
never,eve@example.org,,
"""


def shop(folder: Path, event_at: str = '"at"') -> Project:
    for name in ("sources", "exports/crm"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "foretell.toml").write_text("[foretell]\n")
    (folder / "sources" / "crm.py").write_text(CRM.format(event_at=event_at))
    (folder / "exports" / "crm" / "a.csv").write_text(ROWS)
    return Project(folder)


def foretell(made: Project, *words: object) -> list[str]:
    from foretell.__main__ import cli

    result = CliRunner().invoke(cli, ["--project", str(made.folder), *map(str, words)], catch_exceptions=False)
    return result.output.splitlines()


def test_a_replay_says_which_profiles_changed(tmp_path):
    made = shop(tmp_path)
    foretell(made, "load")
    before = owners(made) if (made.home / "derived").exists() else {}
    assert before == {}
    foretell(made, "unify")
    before = owners(made)
    listed = foretell(made, "quarantine")
    assert listed[1].split()[:2] == ["crm", "4"]
    assert "at: expected a time, got …" in listed[1]
    assert listed[-1] == "4 of 4 rows; `foretell quarantine show ID` shows one whole"
    which = next(text.split()[0] for text in listed if "cid@" in text)
    shown = "\n".join(foretell(made, "quarantine", "show", which))
    assert "crm/a.csv:6, received" in shown
    assert 'By today\'s contract: at: expected a time, got "06.02.2024"' in shown
    made = shop(tmp_path, MENDED)
    assert "By today's contract it is good: replay it." in foretell(made, "quarantine", "show", which)
    said = foretell(made, "quarantine", "replay")
    after = owners(made)
    ann, bob, cid = (before[f"email:{name}@example.org"] for name in ("ann", "bob", "cid"))
    assert said == [
        "crm               crm/a.csv: 3 facts, 1 stay in quarantine",
        f'                    crm/a.csv:8: {MENDED.strip(chr(34))}: expected a time, got "never"',
        "1 new, 1 merged or split, 1 changed of the profiles:",
        f"  {' and '.join(sorted([ann, bob]))} -> {after['email:ann@example.org']}",
        f'  {cid}: + phone:2125550103, city nothing -> "Tromsø"',
        f"  {after['email:dee@example.org']}: new",
    ]
    assert foretell(made, "quarantine", "replay", "--reason", "gone") == ["No such row is in quarantine."]
    assert foretell(made, "quarantine", "replay")[-1] == "No profile changed."
    assert foretell(made, "quarantine", "show", foretell(made, "quarantine")[-2].split()[0], "--raw") == [
        '{"at":"never","email":"eve@example.org","phone":null,"city":null}'
    ]


def test_nothing_changes_of_itself(tmp_path):
    made = shop(tmp_path)
    with watching(made) as changed:
        assert changed().lines() == ["No profile changed."]
        foretell(made, "load")
        ensure(made)
        assert len(changed().new) == 3
    with watching(made) as changed:
        assert len(changed()) == 0


def test_many_changes_are_counted_and_some_shown():
    said = Changes([f"p{n}" for n in range(30)], [(["a", "b"], ["a"])], {}, {}).lines(most=3)
    assert said == ["30 new, 1 merged or split of the profiles:", "  a and b -> a", "  p0: new", "  p1: new",
                    "  and 28 more"]  # fmt: skip


people = st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from(["p", "q", "r", "s"]))
held = st.dictionaries(st.tuples(st.sampled_from(["p", "q", "r"]), st.sampled_from(["x", "y"])), st.sampled_from("12"))


@settings(max_examples=60, deadline=None)
@given(people, people, held, held)
def test_against_a_plain_comparison(was, now, had, has):
    con = duckdb.connect()
    for when, owner, value in (("before", was, had), ("after", now, has)):
        con.execute(f"CREATE TABLE {when}_owner (node VARCHAR, profile_id VARCHAR)")
        con.execute(f"CREATE TABLE {when}_value (profile_id VARCHAR, attribute VARCHAR, value VARCHAR)")
        for row in owner.items():
            con.execute(f"INSERT INTO {when}_owner VALUES (?, ?)", row)
        for (profile, attribute), text in value.items():
            con.execute(f"INSERT INTO {when}_value VALUES (?, ?, ?)", [profile, attribute, text])
    found = _compare(con)
    new = {p for p in now.values() if not any(node in was for node, owner in now.items() if owner == p)}
    moved = {p for node in was.keys() & now.keys() if was[node] != now[node] for p in (was[node], now[node])}
    assert set(found.new) == new
    regrouped = {p for old, fresh in found.regrouped for p in (*old, *fresh)}
    assert regrouped >= moved
    elsewhere = new | regrouped
    assert {(p, n) for p, nodes in found.gained.items() for n in nodes} == {
        (p, n) for n, p in now.items() if n not in was and p not in elsewhere
    }
    assert {(p, a): pair for p, each in found.renewed.items() for a, pair in each.items()} == {
        key: (had.get(key), has.get(key))
        for key in had.keys() | has.keys()
        if had.get(key) != has.get(key) and key[0] not in elsewhere
    }

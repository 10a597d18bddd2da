"""The trail: every answer about people is in it, whatever is killed or erased meanwhile, and it says whom, not what."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from accessing import CARD, NAME, PERSON, Behind, behind, fresh
from click.testing import CliRunner
from fixtures_trained import TrainedShop, trained
from test_http_input import refused

from foretell import __main__ as program
from foretell.errors import DataError
from foretell.project import Project
from lake import audit
from lake.engine import session, table
from lake.erasure import receipts
from lake.scan import search
from serving.access.trail import Read, Trail, now, take_in
from serving.erase import erase, plan
from serving.export import collect
from serving.publish import publish
from unification.identity import resolve

__all__ = ["trained"]

ROOT = Path(__file__).parents[2]


@pytest.fixture
def service(trained: TrainedShop, tmp_path: Path) -> Iterator[Behind]:
    with behind(fresh(trained, tmp_path / "shop")) as found:
        yield found


def id_of(project: Project, who: str) -> str:
    with session(project) as con:
        return resolve(con, project, who)


def test_every_answer_about_people_is_written_down(service: Behind) -> None:
    person, other = id_of(service.project, PERSON), id_of(service.project, "person3@example.org")

    def ask(role: str, path: str, **more: object) -> None:
        method = "POST" if more else "GET"
        service.client.request(method, path, headers=service.headers(role), **more)

    ask("score", "/v1/scores", json={"profiles": [PERSON, CARD, "person3@example.org", "nobody@x.org"]})
    ask("score", f"/v1/profiles/{PERSON}/scores")
    ask("support", f"/v1/profiles/{PERSON}")
    ask("read", f"/v1/profiles/{person}?reasons=true")
    ask("everything", f"/v1/profiles/{PERSON}")
    ask("score", "/v1/profiles/nobody@x.org/scores")
    ask("score", "/v1/scores", json={"profiles": 7})
    ask("score", f"/v1/profiles/{PERSON}")  # may not
    ask("read", "/v1/tasks")  # about nobody
    ask("nobody", f"/v1/profiles/{PERSON}")  # nobody knows by whom
    found = [tuple(row[k] for k in ("who", "route", "profiles", "count", "scopes", "status")) for row in service.rows()]
    scores, of, page = "/v1/scores", "/v1/profiles/{who:path}/scores", "/v1/profiles/{who:path}"
    assert found[::-1] == [
        ("key:score", f"POST {scores}", [person, other], 2, ["score"], 200),
        ("key:score", f"GET {of}", [person], 1, ["score"], 200),
        ("key:support", f"GET {page}", [person], 1, ["read", "personal"], 200),
        ("key:read", f"GET {page}", [person], 1, ["read"], 200),
        ("key:everything", f"GET {page}", [person], 1, ["read", "score", "personal"], 200),
        ("key:score", f"GET {of}", [], 0, ["score"], 404),
        ("key:score", f"POST {scores}", [], 0, ["score"], 422),
        ("key:score", f"GET {page}", [], 0, [], 403),
    ]
    found = search([service.project.home / "audit", service.project.home / "lake" / "audit"], [PERSON, CARD, NAME])
    assert (found.hits, found.files > 1) == ([], True)


def test_a_request_of_many_names_all(service: Behind) -> None:
    with session(service.project) as con:
        everyone = [p for (p,) in con.execute("SELECT profile_id FROM profiles ORDER BY 1").fetchall()]
    answer = service.client.post("/v1/scores", json={"profiles": everyone}, headers=service.headers("score"))
    assert answer.status_code == 200
    (row,) = service.rows()
    assert row["profiles"] == everyone
    assert row["count"] == len(everyone) > 190
    assert service.rows(profiles=[everyone[50]]) == service.rows(who="score") == service.rows(who="key:score") == [row]
    assert service.rows(profiles=["p0"]) == service.rows(who="scor") == []


def test_what_cannot_be_written_down_is_not_answered(service: Behind) -> None:
    folder = audit.folder_of(service.project.home)
    folder.parent.mkdir(exist_ok=True)
    folder.write_text("in the way")
    path, headers = f"/v1/profiles/{PERSON}", service.headers("support")
    assert service.client.get(path, headers=headers).status_code == 200, "the first, before it is noticed"
    until(lambda: service.trail._problem is not None)
    said = refused(service.client.get(path, headers=headers), 503)
    assert said["subject"] == "audit"
    assert "it cannot be written down who reads" in said["problem"]
    assert service.client.get("/v1/tasks", headers=service.headers("read")).status_code == 200
    folder.unlink()
    until(lambda: service.trail._problem is None)
    assert service.client.get(path, headers=headers).status_code == 200
    assert len(service.rows()) == 2, "what waited was written, too"


def until(found: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_no_request_waits_for_the_disk(service: Behind, monkeypatch: pytest.MonkeyPatch) -> None:
    append = Trail._append
    monkeypatch.setattr(Trail, "_append", lambda *args: (time.sleep(1), append(*args)))
    began = time.monotonic()
    for _ in range(20):
        service.client.get(f"/v1/profiles/{PERSON}/scores?task=churn", headers=service.headers("score"))
    assert time.monotonic() - began < 10
    assert len(service.rows()) == 20


WRITER = """
import sys, time
from pathlib import Path
from serving.access.trail import Read, Trail, now
trail = Trail(Path(sys.argv[1]))
for n in range(10**9):
    trail.add(Read(now(), "key:k", "GET /x", ["score"], 200, b'{"profile_id":"p%d"}' % n))
    print(n, flush=True)
    time.sleep(0.002)
"""


def test_a_killed_service_loses_the_last_moment_at_most(project: Project) -> None:
    """Rows are taken in while it writes, too: none is lost, none is there twice."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(project.home)], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout
    added, taken, last, end = 0, 0, 0.0, time.monotonic() + 5
    stamps: list[float] = []
    for line in process.stdout:
        added = int(line) + 1
        stamps.append(time.monotonic())
        if time.monotonic() - last > 0.5 and added > 50:
            taken, last = taken + take_in(project), time.monotonic()
        if time.monotonic() > end and added > 500:
            break
    os.kill(process.pid, signal.SIGKILL)
    killed = time.monotonic()
    process.wait()
    taken += take_in(project)
    found = [row["profiles"][0] for row in audit.rows(project)][::-1]
    assert found == [f"p{n}" for n in range(len(found))], "none twice, none left out in between"
    assert taken == len(found)
    sure = sum(stamp < killed - 1 for stamp in stamps)
    assert len(found) >= sure > 100, "all but the last second's"
    assert take_in(project) == 0
    assert not list(audit.folder_of(project.home).glob("*.open"))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "foretell.toml").write_text("[foretell]\n")
    return Project(tmp_path)


@pytest.mark.parametrize("when", ["before the commit", "after the commit", "between the files"])
def test_taking_in_that_was_killed_is_repaired(project: Project, when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "AT_ONCE", 2)
    for n in range(3):
        audit.note(project, "foretell profile", [f"p{n}"])
    unlink, append = Path.unlink, type(table(project, "audit")).append
    left = {"before the commit": 0, "after the commit": 0, "between the files": 1}[when]

    def killed(self: Path, missing_ok: bool = False) -> None:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        unlink(self, missing_ok)

    if when == "before the commit":
        monkeypatch.setattr(
            type(table(project, "audit")), "append", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt)
        )
    else:
        monkeypatch.setattr(Path, "unlink", killed)
    with pytest.raises(KeyboardInterrupt):
        take_in(project)
    monkeypatch.undo()
    monkeypatch.setattr(audit, "AT_ONCE", 2)
    assert append is type(table(project, "audit")).append
    audit.note(project, "foretell profile", ["p3"])
    take_in(project)
    assert sorted(row["profiles"][0] for row in audit.rows(project)) == ["p0", "p1", "p2", "p3"]
    assert list(audit.folder_of(project.home).glob("*.jsonl")) == []


def test_what_a_killed_command_left_goes(project: Project) -> None:
    audit.note(project, "foretell profile", ["p1"])
    folder = audit.folder_of(project.home)
    for name, age in ((".a.1", 100), (".b.2", 0)):
        (folder / name).write_text("half a li")
        os.utime(folder / name, (time.time() - age,) * 2)
    take_in(project)
    assert [file.name for file in folder.glob(".*")] == [".b.2"]
    (folder / "x.jsonl").write_text("no JSON\n")
    with pytest.raises(DataError, match="the audit was changed: JSON parse error"):
        take_in(project)


def test_many_small_files_become_one(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "MANY", 3)
    for n in range(9):
        audit.note(project, "foretell profile", [f"p{n}"])
        take_in(project)
        assert len(table(project, "audit").files()) <= 3
    assert [row["profiles"] for row in audit.rows(project)] == [[f"p{n}"] for n in range(8, -1, -1)]
    assert [row["profiles"] for row in audit.rows(project, most=2)] == [["p8"], ["p7"]]


def test_the_log_of_changes_names_nobody(project: Project) -> None:
    audit.note(project, "foretell profile", ["p0123456789abcdef0123"])
    take_in(project)
    for file in (project.home / "lake" / "audit" / "_delta_log").iterdir():
        assert "p0123456789abcdef0123" not in file.read_text()


def test_what_commands_show_is_written_down(trained: TrainedShop, tmp_path: Path) -> None:
    project = fresh(trained, tmp_path / "shop")

    def foretell(*words: str) -> str:
        done = CliRunner().invoke(program.cli, ["--project", str(project.folder), *words])
        assert done.exit_code == 0, done.output
        return done.stdout

    person = id_of(project, PERSON)
    foretell("profile", PERSON)
    foretell("profile", PERSON, "--history")
    foretell("score", "churn", "--profile", PERSON)
    foretell("segment", "show", "osloers", "--limit", "3")
    foretell("segment", "export", "osloers", "--to", str(tmp_path / "o.csv"))
    foretell("consent", "show", PERSON)
    foretell("export", PERSON, "--to", str(tmp_path / "p.json"))
    foretell("status")
    shown = [json.loads(line) for line in foretell("access", "log", "--json").splitlines()][::-1]
    exported = [line.partition(",")[0] for line in (tmp_path / "o.csv").read_text().splitlines()[1:]]
    assert [(row["route"], row["profiles"]) for row in shown] == [
        ("foretell profile", [person]), ("foretell profile", [person]), ("foretell score --profile", [person]),
        ("foretell segment show", exported[:3]), ("foretell segment export", exported),
        ("foretell consent show", [person]), ("foretell export", [person]),
    ]  # fmt: skip
    assert {(row["who"].partition(":")[0], row["status"]) for row in shown} == {("os", None)}
    # the person is told of it, all that was before
    said = json.loads((tmp_path / "p.json").read_text())["reads"]
    assert [row["route"] for row in said][::-1] == [row["route"] for row in shown[:-1] if person in row["profiles"]]
    assert foretell("access", "log", "--profile", PERSON).count("\n") == 1 + len(said) + 1
    assert foretell("access", "log", "--profile", CARD, "--who", "nobody") == "Nobody has read anything of it.\n"
    assert len(exported) > 20
    assert re.search(rf"foretell segment export +p\w+ and {len(exported) - 1} more", foretell("access", "log"))
    CliRunner().invoke(program.cli, ["--project", str(project.folder), "run", "--only", "load"])
    assert list(audit.folder_of(project.home).glob("*.jsonl")) == []


def test_a_former_id_finds_what_was_read_under_it(service: Behind) -> None:
    page = service.client.get(f"/v1/profiles/{PERSON}", headers=service.headers("read")).json()
    former = page["former_ids"][0]
    audit.note(service.project, "foretell profile", [former])  # as it was before the merge
    service.rows()
    done = CliRunner().invoke(
        program.cli, ["--project", str(service.project.folder), "access", "log", "--profile", PERSON]
    )
    assert "foretell profile" in done.stdout
    assert "key:read" in done.stdout


def test_who_is_erased_stays_as_a_digest(service: Behind, tmp_path: Path) -> None:
    """In table, waiting lines, and lines that come later: the id is nowhere, and whoever knows it can still ask."""
    project, headers = service.project, service.headers("everything")
    person, other = id_of(project, PERSON), id_of(project, "person3@example.org")
    both = {"profiles": [PERSON, "person3@example.org"]}
    service.client.post("/v1/scores", json=both, headers=headers)
    assert len(service.rows(profiles=[person])) == 1  # in the table
    service.client.post("/v1/scores", json=both, headers=headers)  # waits in a file that is open
    until(lambda: service.trail._segment is not None and service.trail._segment.size > 0)
    audit.note(project, "foretell profile", [person])  # waits
    (row,) = collect(project, PERSON)["reads"][2:]
    assert row["who"] == "key:everything"
    publish(project)
    found = plan(project, PERSON)
    assert found.counts["audit, where a digest takes the id's place"] == 3
    receipt = erase(project, found)
    ids = set(found.known.profile_ids)
    assert receipt["erased"]["audit, ids made digests"] == 3
    assert receipt["verified"]["found"] == []
    service.trail.add(Read(now(), "key:late", "GET /x", ["score"], 200, b'{"profile_id":"%s"}' % person.encode()))
    rows = service.rows(profiles=[person])
    assert [row["who"].partition(":")[0] for row in rows] == ["key", "os", "key", "key"]
    digest = audit.digest_of(project.key, person)
    assert all(digest in row["profiles"] and person not in row["profiles"] for row in rows)
    assert [other in row["profiles"] for row in rows] == [False, False, True, True], "others stay as they are"
    places = {file.relative_to(project.home).parts[:2] for file, *_ in search([project.home], ids).hits}
    assert places == {("lake", "erasures")}, "as of every erasure, and nowhere else"
    done = CliRunner().invoke(
        program.cli,
        ["--project", str(project.folder), "access", "log", "--profile", receipts(project)[0]["profile_id"]],
    )
    assert done.stdout.count("key:everything") == 2
    assert PERSON not in done.stdout

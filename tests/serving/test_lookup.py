"""Looking people up in the service: a number finds its profile however it is typed, where sources declare a country."""

from __future__ import annotations

import json
import sqlite3

import pytest

from foretell.errors import UnknownName
from foretell.project import Project
from serving.http.index import Index, file_of
from serving.publish import _TABLES


@pytest.fixture
def index(tmp_path):
    (tmp_path / "foretell.toml").write_text("[foretell]\n")
    project = Project(tmp_path)
    file_of(project).parent.mkdir(parents=True)
    con = sqlite3.connect(file_of(project))
    con.executescript(_TABLES)
    who = [("phone:+12125550103", "p1"), ("phone:+442079460018", "p2"), ("phone:2125550104", "p3"),
           ("email:ann@xn--mller-kva.de", "p4")]  # fmt: skip
    con.executemany("INSERT INTO who VALUES (?, ?)", who)
    about = {"published_at": "2024-01-01T00:00:00+00:00", "kinds": json.dumps(["email", "phone"]),
             "countries": json.dumps(["GB", "US"])}  # fmt: skip
    con.executemany("INSERT INTO about VALUES (?, ?)", about.items())
    con.commit()
    con.close()
    made = Index(project)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("typed", "profile"),
    [
        ("+1 212 555 0103", "p1"), ("(212) 555-0103", "p1"), ("phone:212.555.0103", "p1"), ("+12125550103", "p1"),
        ("020 7946 0018", "p2"), ("phone:+44 (0)20 7946 0018", "p2"), ("212 555 0104", "p3"), ("ann@Müller.de", "p4"),
        ("email:ann@xn--mller-kva.de", "p4"),
    ],
)  # fmt: skip
def test_a_number_however_it_is_typed(index, typed, profile):
    assert index.resolve([typed]) == [profile]


def test_who_is_not_there(index):
    assert all(isinstance(found, UnknownName) for found in index.resolve(["+1 212 555 0199", "x@y.org", "phone:12"]))

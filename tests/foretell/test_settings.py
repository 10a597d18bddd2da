"""Settings: environment before file before default, each with its origin; what cannot be read is refused."""

from __future__ import annotations

import stat
from datetime import UTC, datetime

import pytest

from foretell.errors import Busy, DefinitionError, UnknownName
from foretell.project import Project
from foretell.settings import SPECS, Value, load


def write(folder, text):
    (folder / "foretell.toml").write_text(text)
    return folder


def test_defaults_without_a_file(tmp_path):
    values = load(tmp_path, {})
    assert set(values) == set(SPECS)
    assert {v.origin for v in values.values()} == {"default"}
    assert values["home"].value == ".foretell"


def test_environment_before_file_before_default(tmp_path):
    write(tmp_path, "[foretell]\ncutoffs = 6\nthreads = 3\n")
    values = load(tmp_path, {"FORETELL_CUTOFFS": "8", "FORETELL_HOME": "/elsewhere", "CUTOFFS": "9"})
    assert values["cutoffs"] == Value(8, "environment FORETELL_CUTOFFS")
    assert values["home"] == Value("/elsewhere", "environment FORETELL_HOME")
    assert values["threads"] == Value(3, "foretell.toml")
    assert values["memory"] == Value("3GB", "default")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"2024-01-01T02:00:00+02:00"', datetime(2024, 1, 1, tzinfo=UTC)),
        ("2024-01-01T02:00:00+02:00", datetime(2024, 1, 1, tzinfo=UTC)),
        ('"2024-01-01T02:00:00"', datetime(2024, 1, 1, 2, tzinfo=UTC)),
        ('"2024-01-01"', datetime(2024, 1, 1, tzinfo=UTC)),
        ('"now"', None),
        ('""', None),
    ],
)
def test_an_instant(tmp_path, text, expected):
    assert load(write(tmp_path, f"[foretell]\nas_of = {text}\n"), {})["as_of"].value == expected


def test_an_empty_variable_sets_as_of_back_to_the_clock(tmp_path):
    write(tmp_path, '[foretell]\nas_of = "2024-01-01"\n')
    assert load(tmp_path, {"FORETELL_AS_OF": ""})["as_of"] == Value(None, "environment FORETELL_AS_OF")


REFUSED = {
    "toml": (
        "[foretell]\ncutoffs = = 4\n",
        DefinitionError,
        r"^foretell\.toml: not valid TOML: .*line 2.*; mend that line\. \(.*\)$",
    ),
    "unknown": (
        "[foretell]\ncutofs = 4\n",
        UnknownName,
        r'^cutofs: no such setting; did you mean "cutoffs"\?\. \(foretell\.toml\)$',
    ),
    "outside its table": (
        "cutoffs = 4\n",
        DefinitionError,
        r"^foretell\.toml: expected settings under \[foretell\], got \['cutoffs'\]; begin the file with \[foretell\]$",
    ),
    "no number": (
        '[foretell]\ncutoffs = "four"\n',
        DefinitionError,
        r"^cutoffs: cannot read 'four' \(expected a whole number, at least 1\); how many past .*\. \(foretell\.toml\)$",
    ),
    "too small": (
        "[foretell]\nthreads = 0\n",
        DefinitionError,
        r"^threads: cannot read 0 \(expected a whole number, at least 1\); threads of .*\. \(foretell\.toml\)$",
    ),
    "no time": (
        '[foretell]\nas_of = "yesterday"\n',
        DefinitionError,
        r"^as_of: cannot read 'yesterday' \(.*\); the project's now, .*\. \(foretell\.toml\)$",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_its_origin(tmp_path, case):
    text, kind, message = REFUSED[case]
    with pytest.raises(kind, match=message):
        load(write(tmp_path, text), {})


def test_no_trials_are_a_number_too(tmp_path):
    assert load(tmp_path, {"FORETELL_TRIALS": "0"})["trials"] == Value(0, "environment FORETELL_TRIALS")
    with pytest.raises(DefinitionError) as error:
        load(write(tmp_path, "[foretell]\ntrials = -1\n"), {})
    assert str(error.value) == (
        "trials: cannot read -1 (expected a whole number, at least 0); how many sets of parameters the learned model "
        "may try for each task; 0: none. (foretell.toml)"
    )


def test_refused_from_the_environment(tmp_path):
    with pytest.raises(DefinitionError) as error:
        load(tmp_path, {"FORETELL_THREADS": "-1"})
    assert str(error.value) == (
        "threads: cannot read '-1' (expected a whole number, at least 1); threads of the engine and of model training. "
        "(environment FORETELL_THREADS)"
    )


def test_a_project_has_its_home_and_its_key(tmp_path):
    project = Project(write(tmp_path, '[foretell]\nhome = "state"\nas_of = "2024-01-01"\n'))
    assert project.home == tmp_path / "state"
    assert project.now == datetime(2024, 1, 1, tzinfo=UTC)
    assert project.key == Project(tmp_path).key
    assert len(project.key) == 64
    assert stat.S_IMODE((project.home / "key").stat().st_mode) == 0o600
    assert [f.name for f in project.home.iterdir()] == ["key"]


def test_one_writer_at_a_time(tmp_path):
    project = Project(write(tmp_path, ""))
    message = r"`foretell load` \(process \d+\) is writing here; wait for it, or stop it"
    with project.writing("load"), pytest.raises(Busy, match=message), Project(tmp_path).writing("train"):
        pass
    with project.writing("train"):
        pass

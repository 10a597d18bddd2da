"""Every verb explains itself, starts quickly, and says what is wrong without a traceback."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import click
import pytest
from click.testing import CliRunner
from fixtures_trained import TrainedShop, mine, trained, write_shop

from foretell import __main__ as program
from foretell.project import Project

__all__ = ["mine", "trained"]

ROOT = Path(__file__).parents[1]


def verbs(group: click.Group = program.cli, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from verbs(command, (*path, name))


def foretell(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "foretell", *words], capture_output=True, text=True, cwd=cwd, env=environ, timeout=120
    )


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run `main` in this process: status, standard output, standard error."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["foretell", *map(str, words)])
        status = 0
        try:
            program.main()
        except SystemExit as stop:
            status = int(stop.code or 0)
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def test_verbs() -> None:
    assert {
        "init", "source new", "load", "unify", "features list", "features build", "train", "lookalike",
        "score", "profile", "serve", "status", "quarantine list", "quarantine show", "quarantine replay",
        "segment list", "segment show", "segment export",
    } <= {" ".join(words) for words in verbs()}  # fmt: skip


@pytest.mark.parametrize("words", list(verbs()), ids=" ".join)
def test_every_verb_has_help(words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(program.cli, [*words, "--help"], prog_name="foretell")
    assert result.exit_code == 0
    before_options = result.output.split("Options:")[0]
    lines = [line for line in before_options.splitlines() if line.strip() and not line.startswith("Usage:")]
    assert lines
    assert len(result.output.splitlines()) > 3
    assert lines[0].strip().endswith((".", ":", ",")) or len(lines) > 1


def test_help_is_fast() -> None:
    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = foretell("--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == 0
        assert all(verb in done.stdout for verb in ("load", "train", "score", "segment", "profile"))
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    seconds()  # compiles
    assert median(seconds() for _ in range(3)) < 0.5


def test_init_writes_a_project_and_refuses_to_overwrite(tmp_path: Path, answer: Callable) -> None:
    folder = tmp_path / "fresh"
    status, out, _ = answer("init", folder)
    assert status == 0
    assert "Next:" in out
    status, out, err = answer("--project", folder, "status")
    assert (status, err) == (0, "")
    assert "Next: foretell load" in out
    assert "churn" in out
    assert "clv" in out
    (folder / "foretell.toml").write_text('[foretell]\nexports = "mine"\n')
    status, out, err = answer("init", folder)
    assert status == 2
    assert "is a project already; choose another folder, or edit this one" in err
    assert (folder / "foretell.toml").read_text() == '[foretell]\nexports = "mine"\n'


def test_the_contract_that_init_writes_loads_a_csv_of_its_columns(tmp_path: Path, answer: Callable) -> None:
    folder = tmp_path / "shop"
    answer("init", str(folder))
    (folder / "exports" / "orders" / "may.csv").write_text(
        "order_id,ordered_at,email,quantity,price,sku\n"
        "o1,2024-05-01 10:00,jo@shop.example.org,3,1.10,tea\n"
        "o2,2024-05-02 10:00,,1,2.00,tea\n"  # nobody is known to have bought this
        "o3,2024-05-03 10:00,jo@shop.example.org,1,NOK 7,tea\n"  # no amount: a loss if it went unseen
        ",2024-05-04 10:00,jo@shop.example.org,1,2.00,tea\n"
    )
    code, said, _ = answer("--project", str(folder), "load")
    assert code == 0
    assert "2 facts, 2 in quarantine, 1 of them without an identifier" in said
    assert "amount (quantity * price): expected DECIMAL(18,4), got nothing" in said
    assert "order_id: expected VARCHAR, got nothing" in said
    import lake

    assert [float(a) for a in lake.sql("SELECT amount FROM shop ORDER BY order_id", str(folder))["amount"]] == [
        3.3,
        2.0,
    ]


def test_init_leaves_files_that_are_there(tmp_path: Path, answer: Callable) -> None:
    (tmp_path / ".gitignore").write_text("mine\n")
    assert answer("init", tmp_path)[0] == 0
    assert (tmp_path / ".gitignore").read_text() == "mine\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["load", "tll"], 'tll: no such source; did you mean "till"?'),
        (["train", "chrun"], 'chrun: no such task; did you mean "churn"?'),
        (["score", "chrun"], 'chrun: no such task; did you mean "churn"?'),
        (["score", "churn", "--profile", "nobody@x.org"], "nobody@x.org: no such profile or identifier"),
        (["segment", "show", "leavng"], 'leavng: no such segment; did you mean "leaving"?'),
        (["segment", "show", "churn >"], 'rule "churn >"'),
        (["segment", "export", "leaving", "--to", "out.xlsx"], "audiences are exported as CSV"),
        (["segment", "export", "leaving"], "Missing option '--to'"),
        (["profile", "nobody@x.org"], "nobody@x.org: no such profile or identifier"),
        (["profil"], "No such command 'profil'"),
        (["lookalike", "leavng"], 'leavng: no such segment; did you mean "leaving"?'),
        (["lookalike", "leavng", "--as-task"], 'leavng: no such segment; did you mean "leaving"?'),
        (["lookalike", "orders_90 > 3"], 'orders_90: no such attribute; did you mean "orders_90d"?'),
        (["lookalike", "orders_90d <"], 'rule "orders_90d <"'),
        (["lookalike", "nowhere/vip.csv"], "nowhere/vip.csv: no such file; check the path"),
        (["lookalike", "orders_90d < 0"], "expected at least 10 seeds and 10 others, to hold some out, got 0 and "),
        (["lookalike", "orders_90d >= 0"], " and 0; tighten the rule"),
        (["lookalike", "osloers", "--among", "city = 'Oslo'"], "; tighten the rule, or loosen --among"),
        (["lookalike", "osloers", "--to", "out.xlsx"], "audiences are exported as CSV; name it out.csv"),
        (["lookalike", "osloers", "--top", "0"], "0 is not in the range x>=1"),
        (["lookalike", "osloers", "--as-task"], "osloers: expected a rule that reads features only"),
        (["lookalike", "vip.csv", "--as-task"], "vip.csv: expected a rule that reads features only"),
        (["lookalike", "orders_90d > 3", "--as-task", "--to", "x.csv"], "leave --among and --to out"),
        (["score", "--at", "yesterday"], "'yesterday' does not match the format"),
    ],
)
def test_mistakes_end_with_2(trained: TrainedShop, answer: Callable, words: list[str], says: str) -> None:
    status, _, err = answer("--project", trained.project.folder, *words)
    assert status == 2
    assert says in err
    assert "Traceback" not in err


def test_steps_before_their_time(tmp_path: Path, answer: Callable) -> None:
    folder = write_shop(tmp_path / "shop", people=3)
    for words, says in (
        (["unify"], "run `foretell load` first"),
        (["train", "churn"], "run `foretell load` first"),
        (["score"], "run `foretell train` first"),
        (["score", "churn"], "run `foretell train churn` first"),
        (["segment", "list"], "`foretell unify` first"),
        (["profile", "x"], "run `foretell unify` first"),
    ):
        status, out, err = answer("--project", folder, *words)
        assert (status, out) == (2, ""), words
        assert says in err
    assert answer("--project", folder, "quarantine")[:2] == (0, "Nothing is in quarantine.\n")
    status, _, err = answer("--project", tmp_path, "status")
    assert status == 2
    assert "no foretell.toml here or above; run `foretell init FOLDER`" in err


def test_errors_of_a_process(tmp_path: Path) -> None:
    done = foretell("status", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: ")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_one_bad_file_stops_no_other(tmp_path: Path, answer: Callable) -> None:
    folder = write_shop(tmp_path / "shop", people=5)
    (folder / "exports" / "till" / "0000.csv").write_text("")
    status, out, err = answer("--project", folder, "load")
    assert status == 2
    assert "0000.csv: expected a header and rows, got an empty file" in err
    assert out.count(" facts") >= 3
    (folder / "exports" / "till" / "0000.csv").unlink()
    status, out, _ = answer("--project", folder, "load")
    assert status == 0
    assert "facts" not in out
    assert "loaded before" in out


@pytest.mark.parametrize("words", [["load"], ["unify"], ["train", "churn"], ["score", "churn"], ["features", "build"]])
def test_a_second_writer_is_told_to_wait(mine: Callable[[], Project], answer: Callable, words: list[str]) -> None:
    project = mine()
    with project.writing("train churn"):
        status, _, err = answer("--project", project.folder, *words)
    assert status == 2
    assert f"`foretell train churn` (process {os.getpid()}) is writing here; wait for it, or stop it" in err


def test_walk_through_a_trained_project(mine: Callable[[], Project], answer: Callable, tmp_path: Path) -> None:
    project = mine()
    here = ("--project", project.folder)
    status, out, _ = answer(*here, "segment", "list")
    assert status == 0
    assert "leaving" in out
    status, out, _ = answer(*here, "segment", "show", "leaving", "--limit", "3", "--with", "email", "--with", "churn")
    assert (status, len(out.splitlines())) == (0, 5)
    file = tmp_path / "audience.csv"
    status, out, _ = answer(*here, "segment", "export", "leaving", "--with", "email", "--to", file)
    assert status == 0
    assert file.read_text().splitlines()[0] == "profile_id,email"
    who = next(line.split(",")[0] for line in file.read_text().splitlines()[1:])
    status, out, _ = answer(*here, "profile", who)
    assert status == 0
    assert who in out
    assert "Segments: leaving" in out
    status, out, _ = answer(*here, "score", "churn", "--profile", who)
    assert status == 0
    assert f'"profile_id": "{who}"' in out
    status, out, _ = answer(*here, "score")
    assert status == 0
    assert "new scores" in out

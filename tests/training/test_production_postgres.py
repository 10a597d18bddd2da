"""Feast's registry and MLflow in PostgreSQL give what they give in the home, and two may register at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import fixtures_trained
import pytest
from click.testing import CliRunner

from features.store import registered
from features.store.online import open_store
from features.store.repository import versions
from foretell import databases
from foretell.__main__ import cli
from foretell.errors import DefinitionError, NotReady
from foretell.project import Project
from lake.engine import session
from models import registry
from serving.places import places
from serving.score import score
from training.champion import train

sys.path.append(str(Path(__file__).parents[1] / "ingestion"))  # where the server of the connectors' tests is
from postgres import Server, postgres  # pyright: ignore[reportMissingImports]

__all__ = ["postgres"]

ROOT = str(Path(__file__).parents[2])
TASK = "churn"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test leaves in the environment goes with it."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    for name in (registry.SERVER, registered.VARIABLE, *registry.PATIENCE):
        monkeypatch.setenv(name, "1")
        monkeypatch.delenv(name)


def database(server: Server, name: str) -> str:
    """A new database of the server, as users write its address."""
    server.execute(f"CREATE DATABASE {name}")
    return server.url.replace("/postgres?", f"/{name}?")


def shop(folder: Path, **settings: str) -> Project:
    fixtures_trained.write_shop(folder, people=90)
    with (folder / "foretell.toml").open("a") as toml:
        toml.writelines(f'{name} = "{value}"\n' for name, value in settings.items())
    project = Project(folder)
    project.home.mkdir(parents=True)
    (project.home / "key").write_text(fixtures_trained.KEY)
    return project


def through(project: Project) -> list[tuple]:
    """Load, train, score: the scores."""
    fixtures_trained.load_all(project)
    train(project, TASK, trials=0)
    score(project, [TASK])
    with session(project) as con:
        return con.execute("SELECT profile_id, value, percentile, model_version FROM scores ORDER BY 1").fetchall()


@pytest.mark.slow
def test_the_loop_gives_the_same_scores(postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both addresses as a company would give them: one in the settings, one in a variable, as it holds a password."""
    feast, mlflow = database(postgres, "feast"), database(postgres, "mlflow")
    secret = mlflow.replace("@", ":hush-hush@", 1)
    monkeypatch.setenv("TRACKING", secret)
    remote = shop(tmp_path / "remote", registry=feast, mlflow="env:TRACKING")
    assert through(remote) == through(shop(tmp_path / "local")) != []
    assert sorted(file.name for file in (remote.home / "mlflow").iterdir()) == ["artifacts"]
    assert not (remote.home / "feast" / "registry.db").exists()
    assert versions(remote)
    for folder in (remote.home, tmp_path / "remote"):
        assert all(b"hush-hush" not in file.read_bytes() for file in folder.rglob("*") if file.is_file())
    assert registry.SERVER not in os.environ  # it would follow us to other projects
    counted = {u: postgres_rows(u, t) for u, t in ((mlflow, "model_versions"), (feast, "feature_views"))}
    assert counted[mlflow] == 1
    assert counted[feast] > 1
    look = registry.look_closer(remote)
    assert "hush-hush" not in look
    assert look.startswith("mlflow ui --backend-store-uri postgresql://")

    done = CliRunner().invoke(cli, ["--project", str(remote.folder), "status"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "hush-hush" not in done.output
    assert done.output.count("  reached") == 4
    other = shop(tmp_path / "other", registry=feast, mlflow="env:TRACKING")
    (other.home / "key").write_text("1" * 64)
    with pytest.raises(registry.Taken, match="another project"):
        registry.quietly(lambda: registry.champion(other, TASK))
    with pytest.raises(registry.Taken, match="give each project a database of its own"):
        registry.experiment(other, TASK)


def postgres_rows(url: str, table: str) -> int:
    with databases.connect(url) as connection:
        return connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


REGISTER = """
import sys
from features.store.repository import apply
from foretell.project import Project
project = Project.find(sys.argv[1])
known = project.definitions
print("ready", flush=True)
sys.stdin.readline()
for _ in range(3):
    apply(project, [known.task(name) for name in sys.argv[2].split(",")])
"""


@pytest.mark.slow
def test_two_processes_register_at_once(postgres: Server, tmp_path: Path) -> None:
    """In a database that is empty yet: its tables are made once, and both have what they registered."""
    url = database(postgres, "crowd")
    folders = [shop(tmp_path / name, registry=url).folder for name in ("a", "b")]
    for folder in folders:
        fixtures_trained.load_all(Project(folder))
    both = [
        subprocess.Popen(
            [sys.executable, "-c", REGISTER, str(folder), tasks], text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": ROOT},
        )
        for folder, tasks in zip(folders, ("churn,clv", "churn,propensity"), strict=True)
    ]  # fmt: skip
    for one in both:
        assert one.stdout
        assert one.stdout.readline() == "ready\n"
    for one in both:
        assert one.stdin
        one.stdin.write("\n")
        one.stdin.flush()
    for one in both:
        _, err = one.communicate(timeout=300)
        assert one.returncode == 0, err
    names = {service.name.split("__")[0] for service in open_store(Project(folders[0])).list_feature_services()}
    assert names == {"churn", "clv", "propensity"}


# --- what can go wrong -----------------------------------------------------------------------------------------------


@pytest.fixture
def bare(tmp_path: Path) -> Any:
    def make(**settings: str) -> Project:
        (tmp_path / "foretell.toml").write_text(
            "[foretell]\n" + "".join(f'{name} = "{value}"\n' for name, value in settings.items())
        )
        return Project(tmp_path)

    return make


def test_a_database_that_is_down(bare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOWN", "postgresql://me:hush-hush@127.0.0.1:9/feast")
    project = bare(registry="env:DOWN", mlflow="env:DOWN")
    feast, mlflow = (one.error for one in places(project)[1:3])
    assert isinstance(feast, NotReady)
    assert isinstance(mlflow, registry.Unanswered)
    assert str(feast).startswith("Feast's registry postgresql://127.0.0.1:9/feast: expected an answer, got: connection")
    assert str(mlflow).startswith("MLflow's database postgresql://127.0.0.1:9/feast: expected an answer, got: ")
    assert "leave out the setting mlflow to use the home's own registry" in str(mlflow)
    assert "mend the setting `registry`" in str(feast)
    with pytest.raises(NotReady, match="expected an answer"):
        open_store(project)
    done = CliRunner().invoke(cli, ["--project", str(project.folder), "status"])
    assert isinstance(done.exception, registry.Unanswered)
    assert done.output.count("cannot be reached") == 2
    assert "Feast's registry postgresql://127.0.0.1:9/feast: expected an answer" in done.output
    for said in (str(feast), str(mlflow), done.output):
        assert "hush-hush" not in said


@pytest.mark.slow
def test_a_database_that_goes_away(postgres: Server, bare: Any) -> None:
    """Not the same as a registry in which nothing is."""
    project = bare(mlflow=database(postgres, "away"))
    assert registry.quietly(lambda: registry.trained_at(project, TASK)) is None
    postgres.stop()
    try:
        with pytest.raises(registry.Unanswered, match="MLflow's database"):
            registry.quietly(lambda: registry.trained_at(project, TASK))
    finally:
        postgres.start()
    assert registry.quietly(lambda: registry.trained_at(project, TASK)) is None


@pytest.mark.parametrize(
    ("setting", "text", "said"),
    [
        (
            "registry",
            "mysql://db/feast",
            "registry: expected the address of a PostgreSQL database, got 'mysql://db/feast'",
        ),
        ("registry", "https://mlflow.example", "registry: expected the address of a PostgreSQL database, got"),
        ("registry", "postgresql://me:hush@db/feast", "registry: the address holds a password; put it into an environ"),
        ("registry", "postgresql://db/feast?password=hush", "registry: the address holds a password"),
        ("mlflow", "sqlite:///x.db", "mlflow: expected the address of a PostgreSQL database or a server, got"),
        ("mlflow", "https://me:hush@mlflow.example", "mlflow: the address holds a password"),
        (
            "mlflow",
            "env:NOWHERE",
            "mlflow: the environment variable NOWHERE is not set; export NOWHERE=… and run again",
        ),
    ],
)
def test_addresses_that_are_refused(bare: Any, setting: str, text: str, said: str) -> None:
    with pytest.raises((DefinitionError, NotReady)) as error:
        databases.address(bare(**{setting: text}), setting, servers=setting == "mlflow")
    assert said in str(error.value)
    assert "hush" not in str(error.value)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_addresses_are_as_sqlalchemy_takes_them(bare: Any, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert databases.address(bare(registry=f"{scheme}://me@db/x"), "registry") == "postgresql+psycopg://me@db/x"
    monkeypatch.setenv("FORETELL_REGISTRY", f"{scheme}://me:hush@db/x")  # a variable may hold one
    given = databases.address(bare(), "registry")
    assert given == "postgresql+psycopg://me:hush@db/x"
    assert databases.shown(given) == "postgresql://db/x"
    assert not databases.holds_no_secret(given)


def test_without_psycopg(bare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(databases, "find_spec", lambda _: None)
    with pytest.raises(NotReady, match=r"pip install foretell\[postgres\]"):
        databases.address(bare(registry="postgresql://me@db/x"), "registry")


def test_a_server_is_named_by_a_setting_or_by_mlflows_own_variable(bare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    project = bare(mlflow="https://mlflow.example")
    assert registry.server(project) == "https://mlflow.example"
    assert registry.look_closer(project) == "https://mlflow.example"
    monkeypatch.setenv(registry.SERVER, "https://other.example")
    assert registry.server(project) == "https://other.example"
    assert registry.server(bare()) == "https://other.example"
    monkeypatch.delenv(registry.SERVER)
    assert registry.server(bare()) == ""

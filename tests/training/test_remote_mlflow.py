"""A tracking server takes the place of the home's registry, and may go away at any step: nothing is half kept."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from typing import Any

import fixtures_trained
import mlflow
import optuna
import pytest
from click.testing import CliRunner
from mlflow import MlflowClient

from foretell.__main__ import cli
from foretell.errors import NotReady
from foretell.project import Project
from lake.engine import session
from models import registry
from training import tracking
from training.champion import Contest, contest, contract_of, train

sys.path.append(str(Path(__file__).parents[1] / "ingestion"))  # where the server of the connectors' tests is
from postgres import Server, postgres  # pyright: ignore[reportMissingImports]

__all__ = ["postgres"]

TASK = "churn"


def free_port() -> int:
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return it.getsockname()[1]


def until(true: Callable[[], Any], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


@dataclass
class Tracking:
    """MLflow's own server with its tables in PostgreSQL, which serves artifacts too; killed and started at will."""

    folder: Path
    tables: str
    port: int = field(default_factory=free_port)
    process: subprocess.Popen | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.uri, self.uri)

    def start(self) -> None:
        command = [
            sys.executable, "-m", "mlflow", "server", "--backend-store-uri", self.tables, "--serve-artifacts",
            "--artifacts-destination", str(self.folder / "artifacts"), "--host", "127.0.0.1", "--port", str(self.port),
            "--allowed-hosts", "127.0.0.1:*", "--workers", "1",
        ]  # fmt: skip
        env = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")} | {"MLFLOW_DISABLE_TELEMETRY": "1"}
        log = self.folder / "log"
        with log.open("a") as out:
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=env, stdout=out, stderr=out, start_new_session=True
            )
        until(self.answers, 180, "mlflow server did not start: " + log.read_text()[-2000:])

    def answers(self) -> bool:
        assert self.process
        assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5) as it:
            it.sendall(b"GET /health HTTP/1.0\r\nHost: 127.0.0.1:%d\r\n\r\n" % self.port)
            return b"200" in it.recv(100)
        return False

    def kill(self) -> None:
        """As a machine that loses its power: the server and all its workers at once."""
        if self.process:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class Wire:
    """Leads from a port of its own to the server's, until it is cut; who connects then is refused, as by a dead server.

    Cutting a wire takes no time, a server as many seconds to come back as it takes to import MLflow.
    """

    def __init__(self, to: int):
        self._to, self.port = to, free_port()
        self._open: list[socket.socket] = []
        self.mend()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def mend(self) -> None:
        self._door = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._door,), daemon=True).start()

    def cut(self) -> None:
        for end in (self._door, *self._open):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._open.clear()

    def _accept(self, door: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near = door.accept()[0]
                far = socket.create_connection(("127.0.0.1", self._to))
                self._open += [near, far]
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    @staticmethod
    def _carry(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


@dataclass(frozen=True)
class Shop:
    """A small shop whose churn was trained once on the server: v1 is champion. `found` is that contest."""

    project: Project
    found: Contest

    def register(self) -> str:
        return tracking.register(self.project, self.found, contract_of(self.project, self.found))[0]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test leaves in the environment goes with it: the server's address, and our patience with it."""
    for name in (registry.SERVER, *registry.PATIENCE):
        monkeypatch.setenv(name, "1")  # so that it is put back as it was, whoever sets it meanwhile
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def server(postgres: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracking]:
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    it = Tracking(tmp_path_factory.mktemp("tracking"), postgres.url.replace("postgresql:", "postgresql+psycopg:"))
    try:
        it.start()
        yield it
    finally:
        it.kill()


@pytest.fixture(scope="module")
def shop(server: Tracking, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """Trained on the server, from its first load on."""
    project = small_shop(tmp_path_factory.mktemp("shop"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(registry.SERVER, server.uri)
        return Shop(project, train(project, TASK, trials=0).contest)


@pytest.fixture
def wire(server: Tracking, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    it = Wire(server.port)
    monkeypatch.setenv(registry.SERVER, it.uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    yield it
    it.cut()


def small_shop(folder: Path) -> Project:
    project = Project(fixtures_trained.write_shop(folder, people=120))
    project.home.mkdir(parents=True, exist_ok=True)
    (project.home / "key").write_text(fixtures_trained.KEY)
    fixtures_trained.load_all(project)
    return project


def champion_of(server: Tracking) -> int:
    return int(server.client.get_model_version_by_alias(TASK, registry.ALIAS).version)


def versions_of(server: Tracking) -> list[int]:
    return sorted(int(v.version) for v in server.client.search_model_versions(f"name='{TASK}'"))


def statuses(server: Tracking) -> list[str]:
    """Of all runs of the task, the latest first."""
    found = server.client.get_experiment_by_name(TASK)
    assert found
    return [run.info.status for run in server.client.search_runs([found.experiment_id])]


# --- everything on the server ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_all_that_is_kept_of_a_training_is_on_the_server(
    shop: Shop, server: Tracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(registry.SERVER, server.uri)
    assert registry.quietly(lambda: registry.trained_at(shop.project, TASK))[0] == str(champion_of(server))
    first = server.client.get_model_version(TASK, "1")
    assert first.tags == {registry.OWNER: registry.owner(shop.project)}
    assert first.run_id
    run = server.client.get_run(first.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["estimator"] == shop.found.winner
    for row in shop.found.backtest.evaluation.itertuples():
        assert run.data.metrics[f"{row.model}.{row.metric}"] == pytest.approx(row.value)
    assert str(run.info.artifact_uri).startswith("mlflow-artifacts:")
    kept = {a.path for a in server.client.list_artifacts(first.run_id)}
    assert {tracking.REPORT, registry.CONTRACT, registry.VIEWS, "evaluation.csv", "plots"} <= kept
    assert {a.path for a in server.client.list_artifacts(first.run_id, "plots")}
    files = {file.name for file in (server.folder / "artifacts").rglob("*")}
    assert {"MLmodel", registry.CONTRACT, tracking.REPORT} <= files
    assert not (shop.project.home / "mlflow").exists()

    done = CliRunner().invoke(cli, ["--project", str(shop.project.folder), "score", TASK])
    assert done.exit_code == 0, done.output
    with session(shop.project) as con:
        scored = con.execute("SELECT DISTINCT model_version FROM scores WHERE task = ?", [TASK]).fetchall()
    assert scored == [(str(champion_of(server)),)]
    assert not (shop.project.home / "mlflow").exists()


@pytest.mark.slow
def test_another_project_does_not_take_a_champions_place_nor_use_it(
    shop: Shop, server: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its task has the same name, and its home another key. A home with the same key shares the champion."""
    monkeypatch.setenv(registry.SERVER, server.uri)
    before = champion_of(server), versions_of(server), statuses(server)
    same = Project(shutil.copytree(shop.project.folder, tmp_path / "same"))
    assert registry.quietly(lambda: registry.champion(same, TASK)).version == str(champion_of(server))
    other = Project(shutil.copytree(shop.project.folder, tmp_path / "other"))
    (other.home / "key").write_text("1" * 64)
    for use in (registry.champion, registry.trained_at, lambda p, t: contest(p, t, trials=0)):
        with pytest.raises(registry.Taken, match=rf"churn: expected .* {server.uri}, got one of another project .*key"):
            registry.quietly(lambda use=use: use(other, TASK))
    assert (champion_of(server), versions_of(server), statuses(server)) == before


# --- a server that goes away -----------------------------------------------------------------------------------------

# step -> where it begins: what is called first of it
STEPS = {
    "the run": (mlflow, "start_run"),
    "metrics, after parameters": (mlflow, "log_metrics"),
    "the contract, after plots and reports": (mlflow, "log_dict"),
    "the model": (import_module("mlflow.sklearn"), "log_model"),  # mlflow.sklearn is a proxy until it is used
    "the files of the model": (MlflowClient, "log_model_artifacts"),
    "the version": (mlflow, "register_model"),
    "promotion": (registry, "promote"),
}


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_a_server_that_goes_away_leaves_the_champion_and_the_next_training_ends_well(
    shop: Shop, server: Tracking, wire: Wire, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    before, known = champion_of(server), versions_of(server)
    where, name = STEPS[step]
    begin = getattr(where, name)

    def cut(*args: Any, **named: Any) -> Any:
        wire.cut()
        return begin(*args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(where, name, cut)
        with pytest.raises(registry.Unanswered) as told:
            shop.register()
    assert re.fullmatch(
        rf"tracking server {wire.uri}: the training of churn was not kept to its end: expected an answer, got: .*; "
        rf"start it or mend that, or unset {registry.SERVER} to use the home's own registry; then run the same command "
        r"again: trials that are done are not repeated",
        str(told.value),
    )
    assert champion_of(server) == before
    left = sorted(set(versions_of(server)) - set(known))
    assert len(left) == (step == "promotion")  # complete, and used by nobody: it is not the champion

    wire.mend()
    assert registry.quietly(lambda: registry.champion(shop.project, TASK)).version == str(before)
    made = int(shop.register())
    assert champion_of(server) == made
    assert versions_of(server) == [*known, *left, made]
    assert "RUNNING" not in statuses(server)
    model = registry.quietly(lambda: registry.champion(shop.project, TASK))
    assert model.version == str(made)
    assert model.predict(model.background.to_frame().T, shop.project.now).between(0, 1).all()


@pytest.mark.slow
def test_a_server_killed_under_a_command_ends_it_in_words_and_the_same_command_goes_on(
    server: Tracking, tmp_path: Path
) -> None:
    """The whole of it, with another task: the command line, our own patience, trials, and a server that is killed."""
    project, task = small_shop(tmp_path / "shop"), "propensity"
    env = {k: v for k, v in os.environ.items() if k not in registry.PATIENCE} | {registry.SERVER: server.uri}
    command = [sys.executable, "-m", "foretell", "--project", str(project.folder), "train", task, "--trials", "2"]

    def runs() -> list[str]:
        found = server.client.get_experiment_by_name(task)
        return [r.info.status for r in server.client.search_runs([found.experiment_id])] if found else []

    def trials() -> dict[str, list[tuple]]:
        storage = f"sqlite:///{project.home / 'tuning.db'}"
        studies = {name: optuna.load_study(study_name=name, storage=storage).trials
                   for name in optuna.get_all_study_names(storage)}  # fmt: skip
        return {n: [(t.state, t.value, t.datetime_complete) for t in found] for n, found in studies.items()}

    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            until(lambda: process.poll() is not None or runs(), 300, "the training logged nothing")
            server.kill()
            killed = time.monotonic()
            said = process.communicate(timeout=120)[0]
        finally:
            process.kill()
    assert process.returncode == 2, said
    assert time.monotonic() - killed < 90
    assert "Traceback" not in said
    assert f"Error: tracking server {server.uri}: the training of {task} was not kept to its end" in " ".join(
        said.split()
    )
    done = trials()
    assert [len(found) for found in done.values()] == [2]

    server.start()
    with pytest.raises(mlflow.MlflowException, match="not found"):
        server.client.get_registered_model(task)
    again = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stdout + again.stderr
    assert trials() == done
    assert str(server.client.get_model_version_by_alias(task, registry.ALIAS).version) == "1"
    assert "KILLED" in runs()
    assert "RUNNING" not in runs()


# --- reading from a server that does not answer ----------------------------------------------------------------------


@pytest.fixture
def dead(monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a server that is not there, with a name and a password in it that nobody is to see."""
    port = free_port()
    monkeypatch.setenv(registry.SERVER, f"http://me:secret@127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return f"http://127.0.0.1:{port}"


@pytest.fixture
def bare(tmp_path: Path) -> Project:
    return Project(fixtures_trained.write_shop(tmp_path / "bare", people=3))


READERS: dict[str, Callable[[Project], Any]] = {
    "champion": lambda p: registry.champion(p, TASK),
    "version": lambda p: registry.champion(p, TASK, "1"),
    "trained_at": lambda p: registry.trained_at(p, TASK),
    "views_of": lambda p: registry.views_of(p, registry.Champion(TASK, "1", "0" * 32, None, {})),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_a_server_that_is_down_is_not_a_registry_in_which_nothing_is_trained(
    bare: Project, dead: str, read: Callable[[Project], Any]
) -> None:
    with pytest.raises(registry.Unanswered) as told:
        registry.quietly(lambda: read(bare))
    assert not isinstance(told.value, NotReady)  # which means that nothing is trained: then others would go on
    assert str(told.value).startswith(f"tracking server {dead}: expected an answer, got: [Errno")
    assert "secret" not in str(told.value)
    assert not (bare.home / "mlflow").exists()


@pytest.mark.parametrize("verb", [["status"], ["score"], ["score", TASK]], ids=" ".join)
def test_commands_say_that_the_server_is_down(bare: Project, dead: str, verb: list[str]) -> None:
    done = CliRunner().invoke(cli, ["--project", str(bare.folder), *verb])
    assert isinstance(done.exception, registry.Unanswered), done.output
    assert f"unset {registry.SERVER}" in str(done.exception)


@pytest.mark.parametrize(
    ("status", "body", "quoted"),
    [
        (
            403,
            b'{"error_code": "PERMISSION_DENIED", "message": "not for you\\nmore"}',
            "PERMISSION_DENIED: not for you",
        ),
        (503, b"upstream", "too many 503 error responses"),
        (200, b"<html>another service", "API request to endpoint was successful but the response body was not"),
    ],
)
def test_what_a_server_says_in_place_of_an_answer_is_quoted(
    bare: Project, monkeypatch: pytest.MonkeyPatch, status: int, body: bytes, quoted: str
) -> None:
    class Refuses(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None: ...

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with ThreadingHTTPServer(("127.0.0.1", 0), Refuses) as it:
        threading.Thread(target=it.serve_forever, daemon=True).start()
        monkeypatch.setenv(registry.SERVER, f"http://127.0.0.1:{it.server_port}")
        with pytest.raises(registry.Unanswered, match=f"got: .*{quoted}.*; start it or mend that"):
            registry.quietly(lambda: registry.trained_at(bare, TASK))
        it.shutdown()


@pytest.mark.parametrize("given", [{}, dict.fromkeys(registry.PATIENCE, "9")], ids=["ours", "the user's"])
def test_patience_with_a_server_is_ours_unless_the_user_said_otherwise(
    bare: Project, dead: str, monkeypatch: pytest.MonkeyPatch, given: dict[str, str]
) -> None:
    for name in registry.PATIENCE:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    registry.client(bare)
    assert {name: os.environ[name] for name in registry.PATIENCE} == (given or registry.PATIENCE)


def test_without_a_server_nothing_is_asked_of_the_network(bare: Project) -> None:
    assert registry.quietly(lambda: registry.trained_at(bare, TASK)) is None
    with pytest.raises(NotReady, match="nothing is trained yet"):
        registry.quietly(lambda: registry.champion(bare, TASK))
    assert not set(registry.PATIENCE) & set(os.environ)

"""The demo: a grocer's year, from raw exports to scores, segments and a service that answers, by anyone's commands."""

from __future__ import annotations

import json
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from socket import socket
from urllib.request import Request, urlopen

import click
import duckdb

from examples.complete_journey.exports import write_exports
from foretell.__main__ import cli
from foretell.errors import ForetellError
from foretell.project import Project
from lake.engine import session
from segments.audience import audience
from unification.quality import compare

HERE = Path(__file__).parent
KEY = "complete-journey-demo"
STARTING = 120  # seconds the service may take to start before the demo gives up
# What truth.parquet calls an identifier -> what the sources call it
_KINDS = {"card": "loyalty_card"}


def main() -> None:
    started = time.time()
    _say("A grocer's year. The baskets are real (84.51°, CC0); every name, address, e-mail and phone is SYNTHETIC.")
    exports = HERE / "exports"
    if not (exports / "truth.parquet").exists():
        write_exports(exports)
    key = HERE / ".foretell" / "key"
    if not key.exists():  # a secret elsewhere; here it makes everyone's demo show the same ids
        key.parent.mkdir(exist_ok=True)
        key.write_text(KEY)
    _run("status")
    _run("load")
    _run("quarantine")
    _run("unify")
    _grade(exports / "truth.parquet")
    _run("train")
    _run("score")
    _run("segment list")
    _run("segment show worth_keeping --limit 5 --with churn --with clv --with city --with email")
    project = Project.find(HERE)
    members = audience(project, "worth_keeping").members.sort_values(["clv", "profile_id"], ascending=False)
    who = members["profile_id"].iloc[0]
    _run(f"profile {who}")
    _run("score clv --segment worth_keeping")
    _run("segment export worth_keeping --with email --with churn --with clv --to audiences/worth_keeping.csv", HERE)
    _ask_the_service(who, list(members["profile_id"].head(100)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    _say(f"Done in {time.time() - started:.0f} s, peak memory {peak:.1f} GB.")
    click.echo(f"""Open next:
  the models       .venv/bin/mlflow ui --backend-store-uri sqlite:///{_shown(project.home)}/mlflow/mlflow.db
                   (plots are under each run's artifacts: calibration, gain, SHAP)
  the audience     {_shown(HERE)}/audiences/worth_keeping.csv
  the definitions  {_shown(HERE)}/sources, tasks and segments: one file each
  the service      make serve, then http://127.0.0.1:3000/docs
  a notebook       notebooks/01_first_model.ipynb
  ask yourself     .venv/bin/foretell --project {_shown(HERE)} segment show "churn > 0.5 and orders_90d > 5\"""")


def _run(command: str, folder: Path | None = None) -> None:
    """Show a command and run it in this process: starting anew each time would import Feast and MLflow each time."""
    click.secho(f"\n$ foretell {command}", fg="cyan", bold=True)
    words = shlex.split(command)
    if folder:
        words = [str(folder / w) if w.startswith("audiences/") else w for w in words]
    start = time.time()
    try:
        cli(["--project", str(HERE), *words], standalone_mode=False)
    except ForetellError as error:
        click.secho(f"Error: {error}", fg="red", err=True)
        sys.exit(2)
    click.secho(f"({time.time() - start:.1f} s)", dim=True)


def _ask_the_service(who: str, many: list[str]) -> None:
    """Start `foretell serve`, ask it for one profile and for many, and stop it again."""
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    root = f"http://127.0.0.1:{port}"
    click.secho(f"\n$ foretell serve --port {port} &", fg="cyan", bold=True)
    started = time.time()
    command = [sys.executable, "-m", "foretell", "--project", str(HERE), "serve", "--port", str(port)]
    with tempfile.TemporaryFile("w+") as said:
        service = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
        try:
            while not _ready(root):
                if service.poll() is not None or time.time() - started > STARTING:
                    said.seek(0)
                    click.secho(f"Error: the service did not start:\n{said.read()}", fg="red", err=True)
                    sys.exit(2)
                time.sleep(0.2)
            click.echo(f"ready after {time.time() - started:.0f} s")
            answer = _post(root, {"profiles": [who], "tasks": ["churn"], "reasons": True})
            click.echo(json.dumps(answer, indent=2))
            asked = time.time()
            answer = _post(root, {"profiles": many})
            found = sum(len(result["scores"]) for result in answer["results"])
            click.echo(f"{len(many)} profiles, {found} scores in {1000 * (time.time() - asked):.0f} ms")
        finally:
            service.terminate()
            service.wait(30)
    click.echo("stopped")


def _ready(root: str) -> bool:
    try:
        with urlopen(f"{root}/readyz", timeout=5):
            return True
    except OSError:  # not listening yet, or not ready
        return False


def _post(root: str, question: dict) -> dict:
    click.secho(f"\n$ curl {root}/v1/scores --json '{_clip(json.dumps(question))}'", fg="cyan", bold=True)
    request = Request(f"{root}/v1/scores", json.dumps(question).encode(), {"Content-Type": "application/json"})
    with urlopen(request, timeout=60) as answer:
        return json.load(answer)


def _clip(text: str) -> str:
    return text if len(text) < 120 else text[:100] + " …"


def _grade(truth_file: Path) -> None:
    """Compare the profiles with the overlay's truth, over identifiers that belong to one household only."""
    with session(Project.find(HERE)) as con:
        found = con.execute("SELECT node, profile_id FROM member WHERE known_to IS NULL").df()
    truth = duckdb.sql(f"SELECT identifier_type, identifier, household_id FROM '{truth_file}'").df()
    truth["node"] = truth["identifier_type"].replace(_KINDS) + ":" + truth["identifier"]
    truth = truth.drop_duplicates("node", keep=False)
    both = truth.merge(found, on="node")
    scores = compare(both["profile_id"], both["household_id"])
    households, profiles = both["household_id"].nunique(), both["profile_id"].nunique()
    click.echo(
        f"Against the synthetic truth: {households:,} households, {profiles:,} profiles, {len(both):,} identifiers;\n"
        f"pairs precision {scores['pair_precision']:.4f} recall {scores['pair_recall']:.4f} "
        f"F1 {scores['pair_f1']:.4f}; "
        f"B-cubed precision {scores['b3_precision']:.4f} recall {scores['b3_recall']:.4f} F1 {scores['b3_f1']:.4f}"
    )


def _say(text: str) -> None:
    click.secho(f"\n{text}", bold=True)


def _shown(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


if __name__ == "__main__":
    main()

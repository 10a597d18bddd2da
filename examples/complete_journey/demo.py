"""The demo: a grocer's year, from raw exports to scores, segments and a service that answers, by anyone's commands."""

from __future__ import annotations

import resource
import shlex
import shutil
import time
from pathlib import Path

import click
import duckdb

from examples import service
from examples.complete_journey.exports import write_exports
from examples.walk import run, say, shown
from foretell.project import Project
from lake.engine import session
from segments.audience import audience
from unification.quality import compare

HERE = Path(__file__).parent
KEY = "complete-journey-demo"
# What truth.parquet calls an identifier -> what the sources call it
_KINDS = {"card": "loyalty_card"}


def main() -> None:
    started = time.time()
    say("A grocer's year. The baskets are real (84.51°, CC0); every name, address, e-mail and phone is SYNTHETIC.")
    exports = HERE / "exports"
    if not (exports / "truth.parquet").exists():
        write_exports(exports)
    key = HERE / ".foretell" / "key"
    if not key.exists():  # a secret elsewhere; here it makes everyone's demo show the same ids
        key.parent.mkdir(exist_ok=True)
        key.write_text(KEY)
    run(HERE, "status")
    run(HERE, "load")
    run(HERE, "quarantine")
    run(HERE, "unify")
    _grade(exports / "truth.parquet")
    run(HERE, "train")
    run(HERE, "score")
    run(HERE, "segment list")
    run(HERE, "segment show worth_keeping --limit 5 --with churn --with clv --with city --with email")
    project = Project.find(HERE)
    members = audience(project, "worth_keeping").members.sort_values(["clv", "profile_id"], ascending=False)
    who = members["profile_id"].iloc[0]
    run(HERE, f"profile {who}")
    run(HERE, "score clv --segment worth_keeping")
    audience_file = shlex.quote(shown(HERE / "audiences" / "worth_keeping.csv"))
    run(HERE, f"segment export worth_keeping --with email --with churn --with clv --to {audience_file}")
    service.walk(HERE, who, list(members["profile_id"].head(100)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    say(f"Done in {time.time() - started:.0f} s, peak memory {peak:.1f} GB.")
    click.echo(f"""Open next:
  the models       .venv/bin/mlflow ui --backend-store-uri sqlite:///{shown(project.home)}/mlflow/mlflow.db
                   (plots are under each run's artifacts: calibration, gain, SHAP)
  the audience     {audience_file}
  the definitions  {shown(HERE)}/sources, tasks and segments: one file each
  the service      make serve, then http://127.0.0.1:3000/docs
  a notebook       notebooks/01_first_model.ipynb
  ask yourself     .venv/bin/foretell --project {shown(HERE)} segment show "churn > 0.5 and orders_90d > 5\"""")


def make_project(folder: Path) -> Path:
    """A copy of this project in another folder, with its exports and the demo's key; nothing is loaded."""
    shutil.copytree(HERE, folder, ignore=shutil.ignore_patterns(".foretell", "exports", "audiences", "__pycache__"))
    write_exports(folder / "exports")
    (folder / ".foretell").mkdir()
    (folder / ".foretell" / "key").write_text(KEY)
    return folder


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


if __name__ == "__main__":
    main()

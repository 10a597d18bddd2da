"""A second company's data: a gift shop's two years, by the same commands, with one contract and no change of code.

python -m examples.online_retail.run FILE [--trials N]
"""

from __future__ import annotations

import argparse
import csv
import resource
import shlex
import time
from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path

import click

from examples.walk import run, say, shown, stop
from foretell.project import Project
from lake.engine import session
from segments.audience import audience

HERE = Path(__file__).parent
TASKS = ("churn", "propensity", "clv", "lookalike")
SEGMENT = "slipping_away"
# Further back than clocks and queues explain: another sheet begins.
ANOTHER_SHEET = timedelta(days=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path, help="Online Retail (II) as .xlsx, .csv or .parquet")
    parser.add_argument("--trials", type=int, help="tune the learned models with this many trials")
    given = parser.parse_args()
    walk(given.file, trials=given.trials)


def walk(file: Path, *, trials: int | None = None, folder: Path = HERE, tasks: tuple[str, ...] = TASKS) -> None:
    """The walk, through the project in `folder`."""
    started = time.time()
    say("A gift shop's two years. Everything is real (UCI Machine Learning Repository, data set 502, CC BY 4.0).")
    if not file.is_file():
        stop(f"{file}: no such file; README.md in {shown(HERE)} says where to download one")
    project = Project.find(folder)
    files = one_sheet_each(file, project.home / "sheets")
    if others := loaded_from_elsewhere(project, files):
        stop(
            f"{shown(project.home)} holds the lines of {others[0]}, and the same lines from another kind of file would "
            f"count twice; remove it to start anew: rm -r {shlex.quote(shown(project.home))}"
        )
    run(folder, "load invoices " + " ".join(f"--from {shlex.quote(str(f))}" for f in files))
    run(folder, "quarantine --limit 5")
    run(folder, "unify")
    run(folder, f"train {' '.join(tasks)}{f' --trials {trials}' if trials is not None else ''}")
    run(folder, "score")
    run(folder, "segment list")
    scores = " ".join(f"--with {task}" for task in ("churn", "clv") if task in tasks)
    run(folder, f"segment show {SEGMENT} --limit 5 {scores} --with days_since_order --with customer")
    members = audience(project, SEGMENT, ["clv"]).members.sort_values(["clv", "profile_id"], ascending=False)
    if len(members):
        run(folder, f"profile {members['profile_id'].iloc[0]}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    say(f"Done in {time.time() - started:.0f} s, peak memory {peak:.1f} GB.")
    click.echo(f"""Open next:
  the models       .venv/bin/mlflow ui --backend-store-uri sqlite:///{shown(project.home)}/mlflow/mlflow.db
                   (plots are under each run's artifacts: calibration, gain, SHAP)
  the contract     {shown(folder)}/sources/invoices.py: all that Foretell was told about this company
  ask yourself     .venv/bin/foretell --project {shown(folder)} segment show "churn < 0.2 and orders_365d > 10\"""")


def loaded_from_elsewhere(project: Project, files: list[Path]) -> list[str]:
    """Files other than these that the home has facts of."""
    with session(project) as con:
        if not con.execute("SELECT 1 FROM duckdb_views() WHERE view_name = 'batches'").fetchall():
            return []
        known = con.execute("SELECT DISTINCT file FROM batches WHERE added > 0 ORDER BY file").fetchall()
    ours = {file.name for file in files}
    return [name for (name,) in known if name not in ours and name.rsplit("#", 1)[0] not in ours]


def one_sheet_each(file: Path, folder: Path) -> list[Path]:
    """The file, or its parts if it is a CSV file that holds the workbook's two sheets one after the other.

    Both sheets hold 1 to 9 December 2010. The same line in two files is one fact, but twice in one file it is two: a
    customer may well buy the same thing twice. Where time jumps back, the second sheet begins.
    """
    if file.suffix.lower() != ".csv":
        return [file]
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
        rows = csv.reader(lines)
        header = next(rows, [])
        if "InvoiceDate" not in header:
            return [file]
        starts = _starts(rows, header.index("InvoiceDate"))
    if len(starts) == 1:
        return [file]
    say(f"{file.name} holds {len(starts)} sheets one after the other: time jumps back in row {starts[1] + 2:,}.")
    folder.mkdir(parents=True, exist_ok=True)
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
        rows = csv.reader(lines)
        next(rows)
        parts = []
        for n, begin in enumerate(starts, 1):
            size = starts[n] - begin if n < len(starts) else None
            parts.append(folder / f"{file.stem}-{n}.csv")
            with parts[-1].open("w", encoding="utf-8", errors="surrogateescape", newline="") as out:
                csv.writer(out).writerows([header, *islice(rows, size)])
    return parts


def _starts(rows: Iterable[list[str]], column: int) -> list[int]:
    """Which rows begin a sheet, counted from 0: the first, and those where time jumps back."""
    starts, latest = [0], datetime.min
    for n, row in enumerate(rows):
        at = _time(row[column]) if column < len(row) else None
        if at and latest - at > ANOTHER_SHEET:
            starts.append(n)
        latest = at or latest
    return starts


def _time(text: str) -> datetime | None:
    for form in ("%Y-%m-%d %H:%M:%S", "%m/%d/%Y %H:%M"):
        try:
            return datetime.strptime(text, form)
        except ValueError:
            continue
    return None


if __name__ == "__main__":
    main()

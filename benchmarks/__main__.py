"""Run every benchmark, one after the other, and sum up: `python -m benchmarks [--quick]`.

A benchmark is a module of this package; each gets a process of its own, so that none sees another's memory. The exit
code tells whether all ran through, not whether every bar holds: bars depend on the machine, crashes do not.
"""

from __future__ import annotations

import argparse
import pkgutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import benchmarks
from benchmarks import report

HELPERS = {
    "automl_peers", "contributions", "features_polars", "features_shop", "features_sql", "findings", "judging", "log",
    "presets", "leak_sets", "leak_tables", "report", "sdks", "shop",
}  # fmt: skip


def names() -> list[str]:
    """Every module of this package that is a benchmark."""
    found = (info.name for info in pkgutil.iter_modules(benchmarks.__path__))
    return sorted(name for name in found if name not in HELPERS and not name.startswith("_"))


def run(name: str, arguments: list[str]) -> dict[str, Any]:
    """Run one benchmark, passing its output on. Its JSON object; ValueError if it crashed or ends without one."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            print(line, end="", flush=True)
    if process.returncode:
        raise ValueError(f"exit code {process.returncode}")
    return report.parse("".join(lines))


def main() -> int:
    """Read the command line, run, sum up. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"Benchmarks: {', '.join(names())}. `python -m benchmarks.NAME --help` says what one measures.",
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="small sizes, for a look or for CI; their bars say little")
    given = parser.parse_args()
    bars, crashed, started = [], {}, time.perf_counter()
    for name in names():
        print(f"== {name}", flush=True)
        try:
            bars += run(name, ["--quick"] if given.quick else [])["bars"]
        except ValueError as error:
            crashed[name] = str(error)
            print(f"{name} crashed: {error}", file=sys.stderr)
    size = "small sizes, a check that all run" if given.quick else "full sizes"
    print(f"\n== all benchmarks: {size}, {time.perf_counter() - started:.0f} s")
    print(report.table(bars))
    for name, why in crashed.items():
        print(f"{name} CRASHED: {why}")
    return 1 if crashed else 0


if __name__ == "__main__":
    sys.exit(main())

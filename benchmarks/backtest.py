"""How long does it take to judge a task, from facts to the report, and how much memory?

    python -m benchmarks.backtest

  backtest.minutes_tuned   minutes of `foretell backtest churn --trials 30` on Online Retail II as of 2011-09-01 (where
                           FORETELL_TEST_DATA is set; else on the example's generated shop, and without a bar): six
                           exams, each after learning from up to six cutoffs, and thirty sets of parameters.
  backtest.minutes_large   minutes of the same, untuned, over 5 million lines of 100,000 people.
  backtest.rss_gb          the most memory of the process that did that.

No table of features is built before; loading the lines and unifying them is not counted. Each runs in a process of its
own. Times depend on the machine and on what else it does: the load before and after stands in the details.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import presets, report
from benchmarks.features_shop import Sizes, prepare
from benchmarks.log import span, write_lines
from benchmarks.presets import PRESETS, RETAIL
from benchmarks.report import Usage, apart, measure, progress
from benchmarks.shop import live_until, open_shop
from foretell.console import worth
from foretell.project import Project

NOW = datetime(2011, 9, 1, tzinfo=UTC)
LARGE, QUICK = Sizes(5_000_000, 100_000, 6), Sizes(60_000, 3_000, 6)
TRIALS, QUICK_TRIALS = 30, 2


def judge(folder: Path, trials: int) -> tuple[Usage, dict[str, Any]]:
    """Judge churn as `foretell backtest` does, and write its report. What it took, and what came out."""
    from training.champion import contest

    def run() -> dict[str, Any]:
        project = Project(folder)
        with project.writing("backtest churn"):
            found = contest(project, "churn", progress, trials)
            found.report(folder / "churn.html")
        judged, metric = found.backtest, found.task.metric
        return {
            "exams": len(judged.judgements), "rows_judged": found.counts["evaluation"],
            "rows_learned": found.counts["training"], "features": len(found.columns), "champion": found.winner,
            metric: judged.pooled.value(found.winner, metric), "base_rate": worth(found.kind, found.base_rate),
        }  # fmt: skip

    return measure(run)


def retail(folder: Path) -> bool:
    """Make the shop of Online Retail II, or else the generated one. Whether it is the former."""
    real = bool(os.environ.get(presets.FOLDER))
    folder.mkdir()
    log = PRESETS[RETAIL].log(PRESETS[RETAIL].located(None)) if real else presets.generate(folder)
    write_lines(log, lines := folder / "lines.parquet")
    progress(f"{span(lines)[0]:,} lines")
    live_until(open_shop(folder / "shop", log.clock), lines, NOW)
    return real


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, measure, report."""
    given = report.options(__doc__ or "", "backtest", repeats=False).parse_args(arguments)
    sizes, trials = (QUICK, QUICK_TRIALS) if given.quick else (LARGE, TRIALS)
    load, bars, details = os.getloadavg()[0], [], {}
    with tempfile.TemporaryDirectory(prefix="foretell-bench-") as name:
        real = apart(retail, Path(name) / "retail")
        used, about = apart(judge, Path(name) / "retail" / "shop", trials)
        details["tuned"] = {**asdict(used), "trials": trials, "shop": RETAIL if real else "generated", **about}
        if real:
            bars.append(report.bar("backtest.minutes_tuned", [used.wall / 60], "<=3"))
        counts = apart(prepare, Path(name) / "large", sizes)
        used, about = apart(judge, Path(name) / "large", 0)
    details["large"] = {**asdict(used), "profiles": counts["profiles"], **about}
    bars += [
        report.bar("backtest.minutes_large", [used.wall / 60], "<=10"),
        report.bar("backtest.rss_gb", [used.rss / 1e9], "<=6"),
    ]
    report.Report(
        benchmark="backtest", versions=report.versions("lightgbm", "scikit-learn", "duckdb", "feast", "pandas"),
        sizes={**asdict(sizes), "quick": given.quick, "cores": os.cpu_count(), "load_before": load,
               "load_after": os.getloadavg()[0]},
        bars=bars, details=details,
    ).show()  # fmt: skip


if __name__ == "__main__":
    main()

"""A few months of the generated shop, lived through by the command line: grades are right, figures as promised."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import presets, replay, report
from benchmarks.shop import Asked
from examples.online_retail import generate as generator
from foretell.__main__ import cli


def here(folder: Path, words: Sequence[str]) -> tuple[int, str]:
    """The same commands in this process: starting anew each time would import Feast and MLflow each time."""
    done = CliRunner().invoke(cli, ["--project", str(folder), *words])
    return done.exit_code, done.output + (str(done.exception or "") if done.exit_code not in (0, 1) else "")


@pytest.mark.slow
def test_three_months_of_the_generated_shop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator.write(generator.generate(350), tmp_path / "generated.parquet")
    log, asked = presets.online_retail(tmp_path / "generated.parquet"), [Asked.parse("propensity30")]
    made = replay.replay(log, tmp_path, asked, replay.months(replay.FIRST, 3), 0, here)
    (of,) = made.seen.watched
    assert [f"{g.cutoff:%Y-%m-%d}" for g in of.graded] == ["2010-12-01", "2011-01-01"]
    assert made.graded["propensity30"] == sum(len(g.y) for g in of.graded) > 200
    assert made.wrong == {"propensity30": 0}
    assert sum(w.scores for w in of.waiting) > 200
    assert len(of.batches) == 4
    assert {g.state for g in of.graded} <= {"within", "outside"}
    assert list(made.alerts) == ["2010-12-01", "2011-01-01", "2011-02-01", "2011-03-01"]
    bars = {bar.id: bar for bar in replay.bars_of(made, asked)}
    assert bars["replay.wrong_grades"].holds
    assert (made.project.folder / "monitor.html").exists()
    replay.show(made)
    shown = capsys.readouterr().out
    assert "propensity v1: log_loss, 6 exams" in shown
    report.Report("replay", {}, list(bars.values()), {}, {"figures": replay.details(made)}).show()
    assert report.parse(capsys.readouterr().out)["details"]["figures"]["propensity v1"]


def test_a_command_that_fails_stops_the_replay(tmp_path: Path) -> None:
    generator.write(generator.generate(20), tmp_path / "generated.parquet")
    with pytest.raises(ValueError, match="foretell load ended with 2"):
        replay.replay(
            presets.online_retail(tmp_path / "generated.parquet"), tmp_path, [Asked.parse("propensity30")],
            [replay.FIRST], 0, lambda folder, words: (2, "no"),
        )  # fmt: skip


def test_months_follow_each_other() -> None:
    found = replay.months(datetime(2010, 11, 1, tzinfo=UTC), 3)
    assert [f"{at:%Y-%m-%d}" for at in found] == ["2010-11-01", "2010-12-01", "2011-01-01", "2011-02-01"]
    assert found[1] - found[0] == timedelta(days=30)

"""What a benchmark reports: medians and spreads, limits, the last line, and how crashes are told from results."""

from __future__ import annotations

import io
import json
import math
import os
import threading
import time

import pytest

from benchmarks import __main__ as every
from benchmarks import report
from benchmarks.report import Bar, Report, Usage


def test_a_ratio_is_the_median_of_the_rounds_ratios():
    bar = report.ratio("x.y", over=[2.0, 9.0, 30.0], under=[1.0, 3.0, 20.0], limit="<=2")
    assert bar.value == 2.0
    assert bar.spread == (1.5, 3.0)


@pytest.mark.parametrize(
    ("value", "limit", "holds"),
    [(3, ">=3", True), (2.999, ">=3", False), (1.4, "<=1.4", True), (1.41, "<=1.4", False), (0, "==0", True),
     (0, ">0", False), (1, "<1", False), (math.nan, "<=3", False), (math.inf, ">=3", False)],
)  # fmt: skip
def test_limits(value, limit, holds):
    assert Bar("x.y", value, limit, (value, value)).holds is holds


@pytest.mark.parametrize("limit", ["3", "=>3", "about 3", ""])
def test_a_limit_that_cannot_be_read_is_refused(limit):
    with pytest.raises(ValueError, match=r"limit|could not convert"):
        report.split_limit(limit)


def test_the_last_line_is_one_json_object_of_the_agreed_shape():
    out = io.StringIO()
    bars = [report.bar("x.good", [1.0, 2.0, 4.0], ">=2"), report.bar("x.bad", [math.nan], "<=1")]
    Report("x", {"rows": 1_000}, bars, {"python": "3"}, {"cpu": {"a": 0.123456789}}).show(out)
    found = json.loads(out.getvalue().splitlines()[-1])
    assert list(found) == ["benchmark", "versions", "sizes", "bars", "details"]
    assert found["bars"][0] == {"id": "x.good", "value": 2.0, "limit": ">=2", "holds": True, "spread": [1.0, 4.0]}
    assert found["bars"][1] == {"id": "x.bad", "value": None, "limit": "<=1", "holds": False, "spread": [None, None]}
    assert found["details"] == {"cpu": {"a": 0.12346}}
    assert report.parse(out.getvalue()) == found
    shown = out.getvalue().splitlines()[:3]
    assert shown[1].endswith("holds")
    assert shown[2].endswith("MISSED")


@pytest.mark.parametrize("output", ["", "done\n", '{"benchmark": "x"}', "[1]", '{"bars": []}\nTraceback'])
def test_output_without_the_object_is_a_crash(output):
    with pytest.raises(ValueError, match="last line"):
        report.parse(output)


def test_contestants_take_turns_and_warm_up_does_not_count():
    calls: list[str] = []

    def contestant(name):
        def run():
            calls.append(name)
            return Usage(len(calls), 0, 0)

        return run

    usages = report.interleaved({n: contestant(n) for n in "ab"}, repeats=3, warm_up=1)
    assert "".join(calls) == "baabbaab"
    assert [u.wall for u in usages["a"]] == [3, 6, 7]
    assert [len(u) for u in usages.values()] == [3, 3]


def test_cpu_seconds_count_other_threads_and_not_waiting():
    waited, _ = report.measure(lambda: time.sleep(0.05))
    assert waited.wall >= 0.05
    assert waited.cpu < 0.04

    def spin():
        until = time.thread_time() + 0.05
        while time.thread_time() < until:
            pass

    def in_a_thread():
        thread = threading.Thread(target=spin)
        thread.start()
        thread.join()

    assert report.measure(in_a_thread)[0].cpu >= 0.045


def test_memory_is_measured_apart():
    ballast = bytearray(os.urandom(1_000)) * 300_000  # 300 MB of ours
    assert report.peak_rss() > len(ballast)
    assert report.apart(report.peak_rss) < 200e6


def test_benchmarks_are_discovered_without_their_helpers():
    assert "features" in every.names()
    assert not {"report", "features_sql", "__main__"} & set(every.names())


def test_a_crash_is_told_from_a_missed_bar(monkeypatch, capsys):
    missed = Bar("a.x", 9.0, "<=1", (9.0, 9.0)).as_json()
    monkeypatch.setattr(every, "names", lambda: ["a"])
    monkeypatch.setattr(every, "run", lambda name, arguments: {"bars": [missed]})
    monkeypatch.setattr("sys.argv", ["benchmarks", "--quick"])
    assert every.main() == 0
    assert "MISSED" in capsys.readouterr().out

    def crash(name, arguments):
        raise ValueError("exit code 1")

    monkeypatch.setattr(every, "run", crash)
    assert every.main() == 1
    assert "a CRASHED: exit code 1" in capsys.readouterr().out

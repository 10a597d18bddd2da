"""How is a benchmark measured and reported? Interleaved repeats, medians with their spread, one JSON line at the end.

Contestants take turns within every round, so that a busy machine hits all of them; a ratio is the median of the rounds'
ratios and its spread their smallest and largest. CPU seconds count every thread, and child processes that have ended.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import operator
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO, TypeVar

T = TypeVar("T")
REPEATS, QUICK_REPEATS = 5, 2
_HOLDS = {">=": operator.ge, "<=": operator.le, "==": operator.eq, ">": operator.gt, "<": operator.lt}


@dataclass(frozen=True)
class Usage:
    """What one run took: seconds on the clock, CPU seconds, and the process's peak memory in bytes when it ended."""

    wall: float
    cpu: float
    rss: int


@dataclass(frozen=True)
class Bar:
    """One measured number and its limit ("<=1.4", ">=3", "0.87..0.93"). spread: smallest and largest repeat, or an
    interval."""

    id: str
    value: float
    limit: str
    spread: tuple[float, float]

    @property
    def holds(self) -> bool:
        """Is the value within the limit? A value that is no number never is."""
        if ".." in self.limit:
            low, high = map(float, self.limit.split(".."))
            return low <= self.value <= high
        sign, bound = split_limit(self.limit)
        return math.isfinite(self.value) and bool(_HOLDS[sign](self.value, bound))

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id, "value": rounded(self.value), "limit": self.limit, "holds": self.holds,
            "spread": [rounded(s) for s in self.spread],
        }  # fmt: skip


@dataclass(frozen=True)
class Report:
    """What a benchmark found. `show` prints it for people, then as the one JSON line that programs read."""

    benchmark: str
    sizes: Mapping[str, Any]
    bars: Sequence[Bar]
    versions: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {
            "benchmark": self.benchmark, "versions": dict(self.versions), "sizes": dict(self.sizes),
            "bars": [bar.as_json() for bar in self.bars], "details": rounded(dict(self.details)),
        }  # fmt: skip

    def show(self, out: TextIO | None = None) -> None:
        """A table of the bars, what they were measured on, and last the JSON object on a line of its own.

        Details that are tables of tables are for programs: only the JSON has them.
        """
        found = self.as_json()
        print(table(found["bars"]), file=out)
        for title in ("sizes", "details", "versions"):
            said = [f"{k} {_plain(v)}" for k, v in found[title].items() if _depth(v) < 3]
            if said:
                print(f"{title}: " + ", ".join(said), file=out)
        print(json.dumps(found, allow_nan=False), file=out, flush=True)


def _depth(value: Any) -> int:
    return 1 + max(map(_depth, value.values()), default=0) if isinstance(value, Mapping) else 0


def split_limit(limit: str) -> tuple[str, float]:
    """The sign and the number of a limit.

    >>> split_limit("<=1.4")
    ('<=', 1.4)
    """
    for sign in sorted(_HOLDS, key=len, reverse=True):
        if limit.startswith(sign):
            return sign, float(limit[len(sign) :])
    raise ValueError(f"limit {limit!r}: expected one of {', '.join(_HOLDS)} and a number, such as <=1.4")


def parse(text: str) -> dict[str, Any]:
    """The JSON object on the last line of a benchmark's output. A ValueError says what is there instead."""
    lines = text.strip().splitlines()
    try:
        found = json.loads(lines[-1] if lines else "")
    except ValueError:
        found = None
    if not isinstance(found, dict) or "bars" not in found:
        raise ValueError(
            f"expected a benchmark's JSON object on the last line, got {lines[-1][:80] if lines else 'nothing'!r}"
        )
    return found


def table(bars: Sequence[Mapping[str, Any]]) -> str:
    """Bars, as in the JSON object, as aligned text."""
    head = ("bar", "value", "limit", "spread", "")
    rows = [
        (
            b["id"],
            _plain(b["value"]),
            b["limit"],
            " … ".join(map(_plain, b["spread"])),
            "holds" if b["holds"] else "MISSED",
        )
        for b in bars
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in (head, *rows))


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return "(" + ", ".join(f"{k} {_plain(v)}" for k, v in value.items()) + ")"
    if isinstance(value, list | tuple):
        return " ".join(map(_plain, value))
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.3g}" if isinstance(value, float) and abs(value) < 1000 else str(value)


def rounded(value: Any) -> Any:
    """Numbers to five significant digits, NaN and infinity as None (JSON has neither); containers likewise."""
    if isinstance(value, Mapping):
        return {str(k): rounded(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value


def summary(values: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """Median and spread (smallest, largest) of repeats.

    >>> summary([3.0, 1.0, 2.0])
    (2.0, (1.0, 3.0))
    """
    return statistics.median(values), (min(values), max(values))


def bar(id: str, values: Sequence[float], limit: str) -> Bar:
    """A bar of one number per repeat."""
    value, spread = summary(values)
    return Bar(id, value, limit, spread)


def ratio(id: str, over: Sequence[float], under: Sequence[float], limit: str) -> Bar:
    """A bar of the ratio of two contestants, round by round."""
    return bar(id, [a / b for a, b in zip(over, under, strict=True)], limit)


def measure(function: Callable[[], T]) -> tuple[Usage, T]:
    """Run once. Its usage (memory: the process's peak, so measure memory `apart`) and what it returned."""
    cpu, wall = cpu_seconds(), time.perf_counter()
    result = function()
    return Usage(time.perf_counter() - wall, cpu_seconds() - cpu, peak_rss()), result


def cpu_seconds() -> float:
    """CPU seconds so far, user and system, of all threads of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def peak_rss() -> int:
    """The most memory this process has held, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # unlike getrusage, this does not begin with what the parent process held
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def apart(function: Callable[..., T], *arguments: Any) -> T:
    """Call a module-level function in a fresh process, so that memory and caches are its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def interleaved(
    contestants: Mapping[str, Callable[[], Usage]], repeats: int, warm_up: int = 0
) -> dict[str, list[Usage]]:
    """Every contestant once per round, in turned order from round to round; warm-up rounds are not counted."""
    usages: dict[str, list[Usage]] = {name: [] for name in contestants}
    for n in range(-warm_up, repeats):
        turn = list(contestants)[:: 1 if n % 2 == 0 else -1]
        for name in turn:
            used = contestants[name]()
            label = f"round {n + 1} of {repeats}" if n >= 0 else "warm-up"
            progress(f"{label}: {name} {used.wall:.2f} s, {used.cpu:.2f} s of CPU")
            if n >= 0:
                usages[name].append(used)
    return usages


def medians(usages: Mapping[str, Sequence[Usage]]) -> dict[str, dict[str, float]]:
    """Median wall, CPU seconds and peak GB per contestant, for the details of a report."""
    return {
        name: {
            "wall_s": statistics.median(u.wall for u in used),
            "cpu_s": statistics.median(u.cpu for u in used),
            "peak_gb": statistics.median(u.rss for u in used) / 1e9,
        }
        for name, used in usages.items()
    }


def progress(text: str) -> None:
    """Tell whoever waits what is going on, on stderr."""
    print(f"  {text}", file=sys.stderr, flush=True)


def versions(*packages: str) -> dict[str, str]:
    """Python, the processor and the installed versions of these packages."""
    return {"python": platform.python_version(), "machine": platform.machine()} | {
        p: metadata.version(p) for p in packages
    }


def options(description: str, name: str, *, repeats: bool = True) -> argparse.ArgumentParser:
    """The options all benchmarks share. repeats: whether this one measures more than once."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, for a look or for CI; its bars say little")
    if repeats:
        text = f"rounds to take the median of (default: {REPEATS}, quick: {QUICK_REPEATS})"
        parser.add_argument("--repeats", type=_count, help=text)
    return parser


def repeats(given: argparse.Namespace) -> int:
    return given.repeats or (QUICK_REPEATS if given.quick else REPEATS)


def _count(text: str) -> int:
    if (n := int(text)) < 1:
        raise ValueError("at least 1")
    return n

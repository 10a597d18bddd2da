"""Pictures of segments over time: how big they were at each refresh, and who came and went."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from foretell.pictures import BLUE, GREEN, INK, PALETTE, STYLES, VERMILION, as_text, canvas, dress, title
from segments.history import Refresh


def history(refreshes: Sequence[Refresh]) -> Figure:
    """One segment: its size, and below it how many entered (up) and left (down) since the refresh before."""
    drawn = canvas(8, 5)
    above, below = drawn.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    at: Any = [r.at for r in refreshes]
    above.plot(at, [r.size for r in refreshes], color=BLUE, marker="o", markersize=4)
    for before, now in pairwise(refreshes):
        if before.rule != now.rule:
            above.axvline(date2num(now.at), color=INK, linestyle=":", linewidth=1)
    width = _width(refreshes)
    # at the first refresh nobody entered who was not there already
    below.bar(at[1:], [r.entered for r in refreshes[1:]], width=width, color=GREEN)
    below.bar(at[1:], [-r.left for r in refreshes[1:]], width=width, color=VERMILION)
    below.axhline(0, color=INK, linewidth=0.8)
    above.set_ylabel("members", fontsize=9)
    below.set_ylabel("entered, left", fontsize=9)
    above.set_ylim(bottom=0)
    for ax in (above, below):
        ax.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        dress(ax, grid="y")
    _dates(below)
    last, first = refreshes[-1], refreshes[0]
    said = f"{as_text(first.segment)}: {last.size:,} members"
    said += f", {last.size - first.size:+,} since {first.at:%Y-%m-%d}" if len(refreshes) > 1 else ""
    title(
        drawn,
        said,
        "green: entered, red: left since the refresh before; dotted line: the rule or its purpose was changed",
    )
    return drawn


def trend(refreshes: Sequence[Refresh]) -> Figure:
    """Several segments: the size of each at its refreshes."""
    drawn = canvas(8, 4)
    ax = drawn.subplots()
    names = list(dict.fromkeys(r.segment for r in refreshes))
    for place, name in enumerate(names):
        own = [r for r in refreshes if r.segment == name]
        colour, style = PALETTE[place % len(PALETTE)], STYLES[place // len(PALETTE) % len(STYLES)]
        at: Any = [r.at for r in own]
        ax.plot(
            at, [r.size for r in own], color=colour, linestyle=style, marker="o", markersize=4,
            label=as_text(name),
        )  # fmt: skip
    ax.set_ylim(bottom=0)
    ax.set_ylabel("members", fontsize=9)
    ax.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    dress(ax, grid="y")
    _dates(ax)
    title(drawn, f"{len(names)} segment{'s' if len(names) > 1 else ''} over time", "members at each refresh")
    return drawn


def _dates(ax) -> None:
    locator = AutoDateLocator(minticks=3, maxticks=8)
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def _width(refreshes: Sequence[Refresh]) -> float:
    """Of a bar, in days: half of the shortest time between two refreshes."""
    gaps = [(b.at - a.at).total_seconds() / 86_400 for a, b in pairwise(refreshes) if b.at > a.at]
    return 0.5 * min(gaps, default=2.0)

"""How are the findings of the ablation shown? A table on the screen, the same in a Markdown file, and a picture."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.contributions import (
    ADDED,
    ALL,
    BASE,
    LEFT_OUT,
    NOISE,
    SHOWN,
    Judgement,
    improvement,
    verdict,
)
from foretell.console import table
from foretell.errors import DataError
from foretell.pictures import BLUE, FAINT, GREY, INK, ORANGE, as_text, canvas, dress, title
from training.metrics import METRICS, Difference, Metric

BEGIN, END = "<!-- ablation -->", "<!-- /ablation -->"
WAYS = {ADDED: "added", LEFT_OUT: "left out"}
THOUSAND = 1_000  # what has no unit differs in the third place: it is shown in thousandths


@dataclass(frozen=True)
class Measured:
    """What was found in one project.

    features: group -> how many. cpu: group (and BASE, ALL) -> CPU seconds at one cutoff. tests: task -> its test
    cutoffs. rows: task -> (rows learned from, rows predicted), over all its test cutoffs.
    """

    project: str
    features: Mapping[str, int]
    cpu: Mapping[str, float]
    tests: Mapping[str, Sequence[datetime]]
    rows: Mapping[str, tuple[int, int]]
    tasks: Mapping[str, Judgement]

    def cost(self, group: str) -> float | None:
        """What building the group takes, as a share of the base; None for what is not built."""
        return self.cpu[group] / self.cpu[BASE] if group in self.cpu else None

    def as_json(self) -> dict[str, Any]:
        groups = next(iter(self.tasks.values())).differences
        return {
            "cutoffs": {task: [f"{T:%Y-%m-%d}" for T in tests] for task, tests in self.tests.items()},
            "rows": {task: {"learned": a, "predicted": b} for task, (a, b) in self.rows.items()},
            "values": {task: judged.values for task, judged in self.tasks.items()},
            "groups": {
                group: {
                    "features": self.features.get(group), "cpu_s": self.cpu.get(group), "cost": self.cost(group),
                    "verdict": verdict(self.tasks, group)[0], "for": verdict(self.tasks, group)[1],
                    "differences": {task: judged.differences[group] for task, judged in self.tasks.items()},
                } for group in groups
            },
        }  # fmt: skip


def _scale(metric: Metric) -> int:
    return 1 if metric.unit == "label" else THOUSAND


def _metrics(judged: Judgement) -> list[Metric]:
    return [METRICS[judged.kind][name] for name in SHOWN[judged.kind]]


def _cell(found: Difference, metric: Metric, *, bold: str = "") -> str:
    """ "+1.2 [−0.3, +2.7]"; bold: what is put around a difference beyond chance."""
    places = 1 if _scale(metric) == THOUSAND else 2
    value, low, high = (f"{number * _scale(metric):+.{places}f}" for number in found)
    mark = bold if found.low > 0 or found.high < 0 else ""
    return f"{mark}{value}{mark} [{low}, {high}]"


def lines(measured: Measured, *, bold: str = "") -> tuple[list[str], list[list[str]]]:
    """The header and the rows of a project's table: the base's own values, then two rows for each group."""
    head = ["group", "features", "cost", ""]
    first = [BASE, str(measured.features[BASE]), "1.00", "its values"]
    for task, judged in measured.tasks.items():
        for metric in _metrics(judged):
            head.append(f"{task} {metric.name.replace('_', ' ')} {'↑' if metric.greater else '↓'}")
            first.append(f"{judged.values[BASE][metric.name]:,.4g}")
    rows = [[*first, ""]]
    groups = next(iter(measured.tasks.values())).differences
    for group in sorted(groups, key=lambda g: (g == NOISE, g == ALL)):
        cost, (word, tasks) = measured.cost(group), verdict(measured.tasks, group)
        for way in groups[group]:
            own = [group, str(measured.features.get(group, "")), "" if cost is None else f"{cost:.2f}"]
            cells = [
                _cell(judged.differences[group][way][metric.name], metric, bold=bold)
                for judged in measured.tasks.values()
                for metric in _metrics(judged)
            ]
            ruled = f"{word}: {', '.join(tasks)}" if tasks else word
            rows.append([*own, WAYS[way], *cells, ruled] if way == ADDED else ["", "", "", WAYS[way], *cells, ""])
    return [*head, "verdict"], rows


def show(measured: Measured) -> None:
    """Print a project's table."""
    print(f"\n{measured.project}: with the group less without it; AUC, log loss and Gini in thousandths")
    head, rows = lines(measured, bold="*")
    table(head, rows)


def markdown(measured: Measured) -> str:
    """A project's table, beneath a line that says what it was measured on."""
    head, rows = lines(measured, bold="**")
    said = []
    for task, tests in measured.tests.items():
        learned, predicted = measured.rows[task]
        when = f"{len(tests)} cutoffs, {min(tests):%Y-%m-%d} … {max(tests):%Y-%m-%d}"
        said.append(f"{task} at {when} ({learned:,} rows learned from, {predicted:,} predicted)")
    shown = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
    return f"### {measured.project}\n\n{'; '.join(said)}.\n\n" + "\n".join(shown)


def picture(found: Sequence[Measured]) -> Figure:
    """Improvement of each task's own metric by group, with its interval: a row of panels for each project."""
    wide = max(len(measured.tasks) for measured in found)
    groups = {m.project: [*next(iter(m.tasks.values())).differences][::-1] for m in found}
    heights = [len(groups[m.project]) + 3 for m in found]
    drawn = canvas(3.6 * wide + 1, 0.8 + 0.24 * sum(heights))
    panels = drawn.subplots(len(found), wide, squeeze=False, height_ratios=heights)
    for measured, row in zip(found, panels, strict=True):
        names = groups[measured.project]
        for ax, (task, judged) in zip(row, measured.tasks.items(), strict=False):
            metric = METRICS[judged.kind][judged.metric]
            for way, colour, up in ((ADDED, BLUE, 0.16), (LEFT_OUT, ORANGE, -0.16)):
                for place, group in enumerate(names):
                    if way in judged.differences[group]:
                        better = improvement(judged.differences[group][way][judged.metric], metric)
                        value, low, high = (number * _scale(metric) for number in better)
                        ax.plot([low, high], [place + up] * 2, color=colour, linewidth=1.6)
                        ax.plot([value], [place + up], "o", color=colour, markersize=4)
            ax.axvline(0, color=GREY, linewidth=1, zorder=0)
            ax.axhspan(-0.5, names.index(NOISE) + 0.5, color=FAINT, alpha=0.5, zorder=0)
            ax.set_yticks(range(len(names)), [as_text(name) for name in names] if ax is row[0] else [""] * len(names))
            unit = "" if _scale(metric) == 1 else ", thousandths"
            ax.set_xlabel(
                as_text(f"{measured.project}, {task}: better {metric.title.lower()}{unit}"), fontsize=8, color=INK
            )
            dress(ax, grid="x")
        for ax in row[len(measured.tasks) :]:
            ax.set_visible(False)
    detail = "Right is better. Blue: added to the base; orange: left out of all. Line: 95%. Noise: drawn numbers"
    title(drawn, "What a group of views adds to the base, and what is lost without it", detail)
    return drawn


def check_target(file: Path) -> None:
    """Refuse a file without the two lines that the tables go between, before anything is measured."""
    if file.exists():
        replaced(file.read_text(), "", str(file))


def replaced(text: str, new: str, where: str) -> str:
    """The text with what stands between the two lines replaced."""
    pattern = re.compile(f"{re.escape(BEGIN)}\n.*?{re.escape(END)}", flags=re.S)
    if (count := len(pattern.findall(text))) != 1:
        problem = f"expected one place between the lines {BEGIN} and {END}, got {count}"
        raise DataError(where, problem, "write the two lines where the tables ought to be")
    return pattern.sub(lambda _: f"{BEGIN}\n{new}\n{END}", text)


def write(file: Path, found: Sequence[Measured], command: str, fits: int) -> None:
    """Put the tables into a Markdown file, which is made if there is none, and the picture beside it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    drawn = file.with_name("ablation.png")
    picture(found).savefig(drawn)
    says = (
        f"Made by `{command}`. Each number: with the group less without it, and its 95% interval over profiles and "
        f"over {fits} seeds at every cutoff; bold is beyond chance. AUC, log loss and Gini are in thousandths, MAE in "
        "the shop's money. *added*: to the base alone; *left out*: of all groups together. Cost: CPU seconds of "
        f"building the view alone, the base being 1. A verdict reads {len(WAYS) * len(found[0].tasks)} intervals, "
        f"those of the tasks' own metrics; `{NOISE}` is a group of drawn numbers, and shows what chance looks like."
    )
    head = f"{textwrap.fill(says, 120, break_on_hyphens=False)}\n\n![What each group brings]({drawn.name})"
    text = file.read_text() if file.exists() else f"# Features\n\nWhat each view is worth.\n\n{BEGIN}\n{END}\n"
    file.write_text(replaced(text, "\n" + "\n\n".join([head, *map(markdown, found)]) + "\n", str(file)))

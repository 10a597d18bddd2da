"""How do our pictures look? Colours, a quiet frame, and a title that says what to see."""

from __future__ import annotations

import textwrap

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, BLACK = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#000000",
)
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, VERMILION, SKY, BLACK)
STYLES = ("-", "--", ":", "-.")
GREY, INK, FAINT = "#8A8A8A", "#262626", "#E4E4E4"
LOW_TO_HIGH = LinearSegmentedColormap.from_list("low_to_high", ["#16337F", "#B5307D", "#F7A024"])
MISSING = "#B4B4B4"


def canvas(width: float, height: float) -> Figure:
    """An empty picture of so many inches."""
    return Figure(figsize=(width, height), dpi=120, layout="constrained", facecolor="white")


def dress(ax: Axes, *, grid: str = "both") -> None:
    """A quiet frame: no box, a faint grid behind the data."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(GREY)
    ax.tick_params(colors=INK, labelsize=9)
    ax.set_axisbelow(True)
    if grid != "none":
        ax.grid(True, axis=grid, color=FAINT, linewidth=0.8)  # pyright: ignore[reportArgumentType]


def title(figure: Figure, says: str, detail: str) -> None:
    """What to see, in bold, and beneath it how to read the picture; wrapped to the width of the figure."""
    width = figure.get_figwidth()
    figure.suptitle(
        textwrap.fill(says, int(9.5 * width)), x=0.015, ha="left", fontsize=12, fontweight="bold", color=INK
    )
    figure.axes[0].set_title(textwrap.fill(detail, int(12 * width)), loc="left", fontsize=9, color="#555555", pad=8)


def as_text(value: str) -> str:
    """A name as text: matplotlib would read what stands between dollar signs as a formula."""
    return value.replace("$", r"\$")

"""Outcomes as a picture: a panel for each topic, a bar for each contender."""

import textwrap
from pathlib import Path

from benchmarks.measure import Outcome
from benchmarks.report import number

COLUMNS = 3
TITLE = 45
"""Characters of a title in one line: what a panel is wide enough for."""
OURS, OTHERS = "#d6604d", "#92a8bf"
WIDE = 30
"""From so many times the smallest on, the largest would leave nothing to be seen of it."""
BAR = 0.24
"""Inches that a bar takes, its gap included: the height of a line of small print."""


def draw(path: Path, outcomes: list[Outcome]) -> None:
    """Write the picture, as the file's name says: .svg or .png."""
    # not at the top: who doesn't draw needs no matplotlib
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    rows = [outcomes[first : first + COLUMNS] for first in range(0, len(outcomes), COLUMNS)]
    heights = [BAR * max(len(outcome.figures) for outcome in row) + 0.8 for row in rows]
    figure = Figure(figsize=(5 * min(COLUMNS, len(outcomes)), sum(heights)), layout="constrained")
    grid = figure.add_gridspec(len(rows), min(COLUMNS, len(outcomes)), height_ratios=heights)
    for line, row in enumerate(rows):
        for column, outcome in enumerate(row):
            panel(figure.add_subplot(grid[line, column]), outcome)
    # text as text, and nothing that differs from run to run: the file is kept under version control
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "skyward"}):
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def panel(axes, outcome: Outcome) -> None:
    """Medians as bars, from the first contender down, with the spread as whiskers."""
    names = [each.contender for each in outcome.figures]
    medians = [each.median for each in outcome.figures]
    spread = [
        [each.median - min(each.samples) for each in outcome.figures],
        [max(each.samples) - each.median for each in outcome.figures],
    ]
    colours = [OURS if "skyward" in name else OTHERS for name in names]
    axes.barh(names, medians, xerr=spread, color=colours, error_kw={"linewidth": 0.7})
    axes.invert_yaxis()
    if max(medians) > WIDE * min(medians) > 0:
        axes.set_xscale("log")
        axes.xaxis.minorticks_off()
    for position, value in enumerate(medians):
        axes.annotate(f" {number(value)}", (value, position), fontsize=6, va="bottom")
    better = "more is better" if outcome.higher_is_better else "less is better"
    axes.set_title(textwrap.fill(outcome.title, TITLE), fontsize=8, loc="left")
    axes.set_xlabel(f"{outcome.unit} ({better})", fontsize=7)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)

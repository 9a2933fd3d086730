"""Outcomes as a picture: a panel for each topic, one below the other, a bar for each contender.

The SVG is written by hand: it can be read on a phone, its colours follow a light or a dark page, its text is
text, and the same figures give the same file.
"""

import math
import textwrap
from collections.abc import Iterator
from html import escape
from pathlib import Path

from benchmarks.measure import Figures, Outcome
from benchmarks.report import better, number

WIDTH, MARGIN = 480, 16
"""User units, about pixels; a phone shows some 340 of them, and 14 px of text are still 10 there."""
TITLE = 52
"""Characters of a title in one line."""
ROW, LINE, GAP = 36, 20, 28
"""Height of a contender, of a line of a title, and between two panels."""
WIDE = 30
"""From so many times the smallest on, the largest would leave nothing to be seen of it: then logarithmic."""
STYLE = """<style>
  svg { --paper: #fff; --edge: #d5dbe1; --ink: #1f2933; --quiet: #55606b; --ours: #c2551a; --theirs: #8ba0b5 }
  @media (prefers-color-scheme: dark) {
    svg { --paper: #1b1e22; --edge: #3a4149; --ink: #e6e9ec; --quiet: #a9b3bc;
          --ours: #f0975a; --theirs: #62788f }
  }
  text { font: 14px system-ui, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; fill: var(--ink) }
  .title { font-size: 15px; font-weight: 600 }
  .unit { fill: var(--quiet); font-size: 13px }
  .value { text-anchor: end }
  .paper { fill: var(--paper); stroke: var(--edge) }
  .ours { fill: var(--ours) }
  .theirs { fill: var(--theirs) }
  line { stroke: var(--ink); stroke-width: 1.2 }
</style>"""


def draw(path: Path, outcomes: list[Outcome]) -> None:
    """Write the picture, an SVG."""
    parts: list[str] = []
    y = MARGIN
    for outcome in outcomes:
        parts += panel(outcome, y)
        y += height(outcome) + GAP
    tall = y - GAP + MARGIN
    path.write_text("\n".join([*opening(tall), *parts, "</svg>\n"]))


def opening(tall: int) -> Iterator[str]:
    """The picture's size, its style and its paper: readable whatever it lies on."""
    size = f'viewBox="0 0 {WIDTH} {tall}" width="{WIDTH}" height="{tall}"'
    yield f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="Benchmarks">'
    yield STYLE
    yield f'<rect class="paper" x="0.5" y="0.5" width="{WIDTH - 1}" height="{tall - 1}" rx="10"/>'


def titles(outcome: Outcome) -> list[str]:
    return textwrap.wrap(outcome.title.replace("`", ""), TITLE)


def height(outcome: Outcome) -> int:
    return LINE * (len(titles(outcome)) + 1) + ROW * len(outcome.figures)


def panel(outcome: Outcome, y: int) -> Iterator[str]:
    """The title, the unit and which way is better, then the contenders."""
    scale, kind = scaled(outcome)
    for line in titles(outcome):
        y += LINE
        yield text("title", MARGIN, y - 6, line)
    y += LINE
    yield text("unit", MARGIN, y - 6, f"{outcome.unit}, {better(outcome)}{kind}")
    for figures in outcome.figures:
        yield from bar(figures, y, scale)
        y += ROW


def bar(figures: Figures, y: int, scale) -> Iterator[str]:
    """The name and the median; below them a bar as long as the median, and the spread as a line."""
    low, middle, high = (scale(x) for x in (min(figures.samples), figures.median, max(figures.samples)))
    colour = "ours" if "skyward" in figures.contender else "theirs"
    yield text("name", MARGIN, y + 15, figures.contender)
    yield text("value", WIDTH - MARGIN, y + 15, number(figures.median))
    yield f'<rect class="{colour}" x="{MARGIN}" y="{y + 20}" width="{middle:.1f}" height="9"/>'
    yield f'<line x1="{MARGIN + low:.1f}" x2="{MARGIN + high:.1f}" y1="{y + 24.5}" y2="{y + 24.5}"/>'


def scaled(outcome: Outcome):
    """How long a value's bar is, and how to say it if that isn't in proportion."""
    values = [value for each in outcome.figures for value in each.samples]
    low, high, room = min(values), max(values), WIDTH - 2 * MARGIN
    if high > WIDE * low > 0:
        floor = low / 2
        return lambda value: room * math.log(value / floor) / math.log(high / floor), ", logarithmic bars"
    return lambda value: room * max(value, 0) / high, ""


def text(kind: str, x: int, y: int, words: str) -> str:
    return f'<text class="{kind}" x="{x}" y="{y}">{escape(words)}</text>'

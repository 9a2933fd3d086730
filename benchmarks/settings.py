"""What a run is asked for on its command line."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from dask.system import CPU_COUNT

from benchmarks.measure import topics

SMALL_SECONDS = 0.2
"""Seconds of one piece of work in a smoke test: long beside a task's overhead of some milliseconds."""
SMALL_DATA = 64
"""By how much data is smaller in a smoke test: megabytes, which still go through shared memory."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What is measured, how often, how long, and where the figures go."""

    topics: tuple[str, ...]
    repeat: int
    seconds: float
    shrink: int
    slots: int
    read: tuple[Path, ...]
    json: Path | None
    markdown: Path | None
    plot: Path | None

    def scaled(self, amount: int) -> int:
        """Of so many elements or rows, those that this run asks for."""
        return amount // self.shrink


def parse(arguments: list[str] | None = None) -> Settings:
    known = topics()
    given = parser(known).parse_args(arguments)
    for topic in given.topics:
        if topic not in known:
            parser(known).error(f"no topic {topic!r}; there is: {', '.join(known)}")
    return Settings(
        tuple(given.topics or known),
        given.repeat,
        SMALL_SECONDS if given.small else 1.0,
        SMALL_DATA if given.small else 1,
        given.slots,
        tuple(given.read),
        given.json,
        given.markdown,
        given.plot,
    )


def parser(known: list[str]) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    made.add_argument("topics", nargs="*", metavar="topic", help=f"default: all of {', '.join(known)}")
    made.add_argument("--repeat", type=positive, default=5, metavar="N", help="default: %(default)s")
    made.add_argument(
        "--slots", type=positive, default=CPU_COUNT, metavar="N", help="default: the cores, %(default)s"
    )
    made.add_argument("--small", action="store_true", help="a smoke test: short work and small data")
    made.add_argument(
        "--read",
        type=Path,
        metavar="FILE",
        action="append",
        default=[],
        help="measure nothing, show what --json wrote; of several files, the last that has a topic counts",
    )
    made.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    made.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there, after the text")
    made.add_argument("--plot", type=Path, metavar="FILE", help="draw the medians there, as SVG")
    return made


def positive(text: str) -> int:
    value = int(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return value

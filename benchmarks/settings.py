"""What a run is asked for on its command line."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from dask.system import CPU_COUNT

from benchmarks.measure import topics

SMALL = 0.2
"""Seconds of one piece of work in a smoke test: long beside a task's overhead of some milliseconds."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What is measured, how often, how long, and where the figures go."""

    topics: tuple[str, ...]
    repeat: int
    seconds: float
    slots: int
    json: Path | None


def parse(arguments: list[str] | None = None) -> Settings:
    known = topics()
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("topics", nargs="*", metavar="topic", help=f"default: all of {', '.join(known)}")
    parser.add_argument("--repeat", type=positive(int), default=5, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--seconds",
        type=seconds,
        default=1.0,
        metavar="S",
        help=f"length of one piece of work; 'small' is {SMALL} (default: %(default)s)",
    )
    parser.add_argument(
        "--slots", type=positive(int), default=CPU_COUNT, metavar="N", help="default: the cores, %(default)s"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single figure there")
    given = parser.parse_args(arguments)
    for topic in given.topics:
        if topic not in known:
            parser.error(f"no topic {topic!r}; there is: {', '.join(known)}")
    return Settings(tuple(given.topics or known), given.repeat, given.seconds, given.slots, given.json)


def positive(kind):
    """A number above zero, as argparse wants its types."""

    def number(text: str):
        value = kind(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"{text} is not above zero")
        return value

    number.__name__ = f"positive {kind.__name__}"
    return number


def seconds(text: str) -> float:
    return SMALL if text == "small" else positive(float)(text)

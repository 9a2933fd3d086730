"""What is to be reached: a number made from a topic's figures, and its bound."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Samples = Mapping[str, Sequence[float]]
"""By contender; the n-th of each were taken in the n-th repeat."""


@dataclass(frozen=True, slots=True)
class Goal:
    """A number that is to be so much at the most, or at the least.

    It isn't judged without the contender `needs`, which may not be installed.
    """

    text: str
    value: Callable[[Samples], float]
    most: float = float("inf")
    least: float = float("-inf")
    needs: str = ""

    @property
    def bound(self) -> str:
        return f"≥ {self.least:g}" if self.most == float("inf") else f"≤ {self.most:g}"


@dataclass(frozen=True, slots=True)
class Finding:
    """A goal, judged."""

    text: str
    value: float
    bound: str
    reached: bool


def judged(goal: Goal, samples: Samples) -> Finding:
    value = goal.value(samples)
    return Finding(goal.text, value, goal.bound, goal.least <= value <= goal.most)


def figure(contender: str) -> Callable[[Samples], float]:
    """The median of a contender."""
    return lambda samples: statistics.median(samples[contender])


def ratio(one: str, other: str) -> Callable[[Samples], float]:
    """The median of the ratios that were taken within a repeat."""
    return lambda samples: statistics.median(
        mine / its for mine, its in zip(samples[one], samples[other], strict=True)
    )


def difference(one: str, other: str) -> Callable[[Samples], float]:
    """The median of the differences within a repeat."""
    return lambda samples: statistics.median(
        mine - its for mine, its in zip(samples[one], samples[other], strict=True)
    )

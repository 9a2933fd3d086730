"""Interleaved repeats of a topic's contenders.

Figures of a shared machine wander by a factor of two within minutes. So all contenders of a topic are set up
first, and each repeat visits all of them, in another order each time: what wanders, wanders for all.
"""

import os
import pkgutil
import random
import statistics
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from importlib import import_module
from types import ModuleType

from benchmarks import topics as package
from benchmarks.goals import Finding, judged, ratio
from benchmarks.timing import Work


@dataclass(frozen=True, slots=True)
class Figures:
    """All figures of one contender, in the order in which they were taken."""

    contender: str
    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.samples)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a topic gave, and when; `load` is the machine's load average before it, to judge the spread by."""

    topic: str
    title: str
    unit: str
    reference: str
    higher_is_better: bool
    figures: tuple[Figures, ...]
    findings: tuple[Finding, ...]
    load: float
    taken: str

    def ratio(self, figures: Figures) -> float:
        """How many times as good as the reference: the median of the ratios taken within a repeat."""
        pair = (figures.contender, self.reference)
        samples = {each.contender: each.samples for each in self.figures}
        return ratio(*(pair if self.higher_is_better else pair[::-1]))(samples)


def topics() -> list[str]:
    """The names of all topics."""
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def measure(name: str, settings) -> Outcome:
    """Set all contenders of a topic up, visit them `settings.repeat` times, take them down."""
    topic = import_module(f"benchmarks.topics.{name}")
    load = os.getloadavg()[0]
    with ExitStack() as stack:
        samples = interleaved(topic.contenders(settings, stack.enter_context), settings.repeat)
    return outcome(name, topic, samples, load)


def interleaved(work: Mapping[str, Work], repeat: int) -> dict[str, list[float]]:
    """Each contender's figures; the first visit of each is a warm-up and counts for nothing."""
    order = list(work)
    shuffle = random.Random(0).shuffle  # another order each time, the same orders in each run
    samples: dict[str, list[float]] = {contender: [] for contender in work}
    for contender in order:
        work[contender]()
    for _ in range(repeat):
        shuffle(order)
        for contender in order:
            samples[contender].append(work[contender]())
    return samples


def outcome(name: str, topic: ModuleType, samples: dict[str, list[float]], load: float) -> Outcome:
    return Outcome(
        topic=name,
        title=(topic.__doc__ or name).splitlines()[0].rstrip("."),
        unit=topic.UNIT,
        reference=topic.REFERENCE,
        higher_is_better=topic.HIGHER_IS_BETTER,
        figures=tuple(Figures(contender, tuple(values)) for contender, values in samples.items()),
        findings=tuple(
            judged(goal, samples)
            for goal in getattr(topic, "GOALS", ())
            if not goal.needs or goal.needs in samples
        ),
        load=load,
        taken=date.today().isoformat(),
    )

"""What is asked of the cluster: a stream of actions drawn from a seed. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import count
from random import Random
from typing import Any

from tests.chaos import work


class Fate(Enum):
    """What becomes of a task if no process is killed."""

    VALUE = "value"
    REFUSAL = "refusal"
    EXIT = "exit"
    SEGFAULT = "segfault"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out of memory"
    CANCELLED = "cancelled"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class Kind:
    """One sort of task.

    Attributes
    ----------
    weight : int
        How often it comes, against the others.
    seconds : tuple of float, optional
        Between these its function gets its second argument.
    exitcode : int, optional
        With which its process ends.
    retries : int
    inputs : int
        How many tasks of their own it depends on, or starts.
    """

    name: str
    function: Callable[..., Any]
    fate: Fate
    weight: int
    seconds: tuple[float, float] | None = None
    exitcode: int | None = None
    retries: int = 0
    inputs: int = 0


KINDS = (
    Kind("quick", work.value, Fate.VALUE, 40),
    Kind("sleeps", work.sleep, Fate.VALUE, 8, (0.1, 2.0)),
    Kind("spins", work.spin, Fate.VALUE, 6, (0.01, 0.2)),
    Kind("depends", work.add, Fate.VALUE, 4, inputs=2),
    Kind("nests", work.nest, Fate.VALUE, 3, inputs=1),
    Kind("secedes", work.step_aside, Fate.VALUE, 3, (0.0, 1.0)),
    Kind("again", work.leave_once, Fate.VALUE, 3, exitcode=work.FIRST_EXIT, retries=1),
    Kind("refuses", work.refuse, Fate.REFUSAL, 4),
    Kind("exits", work.leave, Fate.EXIT, 3, exitcode=work.EXIT),
    Kind("litters", work.litter_and_leave, Fate.EXIT, 2, exitcode=work.LEFT_EXIT),
    Kind("segfaults", work.segfault, Fate.SEGFAULT, 2),
    Kind("late", work.stall, Fate.TIMEOUT, 3),
    Kind("late and littering", work.litter_and_stall, Fate.TIMEOUT, 1),
    Kind("hog", work.hog, Fate.OUT_OF_MEMORY, 1),
    Kind("cancelled", work.stall, Fate.CANCELLED, 4),
    Kind("cancelled late", work.resist, Fate.CANCELLED, 1),
    Kind("cancelled and littering", work.litter_and_stall, Fate.CANCELLED, 1),
    Kind("dropped", work.stall, Fate.DROPPED, 2),
)


@dataclass(frozen=True, slots=True)
class Action:
    """One task to submit.

    Attributes
    ----------
    wait : float
        Seconds to wait before it.
    seconds : float
        How long it takes, or how long it is let live.
    """

    number: int
    kind: Kind
    wait: float
    seconds: float

    @property
    def key(self) -> str:
        return f"{self.kind.name.replace(' ', '_')}-{self.number}"


#: Seconds from one task to the next, on the average: some half of what two cores can do.
_PACE = 0.05
#: Seconds that a task has which is to be stopped.
_PATIENCE = (0.05, 0.8)


def actions(chance: Random) -> Iterator[Action]:
    """Tasks without an end."""
    weights = [kind.weight for kind in KINDS]
    for number in count():
        (kind,) = chance.choices(KINDS, weights)
        wait = chance.expovariate(1 / _PACE)
        yield Action(number, kind, wait, round(chance.uniform(*(kind.seconds or _PATIENCE)), 3))

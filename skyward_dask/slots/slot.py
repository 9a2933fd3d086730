"""A slot: its index, the child that holds it, the one that comes next, and its counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from skyward_dask.slots.child_process import ChildProcess
from skyward_dask.slots.lifecycle import State
from skyward_dask.slots.statistics import SlotStatistics

#: A child in one of these states holds no slot.
AWAY = (State.GONE, State.LEAVING)


@dataclass(slots=True, eq=False)
class Slot:
    """A place for one child at a time, and for its successor, if there is one already.

    `wanted` says whether the slot must have a child.
    """

    index: int
    wanted: bool
    child: ChildProcess | None = None
    successor: ChildProcess | None = None
    tasks_done: int = 0
    crashes: int = 0
    kills: int = 0

    def let_go(self) -> None:
        """Let go of children that are away; the successor moves up."""
        if self.child is not None and self.child.state in AWAY:
            self.child = None
        if self.successor is not None and self.successor.state in AWAY:
            self.successor = None
        if self.child is None:
            self.child, self.successor = self.successor, None

    @property
    def lacks_child(self) -> bool:
        """Whether it has no child that will get another run."""
        return self.child is None or (self.successor is None and self.child.is_ending)

    def take(self, child: ChildProcess) -> None:
        """Hold a new child."""
        if self.child is None:
            self.child = child
        else:
            self.successor = child

    @property
    def is_idle(self) -> bool:
        """Whether its child can be given a run."""
        return self.child is not None and self.child.state is State.IDLE

    def snapshot(self, usage: Callable[[int], tuple[int, float]]) -> SlotStatistics:
        child = self.child
        return SlotStatistics(
            self.index,
            child.state.value if child else "vacant",
            child.pid or None if child else None,
            child.run.key if child and child.run else None,
            self.tasks_done,
            self.crashes,
            self.kills,
            *(usage(child.pid) if child and child.pid else (0, 0.0)),
        )

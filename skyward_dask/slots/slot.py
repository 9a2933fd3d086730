"""A slot: an index, the child that holds it, the one that comes next, and what was counted there."""

from __future__ import annotations

from dataclasses import dataclass

import psutil

from skyward_dask.slots.child_process import ChildProcess
from skyward_dask.slots.lifecycle import State

#: A child in one of these states holds no slot.
AWAY = (State.GONE, State.LEAVING)


@dataclass(frozen=True, slots=True)
class SlotSnapshot:
    """One slot at one moment.

    Attributes
    ----------
    index : int
    state : str
        ``"vacant"`` or a `lifecycle.State` of its child: ``"starting"``, ``"idle"``, ``"busy"``, …
    pid : int or None
    task : str or None
        The key of the task that runs.
    tasks_done, crashes, kills : int
        Counted since the pool was made.
    memory : int
        Resident bytes of the child's process.
    cpu : float
        CPU seconds of the present child.
    """

    index: int
    state: str
    pid: int | None
    task: str | None
    tasks_done: int
    crashes: int
    kills: int
    memory: int
    cpu: float


@dataclass(slots=True, eq=False)
class Slot:
    """A place for one child at a time, and for the next one where it is known that there will be one.

    `wanted`: a child is kept in it.
    """

    index: int
    wanted: bool
    child: ChildProcess | None = None
    successor: ChildProcess | None = None
    tasks_done: int = 0
    crashes: int = 0
    kills: int = 0

    def let_go(self) -> None:
        """Hold children no longer that are away; the successor moves up."""
        if self.child is not None and self.child.state in AWAY:
            self.child = None
        if self.successor is not None and self.successor.state in AWAY:
            self.successor = None
        if self.child is None:
            self.child, self.successor = self.successor, None

    @property
    def lacks_child(self) -> bool:
        """Whether it has none that will have another run."""
        return self.child is None or (self.successor is None and self.child.is_ending)

    def take(self, child: ChildProcess) -> None:
        """Hold a child that is new."""
        if self.child is None:
            self.child = child
        else:
            self.successor = child

    @property
    def is_idle(self) -> bool:
        """Whether its child can be given a run."""
        return self.child is not None and self.child.state is State.IDLE

    def snapshot(self) -> SlotSnapshot:
        child = self.child
        return SlotSnapshot(
            self.index,
            child.state.value if child else "vacant",
            child.pid or None if child else None,
            child.run.key if child and child.run else None,
            self.tasks_done,
            self.crashes,
            self.kills,
            *_usage(child.pid if child else 0),
        )


def _usage(pid: int) -> tuple[int, float]:
    """Resident bytes and CPU seconds of a process; zeros for one that is gone."""
    if not pid:
        return 0, 0.0
    try:
        process = psutil.Process(pid)
        times = process.cpu_times()
        return process.memory_info().rss, times.user + times.system
    except psutil.Error:
        return 0, 0.0

"""Short runs are kept to a few children, whose caches are warm.

A child that last ran thirty runs ago takes twice as long for a small task as one that has just ended another,
and has to be woken for it. So while runs are short, one that comes waits until one of a few children is free:
that takes less time than to wake another child. If none of them is free soon, the runs aren't short any more.
One that takes longer than the others doesn't count among the few.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from skyward_dask.slots.runs import Run

#: How many children have short runs at once: more than a loop can keep busy with runs of `_SHORT`.
_FEW = 8
#: Seconds: a loop takes about half as long to begin a run and to take its outcome.
_SHORT = 0.001
#: Seconds for which a run waits for a warm child, at most: a turn of a busy loop takes as long.
_PATIENCE = 0.005
#: Seconds after which a run isn't one of the short ones, even if the loop has been busy meanwhile.
_LASTING = 4 * _PATIENCE


class FewChildren:
    """Decides whether a run may begin in a further child. For the pool's loop.

    Parameters
    ----------
    loop : asyncio.AbstractEventLoop
    changed : callable
        Called when runs that were kept back may begin.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, changed: Callable[[], None]) -> None:
        self._loop, self._changed = loop, changed
        self._are_short = self._has_ended = False
        self._under_way: dict[Run, float] = {}  # those that may end soon, and when they began
        self._look: asyncio.TimerHandle | None = None

    @property
    def may_begin(self) -> bool:
        """Whether a run may begin now; if not, `changed` is called when it may."""
        if not self._are_short or len(self._under_way) < _FEW:
            return True
        if self._look is None:
            self._has_ended = False
            self._look = self._loop.call_later(_PATIENCE, self._look_again)
        return False

    def begun(self, run: Run) -> None:
        self._under_way[run] = self._loop.time()

    def ended(self, run: Run, seconds: float) -> None:
        """A run has ended, and its child had it for so long."""
        self._under_way.pop(run, None)
        self._are_short, self._has_ended = seconds < _SHORT, True

    def lost(self, run: Run) -> None:
        """A run's child is dead."""
        self._under_way.pop(run, None)

    def _look_again(self) -> None:
        self._look = None
        self._are_short = self._are_short and self._has_ended
        since = self._loop.time() - (_LASTING if self._are_short else 0.0)
        self._under_way = {run: begun for run, begun in self._under_way.items() if begun > since}
        self._changed()

"""What a task leaves behind in its process that would end the next one there: timers, and SIGINT's handler.

Everything else stays, as in any process that runs one task after the other: modules, the environment,
handlers of other signals.
"""

from __future__ import annotations

import faulthandler
import signal

_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)


class Leftovers:
    """Knows the process as it was before its first task, and clears up after each.

    Notes
    -----
    For the main thread.
    """

    def __init__(self) -> None:
        # what an initializer has set going, a profiler say, stays
        self._timers = [timer for timer in _TIMERS if signal.getitimer(timer) == (0, 0)]
        self._handler = signal.getsignal(signal.SIGINT)

    def clear(self) -> None:
        """A task has ended: stop what it has set going (`signal.alarm` too)."""
        for timer in self._timers:
            signal.setitimer(timer, 0)
        faulthandler.cancel_dump_traceback_later()
        if signal.getsignal(signal.SIGINT) is not self._handler:
            signal.signal(signal.SIGINT, self._handler)

"""What a task leaves behind that would end the next task in its process: timers, and SIGINT's handler.

Everything else stays, as in any process that runs one task after another: modules, the environment, handlers
of other signals.
"""

from __future__ import annotations

import faulthandler
import signal
from importlib import import_module

#: `signal.getsignal` looks each handler up in an enum, which takes longer than a task's timers.
_handler_of = import_module("_signal").getsignal
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)


class Leftovers:
    """Remembers the process as it was before its first task, and cleans up after each task.

    Notes
    -----
    For the main thread only.
    """

    def __init__(self) -> None:
        # timers that an initializer has started, such as a profiler's, stay
        self._timers = [timer for timer in _TIMERS if signal.getitimer(timer) == (0, 0)]
        self._handler = _handler_of(signal.SIGINT)

    def clear(self) -> None:
        """A task has ended: stop the timers that it started (`signal.alarm` too)."""
        for timer in self._timers:
            signal.setitimer(timer, 0)
        faulthandler.cancel_dump_traceback_later()
        if _handler_of(signal.SIGINT) is not self._handler:
            signal.signal(signal.SIGINT, self._handler)

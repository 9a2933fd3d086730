"""What a child, its worker and its template share: the state of the child's run, which run must stop, the
run's limits and whether it was found over them, and faulthandler's stacks.

Each child has one memfd (an unlinked file where there are no memfds). All three processes map its first page,
which holds a few numbers, so that neither a full socket nor a held GIL comes between them; faulthandler
writes after that page, at the descriptor's offset.
"""

from __future__ import annotations

import ctypes
import faulthandler
import mmap
import os
import signal
import struct
import tempfile
from dataclasses import dataclass
from time import monotonic

from skyward_dask.slots.features import Feature, available

#: Has faulthandler write all threads' stacks to the shared page even if one of them doesn't release the GIL.
#: A real-time signal, where there are any, because programs hardly use them. The third: arbitrary.
STACK_SIGNAL: int = signal.SIGRTMIN + 3 if hasattr(signal, "SIGRTMIN") else signal.SIGUSR2
_SIZE = mmap.PAGESIZE
_NUMBER = struct.Struct("<Q")
_MOMENT = struct.Struct("<d")
_LIMITS = struct.Struct("<QdQ")
_OVERRUN = struct.Struct("<QQQQ")
# offsets in the page; one process writes each, and the others read it
_BEGUN, _STOP, _CALLED, _ENDED, _LISTENER, _LOOK, _LOOK_BEGIN, _LOOK_END, _WATCHED = range(0, 72, 8)
_LIMITED, _CONDEMNED = 128, 192
#: The most bytes of stacks that are read: about fifty threads' worth.
_STACK_LIMIT = 64 * 1024
#: Seconds without another word after which what faulthandler writes from a signal handler is complete: the
#: process may have lost its turn in between.
SILENCE = 0.03
#: Bytes of stacks after which they are written from the start again: arbitrary, about a hundred looks' worth.
_STACKS_LIMIT = 1 << 20


def _unnamed_file() -> int:
    if available(Feature.MEMFD):
        return os.memfd_create("skyward-slot", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a run: its number, seconds, bytes; 0 for no limit."""

    run: int
    timeout: float
    memory: int


@dataclass(frozen=True, slots=True)
class Overrun:
    """What a template found about a run over a limit: its bytes, or 0 if it timed out; its stacks."""

    peak: int
    stack: str


class Page:
    """What one process writes and the others read, even after the child's death.

    Parameters
    ----------
    fd : int, optional
        The descriptor that the child was given; without it, a new file is made.
    """

    def __init__(self, fd: int | None = None) -> None:
        self.fd = _unnamed_file() if fd is None else fd
        if fd is None:
            os.ftruncate(self.fd, _SIZE)
            os.lseek(self.fd, _SIZE, os.SEEK_SET)
        self._map = mmap.mmap(self.fd, _SIZE)

    def _get(self, place: int) -> int:
        number: int = _NUMBER.unpack_from(self._map, place)[0]
        return number

    def _set(self, place: int, number: int) -> None:
        _NUMBER.pack_into(self._map, place, number)

    @property
    def begun(self) -> int:
        """The number of the run that the child began last; 0 before its first."""
        return self._get(_BEGUN)

    @begun.setter
    def begun(self, number: int) -> None:
        self._set(_BEGUN, number)

    @property
    def called(self) -> float:
        """When the run's function was called, by the clock of `time.monotonic`; 0 if it hasn't been yet."""
        moment: float = _MOMENT.unpack_from(self._map, _CALLED)[0]
        return moment

    @called.setter
    def called(self, moment: float) -> None:
        _MOMENT.pack_into(self._map, _CALLED, moment)

    @property
    def ended(self) -> int:
        """The number of the run that last got its outcome, set before the outcome is sent."""
        return self._get(_ENDED)

    @ended.setter
    def ended(self, number: int) -> None:
        self._set(_ENDED, number)

    @property
    def stop(self) -> int:
        """The number of the run that must stop; 0 for none."""
        return self._get(_STOP)

    @stop.setter
    def stop(self, number: int) -> None:
        self._set(_STOP, number)

    @property
    def listener(self) -> int:
        """The kernel's id of the child's thread that is never the task's; 0 before that has started."""
        return self._get(_LISTENER)

    @listener.setter
    def listener(self, thread: int) -> None:
        self._set(_LISTENER, thread)

    # --- limits, which the worker enforces, or else the template -------------------------------------

    def set_limits(self, limits: Limits) -> None:
        """A run that has limits is about to be sent."""
        self.watched = monotonic()
        _LIMITS.pack_into(self._map, _LIMITED, limits.run, limits.timeout, limits.memory)

    def limits(self) -> Limits | None:
        """The limits of the run that is under way."""
        limits = Limits(*_LIMITS.unpack_from(self._map, _LIMITED))
        return limits if limits.run == self.begun and limits.run != self.ended else None

    @property
    def watched(self) -> float:
        """When the worker last looked at the memory of the run; by the clock of `time.monotonic`."""
        moment: float = _MOMENT.unpack_from(self._map, _WATCHED)[0]
        return moment

    @watched.setter
    def watched(self, moment: float) -> None:
        _MOMENT.pack_into(self._map, _WATCHED, moment)

    def condemn(self, peak: int) -> None:
        """The run that the child has begun is over a limit: `peak` is its bytes, or 0 if it timed out."""
        _OVERRUN.pack_into(self._map, _CONDEMNED, self.begun, peak, 0, 0)

    def add_stacks(self, begin: int, end: int) -> None:
        """The condemned run's stacks were written between these offsets."""
        number, peak, _, _ = _OVERRUN.unpack_from(self._map, _CONDEMNED)
        _OVERRUN.pack_into(self._map, _CONDEMNED, number, peak, begin, end)

    def overrun(self, number: int) -> Overrun | None:
        """What was found about the run with that number, if it was condemned."""
        condemned, peak, begin, end = _OVERRUN.unpack_from(self._map, _CONDEMNED)
        return Overrun(peak, self._text(begin, end)) if condemned == number else None

    # --- stacks --------------------------------------------------------------------------------------

    @property
    def looked(self) -> int:
        """The number of the last look that `tell_stacks` has answered."""
        return self._get(_LOOK)

    def tell_stacks(self, number: int) -> None:
        """Have faulthandler write the stacks of all threads of this process; the calling one has the GIL."""
        if self.written() > _STACKS_LIMIT:
            os.ftruncate(self.fd, _SIZE)
            os.lseek(self.fd, _SIZE, os.SEEK_SET)
        self._set(_LOOK_BEGIN, self.written())
        faulthandler.dump_traceback(self.fd)
        self._set(_LOOK_END, self.written())
        self._set(_LOOK, number)

    def told_stacks(self) -> str:
        """What `tell_stacks` wrote last."""
        return self._text(self._get(_LOOK_BEGIN), self._get(_LOOK_END))

    def last_words(self, since: int) -> str:
        """What faulthandler wrote of a crash: after all that was requested, by a look or up to an offset."""
        return self.stack(max(self._get(_LOOK_END), since if since <= self.written() else _SIZE))

    def copy(self) -> Page:
        """The same page on a descriptor of its own."""
        return Page(os.dup(self.fd))

    def written(self) -> int:
        """How far faulthandler has written: an offset that both ends share."""
        return os.lseek(self.fd, 0, os.SEEK_CUR)

    def stack(self, since: int) -> str:
        """What faulthandler wrote from an offset on: Python stacks, else nothing."""
        return self._text(since, since + _STACK_LIMIT)

    def _text(self, begin: int, end: int) -> str:
        return os.pread(self.fd, min(end - begin, _STACK_LIMIT), begin).decode(errors="replace")

    def close(self) -> None:
        self._map.close()
        os.close(self.fd)


def signal_listener(pid: int, page: Page) -> bool:
    """Have faulthandler write all stacks from a signal handler in a child's listener; False if it can't."""
    libc = ctypes.CDLL(None)
    if not page.listener or not hasattr(libc, "tgkill"):
        return False
    libc.tgkill(pid, page.listener, STACK_SIGNAL)
    return True

"""What a child, its worker and its template share: the state of the child's run, which run must stop, the
run's limits and whether it was found over them, and faulthandler's stacks.

Each child has one memfd (an unlinked file where there are no memfds). All three processes map its beginning:
a page with a few numbers, so that neither a full socket nor a held GIL comes between them, and the items that
a run which yields hasn't sent yet. Faulthandler writes after that, at the descriptor's offset.
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
from typing import Generic, TypeVar

from skyward_dask.slots.features import Feature, available

T = TypeVar("T", int, float)

#: Has faulthandler write all threads' stacks to the shared page even if one of them doesn't release the GIL.
#: A real-time signal, where there are any, because programs hardly use them. The third: arbitrary.
STACK_SIGNAL: int = signal.SIGRTMIN + 3 if hasattr(signal, "SIGRTMIN") else signal.SIGUSR2
#: Room for items that wait to be sent together.
_ITEMS_SIZE = 64 * 1024
_SIZE = mmap.PAGESIZE + _ITEMS_SIZE
_LIMITS = struct.Struct("QdQ")
_OVERRUN = struct.Struct("QQQQ")
_GRANTED = struct.Struct("QQQ")
#: Where they are in the page, behind its single numbers.
_LIMITED, _CONDEMNED, _STREAM = 128, 192, 256
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


class _Number(Generic[T]):
    """An attribute that is a number in the page: one process writes it, and the others read it.

    Parameters
    ----------
    offset : int
        Where it is, in bytes.
    layout : str
        Its format; native, so that it is written as a whole: nobody reads half of it.
    """

    def __init__(self, offset: int, layout: str) -> None:
        self._offset, self._struct = offset, struct.Struct(layout)

    def __get__(self, page: Page, owner: type[Page]) -> T:
        number: T = self._struct.unpack_from(page.map, self._offset)[0]
        return number

    def __set__(self, page: Page, number: T) -> None:
        self._struct.pack_into(page.map, self._offset, number)


class Page:
    """What one process writes and the others read, even after the child's death.

    Parameters
    ----------
    fd : int, optional
        The descriptor that the child was given; without it, a new file is made.

    Attributes
    ----------
    begun : int
        The number of the run that the child began last; 0 before its first.
    stop : int
        The number of the run that must stop; 0 for none.
    called : float
        When the run's function was called, by the clock of `time.monotonic`; 0 if it hasn't been yet.
    ended : int
        The number of the run that last got its outcome, set before the outcome is sent.
    listener : int
        The kernel's id of the child's thread that is never the task's; 0 before that has started.
    looked : int
        The number of the last look that `tell_stacks` has answered.
    watched : float
        When the worker last looked at the memory of the run; by the clock of `time.monotonic`.
    items_sent : int
        How many items of the run have been sent together with others.
    """

    begun = _Number[int](0, "Q")
    stop = _Number[int](8, "Q")
    called = _Number[float](16, "d")
    ended = _Number[int](24, "Q")
    listener = _Number[int](32, "Q")
    looked = _Number[int](40, "Q")
    _look_begin = _Number[int](48, "Q")
    _look_end = _Number[int](56, "Q")
    watched = _Number[float](64, "d")
    items_sent = _Number[int](72, "Q")
    _waiting = _Number[int](80, "Q")

    def __init__(self, fd: int | None = None) -> None:
        self.fd = _unnamed_file() if fd is None else fd
        if fd is None:
            os.ftruncate(self.fd, _SIZE)
            os.lseek(self.fd, _SIZE, os.SEEK_SET)
        self.map = mmap.mmap(self.fd, _SIZE)

    # --- limits, which the worker enforces, or else the template -------------------------------------

    def set_limits(self, limits: Limits) -> None:
        """A run that has limits is about to be sent."""
        self.watched = monotonic()
        _LIMITS.pack_into(self.map, _LIMITED, limits.run, limits.timeout, limits.memory)

    def limits(self) -> Limits | None:
        """The limits of the run that is under way."""
        limits = Limits(*_LIMITS.unpack_from(self.map, _LIMITED))
        return limits if limits.run == self.begun and limits.run != self.ended else None

    def condemn(self, peak: int) -> None:
        """The run that the child has begun is over a limit: `peak` is its bytes, or 0 if it timed out."""
        _OVERRUN.pack_into(self.map, _CONDEMNED, self.begun, peak, 0, 0)

    def add_stacks(self, begin: int, end: int) -> None:
        """The condemned run's stacks were written between these offsets."""
        number, peak, _, _ = _OVERRUN.unpack_from(self.map, _CONDEMNED)
        _OVERRUN.pack_into(self.map, _CONDEMNED, number, peak, begin, end)

    def overrun(self, number: int) -> Overrun | None:
        """What was found about the run with that number, if it was condemned."""
        condemned, peak, begin, end = _OVERRUN.unpack_from(self.map, _CONDEMNED)
        return Overrun(peak, self._text(begin, end)) if condemned == number else None

    # --- a run that yields ---------------------------------------------------------------------------

    def set_granted(self, items: int, nbytes: int, is_closing: bool) -> None:
        """The run may send that many items and bytes, in total; or it must close its generator."""
        _GRANTED.pack_into(self.map, _STREAM, items, nbytes, is_closing)

    def granted(self) -> tuple[int, int, bool]:
        """What `set_granted` has set last."""
        items, nbytes, is_closing = _GRANTED.unpack_from(self.map, _STREAM)
        return items, nbytes, bool(is_closing)

    def add_item(self, block: bytes) -> int:
        """Keep an item until it is sent, even if the child dies; returns the bytes that are kept.

        It comes after those that are kept. Returns 0 if there is no room.
        """
        begin = mmap.PAGESIZE + self._waiting
        end = begin + len(block)
        if end > _SIZE:
            return 0
        self.map[begin:end] = block
        self._waiting = end - mmap.PAGESIZE
        return self._waiting

    def waiting_items(self) -> bytes:
        """The items that are kept."""
        return self.map[mmap.PAGESIZE : mmap.PAGESIZE + self._waiting]

    def have_sent(self, count: int) -> None:
        """So many items were kept, and have been sent: in between, the worker sees them twice."""
        self._waiting = 0
        self.items_sent += count

    def begin_stream(self) -> None:
        """The run begins to yield."""
        self._waiting = self.items_sent = 0

    # --- stacks --------------------------------------------------------------------------------------

    def tell_stacks(self, number: int) -> None:
        """Have faulthandler write the stacks of all threads of this process; the calling one has the GIL."""
        if self.written() > _STACKS_LIMIT:
            os.ftruncate(self.fd, _SIZE)
            os.lseek(self.fd, _SIZE, os.SEEK_SET)
        self._look_begin = self.written()
        faulthandler.dump_traceback(self.fd)
        self._look_end = self.written()
        self.looked = number

    def told_stacks(self) -> str:
        """What `tell_stacks` wrote last."""
        return self._text(self._look_begin, self._look_end)

    def last_words(self, since: int) -> str:
        """What faulthandler wrote of a crash: after all that was requested, by a look or up to an offset."""
        return self.stack(max(self._look_end, since if since <= self.written() else _SIZE))

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
        self.map.close()
        os.close(self.fd)


def signal_listener(pid: int, page: Page) -> bool:
    """Have faulthandler write all stacks from a signal handler in a child's listener; False if it can't."""
    libc = ctypes.CDLL(None)
    if not page.listener or not hasattr(libc, "tgkill"):
        return False
    libc.tgkill(pid, page.listener, STACK_SIGNAL)
    return True

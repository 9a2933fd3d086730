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
import tempfile
from dataclasses import dataclass
from time import monotonic
from typing import Any, Generic, TypeVar

from skyward_dask.slots.features import Feature, available

T = TypeVar("T", int, float)

#: Has faulthandler write all threads' stacks to the shared page even if one of them doesn't release the GIL.
#: A real-time signal, where there are any, because programs hardly use them. The third: arbitrary.
STACK_SIGNAL: int = signal.SIGRTMIN + 3 if hasattr(signal, "SIGRTMIN") else signal.SIGUSR2
#: Room for items that wait to be sent together.
_ITEMS_SIZE = 64 * 1024
_SIZE = mmap.PAGESIZE + _ITEMS_SIZE
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
    index : int
        Its place among the page's numbers, of eight bytes each.
    layout : str
        Its format in a memoryview, which writes it as a whole: nobody reads half of it, or the zeros that
        `struct.pack_into` writes first.
    """

    def __init__(self, index: int, layout: str) -> None:
        self._index, self._layout = index, layout

    def __get__(self, page: Page, owner: type[Page]) -> T:
        number: T = page.numbers[self._layout][self._index]
        return number

    def __set__(self, page: Page, number: T) -> None:
        page.numbers[self._layout][self._index] = number


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
    numbers : dict of memoryview
        The page as numbers, by their format.
    """

    begun = _Number[int](0, "Q")
    stop = _Number[int](1, "Q")
    called = _Number[float](2, "d")
    ended = _Number[int](3, "Q")
    listener = _Number[int](4, "Q")
    looked = _Number[int](5, "Q")
    _look_begin = _Number[int](6, "Q")
    _look_end = _Number[int](7, "Q")
    watched = _Number[float](8, "d")
    _limited = _Number[int](9, "Q")
    _timeout = _Number[float](10, "d")
    _memory = _Number[int](11, "Q")
    _condemned = _Number[int](12, "Q")
    _peak = _Number[int](13, "Q")
    _stacks_begin = _Number[int](14, "Q")
    _stacks_end = _Number[int](15, "Q")
    _granted_items = _Number[int](16, "Q")
    _granted_bytes = _Number[int](17, "Q")
    _is_closing = _Number[int](18, "Q")
    items_sent = _Number[int](19, "Q")
    _waiting = _Number[int](20, "Q")

    def __init__(self, fd: int | None = None) -> None:
        self.fd = _unnamed_file() if fd is None else fd
        if fd is None:
            os.ftruncate(self.fd, _SIZE)
            os.lseek(self.fd, _SIZE, os.SEEK_SET)
        self._map = mmap.mmap(self.fd, _SIZE)
        view = memoryview(self._map)
        self.numbers: dict[str, memoryview[Any]] = {"Q": view.cast("Q"), "d": view.cast("d")}

    # --- limits, which the worker enforces, or else the template -------------------------------------

    def set_limits(self, limits: Limits) -> None:
        """A run that has limits is about to be sent."""
        self.watched = monotonic()
        self._timeout, self._memory = limits.timeout, limits.memory
        self._limited = limits.run  # last: then the others are there

    def limits(self) -> Limits | None:
        """The limits of the run that is under way."""
        limits = Limits(self._limited, self._timeout, self._memory)
        return limits if limits.run == self.begun and limits.run != self.ended else None

    def condemn(self, peak: int) -> None:
        """The run that the child has begun is over a limit: `peak` is its bytes, or 0 if it timed out."""
        self._peak, self._stacks_begin, self._stacks_end = peak, 0, 0
        self._condemned = self.begun  # last

    def add_stacks(self, begin: int, end: int) -> None:
        """The condemned run's stacks were written between these offsets."""
        self._stacks_begin, self._stacks_end = begin, end

    def overrun(self, number: int) -> Overrun | None:
        """What was found about the run with that number, if it was condemned."""
        if self._condemned != number:
            return None
        return Overrun(self._peak, self._text(self._stacks_begin, self._stacks_end))

    # --- a run that yields ---------------------------------------------------------------------------

    def set_granted(self, items: int, nbytes: int, is_closing: bool) -> None:
        """The run may send that many items and bytes, in total; or it must close its generator."""
        self._granted_items, self._granted_bytes, self._is_closing = items, nbytes, is_closing

    def granted(self) -> tuple[int, int, bool]:
        """What `set_granted` has set last."""
        return self._granted_items, self._granted_bytes, bool(self._is_closing)

    def add_item(self, block: bytes) -> int:
        """Keep an item until it is sent, even if the child dies; returns the bytes that are kept.

        It comes after those that are kept. Returns 0 if there is no room.
        """
        begin = mmap.PAGESIZE + self._waiting
        end = begin + len(block)
        if end > _SIZE:
            return 0
        self._map[begin:end] = block
        self._waiting = end - mmap.PAGESIZE
        return self._waiting

    def waiting_items(self) -> bytes:
        """The items that are kept."""
        return self._map[mmap.PAGESIZE : mmap.PAGESIZE + self._waiting]

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
        for numbers in self.numbers.values():
            numbers.release()
        self._map.close()
        os.close(self.fd)


def signal_listener(pid: int, page: Page) -> bool:
    """Have faulthandler write all stacks from a signal handler in a child's listener; False if it can't."""
    libc = ctypes.CDLL(None)
    if not page.listener or not hasattr(libc, "tgkill"):
        return False
    libc.tgkill(pid, page.listener, STACK_SIGNAL)
    return True

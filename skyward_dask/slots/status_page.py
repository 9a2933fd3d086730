"""What a child and its worker share: the run that has begun, when its function was called, the run to be
stopped, faulthandler's stacks.

One memfd for each child (an unlinked file where there is none). Its first page is mapped at both ends and
holds a few numbers, so that neither a full socket nor a held GIL stands between the two; faulthandler writes
behind it, at the descriptor's offset.
"""

from __future__ import annotations

import faulthandler
import mmap
import os
import signal
import struct
import tempfile

from skyward_dask.slots.features import Feature, available

#: Has faulthandler write all threads' stacks to the shared page though one of them doesn't let go of the GIL.
#: A real-time signal, where there are any: programs hardly use one. The third: arbitrary.
STACK_SIGNAL: int = signal.SIGRTMIN + 3 if hasattr(signal, "SIGRTMIN") else signal.SIGUSR2
_SIZE = mmap.PAGESIZE
_NUMBER = struct.Struct("<Q")
_MOMENT = struct.Struct("<d")
_BEGUN, _STOP, _CALLED, _LISTENER, _LOOK, _LOOK_BEGIN, _LOOK_END = range(0, 7 * _NUMBER.size, _NUMBER.size)
#: Bytes of a stack that are read at the most: some fifty threads' worth.
_STACK_LIMIT = 64 * 1024
#: Bytes of stacks after which they are written from the start again: arbitrary, some hundred looks' worth.
_STACKS_LIMIT = 1 << 20


def _unnamed_file() -> int:
    if available(Feature.MEMFD):
        return os.memfd_create("skyward-slot", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class Page:
    """What one end writes and the other reads, even after the child's death.

    Parameters
    ----------
    fd : int, optional
        The descriptor that the child was given; a new file without it.
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
        """When the run's function was called, by the clock of `time.monotonic`; 0 if it wasn't yet."""
        moment: float = _MOMENT.unpack_from(self._map, _CALLED)[0]
        return moment

    @called.setter
    def called(self, moment: float) -> None:
        _MOMENT.pack_into(self._map, _CALLED, moment)

    @property
    def stop(self) -> int:
        """The number of the run that is to stop; 0 for none."""
        return self._get(_STOP)

    @stop.setter
    def stop(self, number: int) -> None:
        self._set(_STOP, number)

    @property
    def listener(self) -> int:
        """The thread of the child that is never the task's, by the kernel's number; 0 before it is there."""
        return self._get(_LISTENER)

    @listener.setter
    def listener(self, thread: int) -> None:
        self._set(_LISTENER, thread)

    @property
    def looked(self) -> int:
        """The number of the last look to which `tell_stacks` has answered."""
        return self._get(_LOOK)

    def tell_stacks(self, number: int) -> None:
        """Have faulthandler write where all threads of this process stand; the calling one has the GIL."""
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
        """What faulthandler wrote of a crash: behind all that was asked for, by a look or up to an offset."""
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

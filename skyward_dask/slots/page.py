"""What a child and its worker share: the run that has begun, when its function was called, the run to be
stopped, faulthandler's stacks.

One memfd for each child (an unlinked file where there is none). Its first page is mapped at both ends and
holds three numbers, so that neither a full socket nor a held GIL stands between the two; faulthandler writes
behind it, at the descriptor's offset.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile

from skyward_dask.slots.features import Feature, available

_SIZE = mmap.PAGESIZE
_NUMBER = struct.Struct("<Q")
_MOMENT = struct.Struct("<d")
_BEGUN, _STOP, _CALLED = 0, _NUMBER.size, 2 * _NUMBER.size
#: Bytes of a stack that are read at the most: some fifty threads' worth.
_STACK_LIMIT = 64 * 1024


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

    @property
    def begun(self) -> int:
        """The number of the run that the child began last; 0 before its first."""
        number: int = _NUMBER.unpack_from(self._map, _BEGUN)[0]
        return number

    @begun.setter
    def begun(self, number: int) -> None:
        _NUMBER.pack_into(self._map, _BEGUN, number)

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
        number: int = _NUMBER.unpack_from(self._map, _STOP)[0]
        return number

    @stop.setter
    def stop(self, number: int) -> None:
        _NUMBER.pack_into(self._map, _STOP, number)

    def copy(self) -> Page:
        """The same page on a descriptor of its own."""
        return Page(os.dup(self.fd))

    def written(self) -> int:
        """How far faulthandler has written: an offset that both ends share."""
        return os.lseek(self.fd, 0, os.SEEK_CUR)

    def stack(self, since: int) -> str:
        """What faulthandler wrote from an offset on: Python stacks, else nothing."""
        return os.pread(self.fd, _STACK_LIMIT, since).decode(errors="replace")

    def close(self) -> None:
        self._map.close()
        os.close(self.fd)

"""What a child leaves behind when it dies: the run that it had begun, and faulthandler's stack.

One memfd for each child (an unlinked file where there is none), inherited by the child alone. Its first
page is mapped at both ends and holds a number; faulthandler writes behind it, at the descriptor's offset.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile

_SIZE = mmap.PAGESIZE
_NUMBER = struct.Struct("<Q")
#: Bytes of a stack that are read at the most: some fifty threads' worth.
_STACK_LIMIT = 64 * 1024


def _unnamed_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("skyward-slot", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class Page:
    """The child's last words, readable after its death.

    Parameters
    ----------
    fd : int, optional
        The descriptor that the child inherited; a new file without it.
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
        number: int = _NUMBER.unpack_from(self._map)[0]
        return number

    @begun.setter
    def begun(self, number: int) -> None:
        _NUMBER.pack_into(self._map, 0, number)

    def stack(self) -> str:
        """What faulthandler wrote: the Python stacks at a crash in native code, else nothing."""
        return os.pread(self.fd, _STACK_LIMIT, _SIZE).decode(errors="replace")

    def close(self) -> None:
        self._map.close()
        os.close(self.fd)

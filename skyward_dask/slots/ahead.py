"""Calls sent ahead: they lie ready for a child that is busy, so that it goes on without being woken.

```
 caller's thread ─── lay ───▶ datagrams ─── take ──▶ child, after each run
                                  └─── take back ──▶ a thread that has nothing to do
```

The worker keeps the reading end too. Whoever reads a datagram has the call, and the kernel gives it to one of
them: so no call waits behind a long one while a slot is idle, and none is run twice.
"""

from __future__ import annotations

import socket
import struct

_NUMBER = struct.Struct("<Q")
#: Bytes of a call that may lie ready: more than most quick ones have, and little enough that a socket's
#: buffer holds a burst of them.
LARGEST = 4096


class Ahead:
    """The datagrams for one child, a call in each.

    Parameters
    ----------
    reader : socket.socket
    writer : socket.socket, optional
        The worker's.
    """

    def __init__(self, reader: socket.socket, writer: socket.socket | None = None) -> None:
        self.reader, self._writer = reader, writer

    @classmethod
    def pair(cls) -> Ahead:
        return cls(*socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))

    def lay(self, number: int, stream: bytes) -> bool:
        """Leave a call; False: there is no room for it, or nobody to read it any more."""
        assert self._writer is not None
        try:
            self._writer.send(_NUMBER.pack(number) + stream, socket.MSG_DONTWAIT)
        except OSError:
            return False
        return True

    def take(self) -> tuple[int, bytes] | None:
        """Take the call that has lain there longest: its number and its stream. Nobody else gets it."""
        try:
            data = self.reader.recv(_NUMBER.size + LARGEST, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        return _NUMBER.unpack_from(data)[0], data[_NUMBER.size :]

    def close(self) -> None:
        self.reader.close()
        if self._writer is not None:
            self._writer.close()

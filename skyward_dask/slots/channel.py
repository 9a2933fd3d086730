"""Frames over a private socket pair: a small header, an envelope of plain values, opaque parts.

The envelope holds plain values only; all else is opaque bytes that only the two ends of a run unpickle. So
what can't be pickled or loaded fails one run, never the channel. Descriptors may go along with a frame.
"""

from __future__ import annotations

import array
import marshal
import os
import socket
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

#: kind, descriptors that come along, parts that follow, bytes of the envelope, number of the run or request
_HEADER = struct.Struct("<BBIIQ")
#: Bytes read at once: more than most small frames, so that they cost one system call.
_READ = 64 * 1024
#: Parts that one sendmsg may carry (IOV_MAX is 1024 on Linux).
_IOV_MAX = 512
#: Descriptors that one frame may carry (SCM_MAX_FD is 253 on Linux).
MOST_DESCRIPTORS = 253
_ANCILLARY = socket.CMSG_SPACE(MOST_DESCRIPTORS * array.array("i").itemsize)

Part = bytes | bytearray | memoryview


class Kind(IntEnum):
    """What a frame is; docs/internals.md has the table of who sends what on which socket."""

    PREPARE = 1
    READY = 2
    RUN = 3
    RESULT = 4
    ERROR = 5
    REQUEST = 6
    ANSWER = 7
    ALLOCATE = 8
    GRANT = 9


_KINDS = {kind.value: kind for kind in Kind}


class ChannelClosed(Exception):
    """The other end is gone."""


class Quiet(Exception):
    """No frame has begun for as long as `Channel.set_patience` allowed."""


@dataclass(slots=True)
class Frame:
    """One message: its kind, its number, its envelope, its opaque parts and its descriptors."""

    kind: Kind
    number: int
    envelope: tuple[Any, ...]
    parts: list[Part]
    descriptors: list[int]
    #: Descriptors that it came without: this process has too many open.
    missing: int = 0


class Channel:
    """One end of a stream of frames.

    Notes
    -----
    `send` may be called from any thread; `receive` from one thread at a time.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._sending = threading.Lock()
        # what was read ahead: the bytes from _begin to _end
        self._ahead = memoryview(bytearray(_READ))
        self._begin = self._end = 0
        self._descriptors: list[int] = []

    def send(
        self,
        kind: Kind,
        number: int,
        envelope: tuple[Any, ...],
        parts: Sequence[Part] = (),
        descriptors: Sequence[int] = (),
    ) -> None:
        """Send one frame; raises `ChannelClosed` if nobody can read it any more."""
        head = marshal.dumps(envelope) if envelope else b""
        lengths = [part.nbytes if isinstance(part, memoryview) else len(part) for part in parts]
        header = _HEADER.pack(kind, len(descriptors), len(lengths), len(head), number)
        first = b"".join((header, struct.pack(f"<{len(lengths)}Q", *lengths), head))
        with self._sending:
            try:
                if descriptors:
                    self._send_with(descriptors, first, parts)
                elif sum(lengths) < _READ:
                    self.socket.sendall(b"".join((first, *parts)))
                else:
                    self._send_all([first, *parts])
            except OSError as error:
                raise ChannelClosed from error

    def _send_with(self, descriptors: Sequence[int], first: bytes, parts: Sequence[Part]) -> None:
        carried = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        self._send_all([first[self.socket.sendmsg([first], carried) :], *parts])

    def _send_all(self, parts: list[Part]) -> None:
        views = [view for part in parts if (view := memoryview(part).cast("B")).nbytes]
        views.reverse()  # what is sent is popped off the end
        while views:
            sent = self.socket.sendmsg(views[: -_IOV_MAX - 1 : -1])
            while sent and sent >= views[-1].nbytes:
                sent -= views.pop().nbytes
            if sent:
                views[-1] = views[-1][sent:]

    def set_patience(self, seconds: int) -> None:
        """Have `receive` raise `Quiet` after so many seconds; 0: it waits for ever."""
        # the kernel's own timer: it costs a frame that comes in time nothing
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", seconds, 0))

    def receive(self) -> Frame:
        """Wait for one frame; raises `ChannelClosed` at the end of the stream."""
        if self._begin == self._end:
            self._begin, self._end = 0, self._receive_into(self._ahead)
            if not self._end:
                raise Quiet
        self._read_ahead(_HEADER.size)
        kind, descriptors, count, size, number = _HEADER.unpack_from(self._ahead, self._begin)
        self._begin += _HEADER.size
        lengths = struct.unpack(f"<{count}Q", self._read(8 * count)) if count else ()
        envelope = marshal.loads(self._read(size)) if size else ()
        parts: list[Part] = [self._read(length) for length in lengths]
        taken = self._taken(descriptors) if descriptors else []
        return Frame(_KINDS[kind], number, envelope, parts, taken, descriptors - len(taken))

    def _taken(self, count: int) -> list[int]:
        """The descriptors of a frame: all of them, or none."""
        taken = self._descriptors[:count]
        del self._descriptors[:count]
        if len(taken) < count:
            for fd in taken:
                os.close(fd)
            return []
        return taken

    def _read_ahead(self, size: int) -> None:
        """Have at least `size` bytes ahead."""
        if self._end - self._begin >= size:
            return
        self._ahead[: self._end - self._begin] = self._ahead[self._begin : self._end]
        self._begin, self._end = 0, self._end - self._begin
        while self._end < size:
            self._end += self._receive_into(self._ahead[self._end :])

    def _read(self, size: int) -> bytearray:
        """Exactly `size` bytes, writable."""
        if size <= _READ:
            if self._end - self._begin < size:
                self._read_ahead(size)
            self._begin += size
            return bytearray(self._ahead[self._begin - size : self._begin])
        target = bytearray(size)
        view, have = memoryview(target), self._end - self._begin
        view[:have] = self._ahead[self._begin : self._end]
        self._begin = self._end = 0
        while have < size:
            have += self._receive_into(view[have:])
        return target

    def _receive_into(self, target: memoryview) -> int:
        try:
            size, carried, _, _ = self.socket.recvmsg_into([target], _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return 0  # the patience that was set is over
        except OSError as error:
            raise ChannelClosed from error
        for _, _, data in carried:
            self._descriptors.extend(array.array("i", data))
        if not size:
            raise ChannelClosed
        return int(size)

    def close(self) -> None:
        for fd in self._descriptors:  # came with a frame that was never read
            os.close(fd)
        self._descriptors.clear()
        self.socket.close()

"""Frames over a private socket pair: a small header, an envelope of plain values, opaque parts.

The envelope (part 0) holds plain values only; all else is opaque bytes that only the two ends of a run
unpickle. So what can't be pickled or loaded fails one run, never the channel.
"""

from __future__ import annotations

import marshal
import os
import socket
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

#: kind, number of the run or request, how many parts follow
_HEADER = struct.Struct("<BQI")
#: Read at once: more than most small frames, so that they cost one system call.
_READ = 64 * 1024
#: Parts that one sendmsg may carry (IOV_MAX is 1024 on Linux).
_IOV_MAX = 512

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


class ChannelClosed(Exception):
    """The other end is gone."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One message: its kind, its number, its envelope and its opaque parts."""

    kind: Kind
    number: int
    envelope: tuple[Any, ...]
    parts: list[Part]


class Channel:
    """One end of a stream of frames.

    Notes
    -----
    `send` may be called from any thread; `receive` from one thread at a time. A process that was forked
    off the owner may not send: its words would be taken for the owner's.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._owner = os.getpid()
        self._sending = threading.Lock()
        self._left = bytearray()

    def send(self, kind: Kind, number: int, envelope: tuple[Any, ...], parts: Sequence[Part] = ()) -> None:
        """Send one frame; raises `ChannelClosed` if nobody can read it any more."""
        if os.getpid() != self._owner:
            os._exit(0)  # user code forked and came back into our loop: it must not answer twice
        head = marshal.dumps(envelope)
        lengths = [len(head), *(memoryview(part).nbytes for part in parts)]
        header = _HEADER.pack(kind, number, len(lengths)) + struct.pack(f"<{len(lengths)}Q", *lengths)
        with self._sending:
            try:
                if not parts:
                    self.socket.sendall(header + head)
                else:
                    self._send_all([header + head, *parts])
            except OSError as error:
                raise ChannelClosed from error

    def _send_all(self, parts: list[Part]) -> None:
        views = [view for part in parts if (view := memoryview(part).cast("B")).nbytes]
        while views:
            sent = self.socket.sendmsg(views[:_IOV_MAX])
            while sent and sent >= views[0].nbytes:
                sent -= views.pop(0).nbytes
            if sent:
                views[0] = views[0][sent:]

    def receive(self) -> Frame:
        """Wait for one frame; raises `ChannelClosed` at the end of the stream."""
        kind, number, count = _HEADER.unpack(self._read(_HEADER.size))
        lengths = struct.unpack(f"<{count}Q", self._read(8 * count))
        head = self._read(lengths[0])
        parts: list[Part] = [self._read(length) for length in lengths[1:]]
        return Frame(Kind(kind), number, marshal.loads(head), parts)

    def _read(self, size: int) -> bytearray:
        """Exactly `size` bytes, from what was read ahead or from the socket, writable."""
        if len(self._left) < size < _READ:
            self._fill(size)
        if len(self._left) >= size:
            taken = self._left[:size]
            del self._left[:size]
            return taken
        return self._read_large(size)

    def _fill(self, size: int) -> None:
        while len(self._left) < size:
            self._left += self._receive_bytes(_READ)

    def _read_large(self, size: int) -> bytearray:
        target = bytearray(size)
        view = memoryview(target)
        have = len(self._left)
        view[:have] = self._left
        self._left.clear()
        while have < size:
            try:
                got = self.socket.recv_into(view[have:])
            except OSError as error:
                raise ChannelClosed from error
            if not got:
                raise ChannelClosed
            have += got
        return target

    def _receive_bytes(self, size: int) -> bytes:
        try:
            data = self.socket.recv(size)
        except OSError as error:
            raise ChannelClosed from error
        if not data:
            raise ChannelClosed
        return data

    def close(self) -> None:
        self.socket.close()

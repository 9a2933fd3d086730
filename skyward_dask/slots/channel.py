"""A blocking end of a stream of frames, in a child and in its template."""

from __future__ import annotations

import array
import os
import select
import socket
import threading
from collections.abc import Sequence

from skyward_dask.slots.framing import MOST_DESCRIPTORS, Frame, FrameReader, Message, Part, pack

#: Parts that one sendmsg may carry (IOV_MAX is 1024 on Linux).
_IOV_MAX = 512
ANCILLARY = socket.CMSG_SPACE(MOST_DESCRIPTORS * array.array("i").itemsize)


class ChannelClosed(Exception):
    """The other end has closed."""


class Quiet(Exception):
    """No frame began within the time that `Channel.set_patience` allows."""


class Channel:
    """One end of a stream of frames.

    Notes
    -----
    `send` may be called from any thread; `receive` from one thread at a time.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._sending = threading.Lock()
        self._reader = FrameReader()
        self._descriptors: list[int] = []
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._patience = 0.0

    def send(
        self,
        message: Message,
        number: int = 0,
        parts: Sequence[Part] = (),
        descriptors: Sequence[int] = (),
    ) -> None:
        """Send one frame; raises `ChannelClosed` if nobody can read it any more."""
        buffers = pack(Frame(message, number, parts, descriptors))
        with self._sending:
            try:
                send_all(self.socket, buffers, descriptors)
            except OSError as error:
                raise ChannelClosed from error

    def set_patience(self, seconds: float) -> None:
        """Have `receive` raise `Quiet` after this many seconds without a frame; with 0 it waits for ever."""
        self._patience = seconds

    def receive(self) -> Frame:
        """Wait for one frame; raises `ChannelClosed` at the end of the stream."""
        while not self._reader.frames:
            self._receive()
        frame = self._reader.frames.popleft()
        if frame.carried:
            frame.descriptors = self._taken(frame.carried)
        return frame

    def _taken(self, count: int) -> list[int]:
        """The descriptors of a frame: all of them, or none."""
        taken = self._descriptors[:count]
        del self._descriptors[:count]
        if len(taken) == count:
            return taken
        for fd in taken:
            os.close(fd)
        return []

    @property
    def has_frame(self) -> bool:
        """Whether `receive` would return at once: a frame was read along with another."""
        return bool(self._reader.frames)

    def _receive(self) -> None:
        try:
            # the kernel wakes whoever waits in recvmsg, but not in poll, when the other end reads, too
            if not self._poll.poll(1e3 * self._patience or None):
                if self._reader.is_between_frames:
                    raise Quiet
                return
            size, carried, _, _ = self.socket.recvmsg_into(
                [self._reader.target], ANCILLARY, socket.MSG_CMSG_CLOEXEC
            )
        except OSError as error:
            raise ChannelClosed from error
        if carried:
            self._descriptors += descriptors_in(carried)
        if not size:
            raise ChannelClosed
        self._reader.received(size)

    def close(self) -> None:
        for fd in self._descriptors:  # came with a frame that was never read
            os.close(fd)
        self._descriptors.clear()
        self.socket.close()


def descriptors_in(ancillary: Sequence[tuple[int, int, bytes]]) -> list[int]:
    """The descriptors that came with some bytes."""
    found = array.array("i")
    for _, _, data in ancillary:
        found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return found.tolist()


def send_some(sock: socket.socket, buffers: Sequence[Part], descriptors: Sequence[int]) -> int:
    """Send what the socket takes at once; returns how many bytes. Descriptors go with the first buffer."""
    if not descriptors:
        return sock.send(buffers[0]) if len(buffers) == 1 else sock.sendmsg(buffers[:_IOV_MAX])
    carried = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
    return sock.sendmsg(buffers[:1], carried)


def drop_sent(buffers: list[Part], sent: int) -> None:
    """Remove what has been sent from the front."""
    done = 0
    while done < len(buffers) and sent >= (size := len(buffers[done])):
        sent -= size
        done += 1
    del buffers[:done]
    if sent:
        buffers[0] = memoryview(buffers[0])[sent:]


def send_all(sock: socket.socket, buffers: list[Part], descriptors: Sequence[int] = ()) -> None:
    """Send all, waiting as long as it takes."""
    while buffers:
        drop_sent(buffers, send_some(sock, buffers, descriptors))
        descriptors = ()

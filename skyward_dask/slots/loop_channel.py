"""The worker's end of a stream of frames, on its event loop: nothing here ever waits for a socket."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from skyward_dask.slots.aside import TURN
from skyward_dask.slots.channel import ANCILLARY, descriptors_in, drop_sent, send_some
from skyward_dask.slots.framing import Frame, FrameReader, Part, pack


@dataclass(slots=True, eq=False)
class _Outgoing:
    """Buffers that haven't been sent yet; `owned` descriptors are closed once they have."""

    buffers: list[Part]
    descriptors: Sequence[int]
    owned: Sequence[int]

    def close(self) -> None:
        for fd in self.owned:
            os.close(fd)


class LoopChannel:
    """Sends and receives frames as the socket allows.

    Parameters
    ----------
    loop : asyncio.AbstractEventLoop
    sock : socket.socket
        Made non-blocking; the other end's mode doesn't change.
    on_frame : callable
        Takes each frame that has arrived.
    on_end : callable
        Called once, when the other end has closed.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        on_frame: Callable[[Frame], None],
        on_end: Callable[[], None],
    ) -> None:
        self._loop, self.socket = loop, sock
        self._on_frame, self._on_end = on_frame, on_end
        self._reader = FrameReader()
        self._descriptors: list[int] = []
        self._outgoing: deque[_Outgoing] = deque()
        self._ended = self._has_more = False
        sock.setblocking(False)

    def listen(self) -> None:
        """Take frames from now on."""
        self._loop.add_reader(self.socket, self._readable)

    def send(self, frame: Frame, owned: Sequence[int] = ()) -> None:
        """Send a frame, now or when the other end reads; a frame that nobody can read is dropped.

        Parameters
        ----------
        frame : Frame
        owned : sequence of int
            Descriptors that are closed when the frame has been sent.
        """
        outgoing = _Outgoing(pack(frame), frame.descriptors, owned)
        if self._ended:
            outgoing.close()
            return
        self._outgoing.append(outgoing)
        if len(self._outgoing) == 1 and not self._write():
            self._loop.add_writer(self.socket, self._writable)

    def _writable(self) -> None:
        if self._write():
            self._loop.remove_writer(self.socket)

    def _write(self) -> bool:
        """Send what can be sent; returns whether that was all."""
        while self._outgoing:
            first = self._outgoing[0]
            try:
                sent = send_some(self.socket, first.buffers, first.descriptors)
            except BlockingIOError:
                return False
            except OSError:  # nobody reads any more: the reading side reports the end
                self._drop_outgoing()
                return True
            first.descriptors = ()
            drop_sent(first.buffers, sent)
            if not first.buffers:
                self._outgoing.popleft().close()
        return True

    def _drop_outgoing(self) -> None:
        while self._outgoing:
            self._outgoing.popleft().close()

    def _readable(self) -> None:
        if not self._reader.frames:  # otherwise those frames come first
            self._take_some()

    def _take_some(self) -> None:
        """Take what has arrived, for as long as others can wait."""
        end = self._loop.time() + TURN
        while self._take_next() and self._loop.time() < end:
            pass
        if self._reader.frames and not self._ended:
            self._loop.call_soon(self._take_some)

    def drain(self) -> None:
        """Take all that a dead peer has sent: it still counts."""
        self._has_more = True
        while self._take_next():
            pass

    def _take_next(self) -> bool:
        """Pass on one frame, or read some; returns whether there may be more."""
        if self._ended:
            return False
        if self._reader.frames:
            self._give(self._reader.frames.popleft())
        else:
            self._has_more = self._read()
        return self._has_more or bool(self._reader.frames)

    def _read(self) -> bool:
        """Read once; returns whether there may be more."""
        target = self._reader.target
        try:
            size, carried, _, _ = self.socket.recvmsg_into([target], ANCILLARY, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return False
        except OSError:
            size, carried = 0, []
        if not size:
            self._end()
            return False
        if carried:
            self._descriptors += descriptors_in(carried)
        self._reader.received(size)
        return size == len(target)

    def _give(self, frame: Frame) -> None:
        if frame.carried:
            frame.descriptors = self._descriptors[: frame.carried]
            del self._descriptors[: frame.carried]
        self._on_frame(frame)

    def _end(self) -> None:
        self._ended = True
        self._loop.remove_reader(self.socket)
        self._on_end()

    def finish(self) -> None:
        """Tell the other end that nothing more will come."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Receive and send no more frames."""
        self._ended = True
        if self.socket.fileno() >= 0:
            self._loop.remove_reader(self.socket)
            self._loop.remove_writer(self.socket)
        self._drop_outgoing()
        for fd in self._descriptors:
            os.close(fd)
        self._descriptors.clear()
        self.socket.close()
        # the callbacks refer to us: without this cycle all is freed at once, with the reader's buffer
        self._on_frame, self._on_end = take_nothing, do_nothing
        self._reader.close()


def take_nothing(frame: Frame) -> None:
    pass


def do_nothing() -> None:
    pass

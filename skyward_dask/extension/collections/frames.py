"""Frames of plain values over a connection of Dask's.

Written and read by Dask, a message takes several times as long: a task writes each, its packer asks the
system for a mebibyte of fresh memory each time, and a frame is read in three turns of the loop.
"""

from __future__ import annotations

import asyncio
import pickle
import struct
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

from distributed.comm.core import Comm
from distributed.comm.tcp import TCP, TLS
from tornado.iostream import IOStream

_SIZE = struct.Struct("<Q")
#: Bytes up to which a frame is read into a buffer that is kept; arbitrary.
_SMALL = 1 << 16
#: The most bytes that are given to a stream at once: OpenSSL takes less than 2 GiB.
_PART = 1 << 30

#: Takes the values of a frame.
Take = Callable[[Sequence[Any]], None]


class Frames(Protocol):
    """One end of a connection."""

    def write(self, values: Sequence[Any]) -> None:
        """Write a frame; doesn't wait."""

    async def run(self) -> None:
        """Have frames taken until the connection ends, with an error if it is broken."""


class SocketFrames(asyncio.BufferedProtocol):
    """Frames over TCP: the size, then that many bytes of pickle."""

    _transport: asyncio.Transport

    def __init__(self, take: Take) -> None:
        self._take = take
        # of what has been filled, the frame at `begin` is the next one to be taken
        self._buffer, self._begin, self._filled = bytearray(_SMALL), 0, 0
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @classmethod
    async def of(cls, stream: IOStream, take: Take) -> SocketFrames:
        """Take a connection over from a stream, which reads no more; when that is closed, they end."""
        frames = cls(take)
        while True:
            reading: Any = stream.read_into(frames.get_buffer(), partial=True)  # type: ignore[arg-type]
            if not reading.done():
                break
            frames._filled += reading.result()
            while frames._take_next():
                pass
        stream.io_loop.remove_handler(stream.fileno())
        await asyncio.get_running_loop().create_connection(lambda: frames, sock=stream.socket.dup())
        reading.add_done_callback(lambda _: frames._transport.abort())
        return frames

    async def run(self) -> None:
        try:
            await self._ended
        finally:
            self._transport.abort()

    def write(self, values: Sequence[Any]) -> None:
        data = pickle.dumps(values, protocol=5)
        self._transport.write(_SIZE.pack(len(data)) + data)

    # --- what asyncio calls --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc)

    def get_buffer(self, sizehint: int = -1) -> memoryview:
        return memoryview(self._buffer)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        self._go_on()

    def _go_on(self) -> None:
        """Take a frame; if there are more already, others have their turn of the loop before the next one."""
        if self._ended.done():
            return
        try:
            has_more = self._take_next()
        except Exception as error:  # whoever runs this gets it
            self._transport.abort()
            self._end(error)
            return
        if has_more:
            self._transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._go_on)
        else:
            self._transport.resume_reading()

    def _take_next(self) -> bool:
        """Take the next frame, if it is complete; returns whether the one after it is, too."""
        if (end := self._end_of_frame()) <= self._filled:
            frame = memoryview(self._buffer)[self._begin + _SIZE.size : end]
            self._begin = end
            self._take(pickle.loads(frame))
            end = self._end_of_frame()
        if end <= self._filled:
            return True
        if self._begin or end > len(self._buffer):
            self._make_room(end - self._begin)
        return False

    def _end_of_frame(self) -> int:
        """Where the next frame ends; as long as that isn't known, where its size does."""
        end = self._begin + _SIZE.size
        return end if end > self._filled else end + _SIZE.unpack_from(self._buffer, self._begin)[0]

    def _make_room(self, size: int) -> None:
        """Have a buffer that begins with the next frame, and has room for so many bytes of it."""
        rest, size = self._buffer[self._begin : self._filled], max(size, _SMALL)
        if size != len(self._buffer):
            self._buffer = bytearray(size)
        self._buffer[: len(rest)] = rest
        self._begin, self._filled = 0, len(rest)

    def _end(self, error: Exception | None) -> None:
        if self._ended.done():
            return
        if error is None:
            self._ended.set_result(None)
        else:
            self._ended.set_exception(error)


class StreamFrames:
    """The same frames over TLS."""

    def __init__(self, stream: IOStream, take: Take) -> None:
        self._stream, self._take = stream, take

    async def run(self) -> None:
        while True:
            self._take(await self._read())
            await asyncio.sleep(0)  # others have their turn: reading what has come wouldn't wait

    def write(self, values: Sequence[Any]) -> None:
        data = pickle.dumps(values, protocol=5)
        if len(data) <= _SMALL:
            self._stream.write(_SIZE.pack(len(data)) + data)
            return
        self._stream.write(_SIZE.pack(len(data)))
        for start in range(0, len(data), _PART):
            self._stream.write(memoryview(data)[start : start + _PART])

    async def _read(self) -> Sequence[Any]:
        (size,) = _SIZE.unpack(await self._stream.read_bytes(_SIZE.size))
        data = await (self._stream.read_bytes(size) if size <= _SMALL else self._read_large(size))
        values: Sequence[Any] = pickle.loads(data)
        return values

    async def _read_large(self, size: int) -> bytearray:
        data = bytearray(size)
        for start in range(0, size, _PART):
            await self._stream.read_into(memoryview(data)[start : start + _PART])  # type: ignore[arg-type]
        return data


class CommFrames:
    """Frames over a connection of another kind, as Dask writes them; while one is written, others gather."""

    def __init__(self, comm: Comm, take: Take) -> None:
        self._comm, self._take = comm, take
        self._unwritten: list[Any] = []
        self._writing: asyncio.Task[None] | None = None

    async def run(self) -> None:
        while True:
            self._take(await self._comm.read())
            await asyncio.sleep(0)

    def write(self, values: Sequence[Any]) -> None:
        self._unwritten += values
        if self._writing is None:
            self._writing = asyncio.ensure_future(self._write())

    async def _write(self) -> None:
        try:
            while self._unwritten:
                values, self._unwritten = self._unwritten, []
                await self._comm.write(values)
        except OSError:  # the reader notices the end
            return
        self._writing = None


async def frames_over(comm: Comm, take: Take) -> Frames:
    """Both ends of a connection are of the same kind, and so are their frames."""
    if isinstance(comm, TLS) and comm.stream is not None:
        return StreamFrames(comm.stream, take)
    if isinstance(comm, TCP) and comm.stream is not None:
        return await SocketFrames.of(comm.stream, take)
    return CommFrames(comm, take)

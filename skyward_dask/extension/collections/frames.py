"""Frames of plain values over a connection of Dask's.

Written and read by Dask, a message takes three times as long: a task writes each, and its packer asks the
system for a mebibyte of fresh memory each time.
"""

from __future__ import annotations

import asyncio
import pickle
import struct
from collections.abc import Sequence
from typing import Any, Protocol

from distributed.comm.core import Comm
from distributed.comm.tcp import TCP
from tornado.iostream import IOStream

_SIZE = struct.Struct("<Q")
#: Bytes up to which a frame is read into the stream's own buffer, and copied; arbitrary.
_SMALL = 1 << 16
#: The most bytes that are given to the stream at once: OpenSSL takes less than 2 GiB.
_PART = 1 << 30


class Frames(Protocol):
    """One end of a connection."""

    def write(self, values: Sequence[Any]) -> None:
        """Write a frame; doesn't wait."""

    async def read(self) -> Sequence[Any]:
        """Read the next frame."""


class StreamFrames:
    """Frames over TCP or TLS: the size, then that many bytes of pickle."""

    def __init__(self, stream: IOStream) -> None:
        self._stream = stream

    def write(self, values: Sequence[Any]) -> None:
        data = pickle.dumps(values, protocol=5)
        if len(data) <= _SMALL:
            self._stream.write(_SIZE.pack(len(data)) + data)
            return
        self._stream.write(_SIZE.pack(len(data)))
        for start in range(0, len(data), _PART):
            self._stream.write(memoryview(data)[start : start + _PART])

    async def read(self) -> Sequence[Any]:
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

    def __init__(self, comm: Comm) -> None:
        self._comm = comm
        self._unwritten: list[Any] = []
        self._writing: asyncio.Task[None] | None = None

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

    async def read(self) -> Sequence[Any]:
        values: Sequence[Any] = await self._comm.read()
        return values


def frames_over(comm: Comm) -> Frames:
    """Both ends of a connection are of the same kind, and so are their frames."""
    if isinstance(comm, TCP) and comm.stream is not None:
        return StreamFrames(comm.stream)
    return CommFrames(comm)

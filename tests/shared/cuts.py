"""Connections that break, and a worker that the scheduler doesn't hear any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from distributed.comm.addressing import parse_host_port
from distributed.comm.core import Comm
from distributed.core import ConnectionPool, Server


class Silence:
    """Stands between a worker and a scheduler, and may pass on nothing, not even that a connection has ended.

    Attributes
    ----------
    address : str
        At which it takes connections.
    passes : asyncio.Event
        Set while it passes everything on.
    """

    def __init__(self, scheduler: str) -> None:
        self.address, self.passes = "", asyncio.Event()
        self._scheduler = parse_host_port(scheduler.removeprefix("tcp://"))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection comes from the worker."""
        there, back = await asyncio.open_connection(*self._scheduler)
        await asyncio.gather(self._pass(reader, back), self._pass(there, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = b"."
        while data:
            try:
                data = await reader.read(1 << 16)
            except OSError:
                data = b""
            await self.passes.wait()
            writer.write(data)
        writer.close()


@asynccontextmanager
async def silence(scheduler: str) -> AsyncIterator[Silence]:
    """One that passes everything on, at first and in the end."""
    found = Silence(scheduler)
    found.passes.set()
    async with await asyncio.start_server(found.serve, "127.0.0.1", 0) as server:
        found.address = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield found
        finally:
            found.passes.set()


def cut(monkeypatch: pytest.MonkeyPatch, one: Server, other: Server) -> None:
    """End the connections between two workers, and let them make no others."""
    for each, address in ((one, other.address), (other, one.address)):
        _refuse(monkeypatch, each.rpc, address)
        for comm in [*each.rpc.occupied[address], *each.rpc.available[address]]:
            comm.abort()


def _refuse(monkeypatch: pytest.MonkeyPatch, pool: ConnectionPool, address: str) -> None:
    connect = pool.connect

    async def refuse(asked: str, timeout: float | None = None) -> Comm:
        if asked == address:
            raise OSError("there is no way")
        return await connect(asked, timeout)

    monkeypatch.setattr(pool, "connect", refuse)

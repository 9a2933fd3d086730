"""The scheduler's part in streams: it relays between clients and hosts, and says when a stream isn't wanted.

```
 client ── Grant ──▶ relay ── Grant ──▶ host
        ◀─ Items ───       ◀── Items ──
```

What it relays it doesn't unpickle. Each reader has a connection of its own on both sides, so a slow one holds
up itself alone, and the end of one side is the end of the other.

A client listens at no address. One that feeds streams keeps a connection open, over which it is told of each
reader; then it makes another connection, for that reader.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from contextlib import suppress
from functools import partial
from typing import Any
from uuid import uuid4

from distributed import Scheduler
from distributed.comm.core import Comm, connect
from distributed.core import Status

from skyward_dask.extension.streams.names import DROPPED, FEEDS, GONE, MEETS, NAME
from skyward_dask.extension.streams.wire import reach

#: A connection, and what to set when nobody uses it any more.
_Met = tuple[Comm, asyncio.Event]
#: Seconds for a client to answer, as a busy one may take.
_CALL = 30.0


class SchedulerStreams:
    """Relays streams, and watches keys whose workers have dropped them."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._dropped: dict[Hashable, str] = {}  # keys that are elsewhere too, and the hosts of their streams
        scheduler.stream_handlers[DROPPED] = self._take_dropped
        scheduler.handlers[NAME] = self.relay
        scheduler.handlers[FEEDS] = self.feeds
        scheduler.handlers[MEETS] = self.meets
        self._feeding: dict[str, asyncio.Future[_Feeder]] = {}
        self._meetings: dict[str, asyncio.Future[_Met]] = {}

    # --- streams that nobody wants ----------------------------------------------------------------------

    def _take_dropped(self, key: Hashable, worker: str) -> None:
        """A stream's host doesn't hold its key any more: Dask may only have removed one of several copies."""
        task = self._scheduler.tasks.get(key)  # type: ignore[call-overload]
        if task is None or task.state != "memory":
            self._tell(key, worker)
        else:
            self._dropped[key] = worker

    def transition(self, key: Hashable, finish: str) -> None:
        """A task has changed its state."""
        if self._dropped and finish != "memory" and (worker := self._dropped.pop(key, None)) is not None:
            self._tell(key, worker)

    def _tell(self, key: Hashable, worker: str) -> None:
        if worker in self._scheduler.stream_comms:
            self._scheduler.stream_comms[worker].send({"op": GONE, "key": key})

    def remove_worker(self, worker: str) -> None:
        """A worker has left, and its streams with it."""
        self._dropped = {key: host for key, host in self._dropped.items() if host != worker}

    # --- relaying ---------------------------------------------------------------------------------------

    async def relay(self, comm: Comm, host: str, stream: str, window: Any, **_: Any) -> Status:
        """Dask's handler of a reader's connection: connect it to the stream's host."""
        try:
            meet = self._connect if "://" in host else self._call
            other, over = await meet(host, {"stream": stream, "window": window})
        except (OSError, TimeoutError):  # its host is gone: the reader's connection ends, and says so
            comm.abort()
            return Status.dont_reply
        if window is None:
            await other.close()
            comm.abort()
        else:
            await joined(comm, other)
        over.set()
        return Status.dont_reply

    async def _connect(self, worker: str, wanted: dict[str, Any]) -> _Met:
        """Connect to a worker, for a reader of one of its streams."""
        arguments: dict[str, Any] = self._scheduler.connection_args

        async def is_there() -> bool:
            return worker in self._scheduler.workers

        other = await reach(partial(connect, worker, deserialize=False, **arguments), is_there)
        await other.write({"op": NAME, "host": worker, "reply": False, **wanted})
        return other, asyncio.Event()

    async def _call(self, client: str, wanted: dict[str, Any]) -> _Met:
        """Have a client connect, for a reader of a stream that it feeds."""
        if client not in self._scheduler.clients:
            raise OSError(f"there is no client {client}")
        token = uuid4().hex
        meeting = self._meetings[token] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(_CALL):
                feeder = await asyncio.shield(self._feeder(client))
                await feeder.tell({"token": token, **wanted})
                met: _Met = await meeting
                return met
        finally:
            del self._meetings[token]

    def _feeder(self, client: str) -> asyncio.Future[_Feeder]:
        if client not in self._feeding:
            self._feeding[client] = asyncio.get_running_loop().create_future()
        return self._feeding[client]

    async def feeds(self, comm: Comm, client: str, **_: Any) -> Status:
        """Dask's handler of the connection over which a client is told of readers."""
        if self._feeder(client).done():  # it has lost its connection, and makes another one
            del self._feeding[client]
        feeder = _Feeder(comm)
        self._feeder(client).set_result(feeder)
        with suppress(OSError):
            await comm.read()  # it says nothing, and ends with the client
        if (found := self._feeding.get(client)) is not None and found.done() and found.result() is feeder:
            del self._feeding[client]
        comm.abort()
        return Status.dont_reply

    async def meets(self, comm: Comm, token: str, **_: Any) -> Status:
        """Dask's handler of the connection that a client makes for a reader."""
        meeting = self._meetings.get(token)
        if meeting is None or meeting.done():  # the reader is gone
            comm.abort()
            return Status.dont_reply
        over = asyncio.Event()
        meeting.set_result((comm, over))
        await over.wait()
        return Status.dont_reply


class _Feeder:
    """The connection over which a client is told of readers."""

    def __init__(self, comm: Comm) -> None:
        self._comm = comm
        self._writing = asyncio.Lock()

    async def tell(self, message: dict[str, Any]) -> None:
        async with self._writing:
            await self._comm.write(message)


async def joined(one: Comm, other: Comm) -> None:
    """Send on what arrives on either side, until one of them ends."""
    pumps = [asyncio.ensure_future(_pump(*ends)) for ends in ((one, other), (other, one))]
    try:
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
    finally:
        one.abort()
        other.abort()
        await asyncio.gather(*pumps)


async def _pump(source: Comm, sink: Comm) -> None:
    with suppress(OSError):
        while True:
            await sink.write(await source.read())

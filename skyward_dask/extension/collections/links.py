"""Links between the processes of a cluster: they carry calls to homes elsewhere, and answers back.

```
 worker ── Request ──▶ another worker ── Call ──▶ a home
 client ── Request ──▶ the scheduler ── Request ──▶ a worker ── Call ──▶ a home
```

A call that waits is a message and a later answer: it takes up neither a thread nor a connection.
"""

from __future__ import annotations

import asyncio
import pickle
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from itertools import count
from time import time
from typing import Any

from distributed.comm.core import Comm
from distributed.core import ConnectionPool, Status
from tornado.ioloop import IOLoop

from skyward_dask.extension.collections.call_messages import (
    Confirm,
    GiveUp,
    Message,
    Reply,
    Request,
    RunEnded,
    Word,
    unpickled,
)
from skyward_dask.extension.collections.homes import Homes
from skyward_dask.extension.collections.wire import Wire
from skyward_dask.shared.events import Answer, Moved

#: Takes a pickled `Answer`; None if it was lost on its way, and the call may have been carried out.
OnAnswer = Callable[[bytes | None], None]

#: Seconds to connect to a worker that may have left: a busy one takes a second at most.
_CONNECT = 10.0
MOVED = pickle.dumps((False, Moved()))


class OnLoop:
    """Calls functions on a loop: at once, if the calling thread is the loop's."""

    def __init__(self, loop: IOLoop) -> None:
        self._loop = loop
        self._thread = 0
        loop.add_callback(self._note_thread)

    def _note_thread(self) -> None:
        self._thread = threading.get_ident()

    def __call__(self, function: Callable[..., object], *args: Any) -> None:
        if threading.get_ident() == self._thread:
            function(*args)
        else:
            self._loop.add_callback(function, *args)


class Links:
    """The links of one process.

    Parameters
    ----------
    address : str
        The address at which others reach this process; empty for a client.
    homes : Homes
        The homes in this process.
    pool : distributed.core.ConnectionPool
        Closes the connections when its owner closes.
    on_loop : OnLoop
    via : str
        The address to which all messages go; if empty, each goes to its home's worker.
    is_there : callable
        Whether the worker at an address may be in the cluster; if not, nobody tries to connect to it.
    on_lost : callable
        Called with the address to which a link has ended.

    Notes
    -----
    `tell` may be called in any thread, the rest only on the loop.
    """

    def __init__(
        self,
        address: str,
        homes: Homes,
        pool: ConnectionPool,
        on_loop: OnLoop,
        via: str = "",
        is_there: Callable[[str], bool] = lambda address: True,
        on_lost: Callable[[str], None] = lambda address: None,
    ) -> None:
        self.address, self.homes, self.on_loop = address, homes, on_loop
        self._pool, self._via = pool, via
        self._is_there, self._on_lost = is_there, on_lost
        self._wires: dict[str, Wire] = {}
        self._under_way: dict[int, tuple[Wire, OnAnswer]] = {}
        self._numbers = count(1)
        self._connecting: set[asyncio.Task[None]] = set()

    def ask(self, worker: str, key: str, call: bytes, on_answer: OnAnswer) -> None:
        """Send a call to a home in another process."""
        if not self._is_there(worker):
            on_answer(MOVED)
            return
        wire = self._wire(worker)
        number = next(self._numbers)
        self._under_way[number] = wire, on_answer
        wire.send(Request(number, worker, key, call))

    def tell(self, word: Word) -> None:
        """Send a word to its home, here or elsewhere, if the home can still be reached."""
        if not self.homes.apply(word.key, word.event(time())):
            self.on_loop(self._send, word)

    def _send(self, word: Word) -> None:
        if word.worker != self.address and self._is_there(word.worker):
            self._wire(word.worker).send(word)

    def _wire(self, worker: str) -> Wire:
        address = self._via or worker
        if (wire := self._wires.get(address)) is None:
            wire = self._wires[address] = Wire(self._take, self._end)
            self._spawn(wire.connect(partial(self._pool.connect, address, timeout=_CONNECT)))
        return wire

    def _spawn(self, connecting: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(connecting)
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def accept(self, comm: Comm, **_: Any) -> Status:
        """Dask's handler of ``skyward_wire``: the connection is ours from here on."""
        await Wire(self._take, self._end).run(comm)
        return Status.dont_reply

    def close(self) -> None:
        """This process leaves the cluster."""
        for task in self._connecting:
            task.cancel()

    # --- what others say ---------------------------------------------------------------------------------

    def _take(self, wire: Wire, message: Message) -> None:
        _TAKE[type(message)](self, wire, message)

    def _take_request(self, wire: Wire, request: Request) -> None:
        def answer(data: bytes | None) -> None:
            wire.send(Reply(request.number, data))

        def reply(value: Answer) -> None:
            self.on_loop(answer, pickle.dumps(value, protocol=5))

        if request.key in self.homes:
            call = unpickled(request.call, time())
            # otherwise, the call is of a party that has left: nobody would free what it takes
            if not (self.homes.knows(call.caller.party) and self.homes.call(request.key, call, reply)):
                answer(MOVED)
        elif request.worker == self.address:
            answer(MOVED)
        else:
            self.ask(request.worker, request.key, request.call, answer)

    def _take_reply(self, wire: Wire, reply: Reply) -> None:
        _, on_answer = self._under_way.pop(reply.number)
        on_answer(reply.answer)

    def _take_word(self, wire: Wire, word: Word) -> None:
        self.tell(word)

    def _end(self, wire: Wire, unsent: list[Message]) -> None:
        """A wire has ended: the answers to its requests are lost, except to those that were never sent."""
        for address in [address for address, each in self._wires.items() if each is wire]:
            del self._wires[address]
            self._on_lost(address)
        safe = {message.number for message in unsent if isinstance(message, Request)}
        for number in [number for number, (each, _) in self._under_way.items() if each is wire]:
            _, on_answer = self._under_way.pop(number)
            on_answer(MOVED if number in safe else None)


_TAKE: dict[type[Message], Callable[[Links, Wire, Any], None]] = {
    Request: Links._take_request,
    Reply: Links._take_reply,
    Confirm: Links._take_word,
    GiveUp: Links._take_word,
    RunEnded: Links._take_word,
}

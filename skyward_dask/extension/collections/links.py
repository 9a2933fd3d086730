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
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from itertools import count
from time import time
from typing import Any

from distributed.comm.core import Comm
from distributed.core import ConnectionPool, Status
from tornado.ioloop import IOLoop

from skyward_dask.extension.collections.call_messages import Copy, Message, Reply, Request, unpickled
from skyward_dask.extension.collections.homes import Homes
from skyward_dask.extension.collections.wire import Wire
from skyward_dask.shared.events import Answer, Call, Moved

#: Takes a pickled `Answer`; None if it was lost on its way, and the call may have been carried out.
OnAnswer = Callable[[bytes | None], None]

#: Seconds to connect to a worker that may have left: a busy one takes a second at most.
_CONNECT = 10.0
#: Seconds to connect to a worker of an address at which one has just left; and how many of these are known.
_RECONNECT, _LEFT = 1.0, 100
MOVED = pickle.dumps((False, Moved()))


@dataclass(frozen=True, slots=True)
class _Asked:
    """A message that has no reply yet."""

    wire: Wire
    key: str
    on_answer: OnAnswer


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
        Whether the worker at an address may have the home of a key; if not, nobody asks it.
    on_lost : callable
        Called with the address to which a link has ended.
    on_copy : callable
        Takes a message for a standby in this process, with its key; returns the reply.

    Notes
    -----
    Used on the loop only.
    """

    def __init__(
        self,
        address: str,
        homes: Homes,
        pool: ConnectionPool,
        on_loop: OnLoop,
        via: str = "",
        is_there: Callable[[str, str], bool] = lambda address, key: True,
        on_lost: Callable[[str], None] = lambda address: None,
        on_copy: Callable[[str, bytes], bytes | None] = lambda key, message: None,
    ) -> None:
        self.address, self.homes, self.on_loop = address, homes, on_loop
        self._pool, self._via = pool, via
        self._is_there, self._on_lost, self._on_copy = is_there, on_lost, on_copy
        self._wires: dict[str, Wire] = {}
        self._under_way: dict[int, _Asked] = {}
        self._numbers = count(1)
        self._connecting: dict[asyncio.Task[None], str] = {}
        self._left = deque[str](maxlen=_LEFT)

    def ask(self, worker: str, key: str, event: bytes, on_answer: OnAnswer) -> None:
        """Send an event to a home in another process."""
        if not self._is_there(worker, key):
            on_answer(MOVED)
            return
        request = Request(next(self._numbers), worker, key, event)
        self._wire_for(request, self._via or worker, on_answer).send(request)

    def copy(self, worker: str, key: str, message: bytes, on_answer: OnAnswer) -> None:
        """Send a message to a standby in another process, at once."""
        copy = Copy(next(self._numbers), worker, key, message)
        self._wire_for(copy, worker, on_answer).send_at_once(copy)

    def _wire_for(self, message: Request | Copy, address: str, on_answer: OnAnswer) -> Wire:
        wire = self._wire(address)
        self._under_way[message.number] = _Asked(wire, message.key, on_answer)
        return wire

    def abandon(self, key: str) -> None:
        """Take no more answers from a home: those that are under way are lost."""
        for number in [number for number, asked in self._under_way.items() if asked.key == key]:
            self._under_way.pop(number).on_answer(None)

    def cut(self, worker: str) -> None:
        """A worker has left the cluster: don't go on trying to connect to it."""
        self._left.append(worker)
        for task, address in self._connecting.items():
            if address == worker:
                # a task that is cancelled before it has begun ends without a word: its wire would never end
                asyncio.get_running_loop().call_soon(task.cancel)

    def _wire(self, address: str) -> Wire:
        if (wire := self._wires.get(address)) is None:
            wire = self._wires[address] = Wire(self._take, self._end)
            patience = _RECONNECT if address in self._left else _CONNECT  # a caller may hear of the end later
            self._spawn(address, wire.connect(partial(self._pool.connect, address, timeout=patience)))
        return wire

    def _spawn(self, address: str, connecting: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(connecting)
        self._connecting[task] = address
        task.add_done_callback(self._connecting.pop)

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
            event = unpickled(request.event, time())
            # a call of a party that has left: nobody would free what it takes
            is_late = isinstance(event, Call) and not self.homes.knows(event.caller.party)
            if is_late or not self.homes.apply(request.key, event, reply):
                answer(MOVED)
        elif request.worker == self.address:
            answer(MOVED)
        else:
            self.ask(request.worker, request.key, request.event, answer)

    def _take_copy(self, wire: Wire, copy: Copy) -> None:
        wire.send(Reply(copy.number, self._on_copy(copy.key, copy.message)))

    def _take_reply(self, wire: Wire, reply: Reply) -> None:
        if (asked := self._under_way.pop(reply.number, None)) is not None:  # nobody has abandoned it
            asked.on_answer(reply.answer)

    def _end(self, wire: Wire, unsent: list[Message]) -> None:
        """A wire has ended: the answers to its requests are lost, except to those that were never sent."""
        for address in [address for address, each in self._wires.items() if each is wire]:
            del self._wires[address]
            self._on_lost(address)
        safe = {message.number for message in unsent if isinstance(message, Request)}
        for number in [number for number, asked in self._under_way.items() if asked.wire is wire]:
            self._under_way.pop(number).on_answer(MOVED if number in safe else None)


_TAKE: dict[type[Message], Callable[[Links, Wire, Any], None]] = {
    Request: Links._take_request,
    Copy: Links._take_copy,
    Reply: Links._take_reply,
}

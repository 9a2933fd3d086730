"""A switchboard: it brings the calls of one process to the homes of collections, and their answers back.

```
 thread, child ── begin ──▶ switchboard of a worker ── apply ──▶ a home in this worker
                                     └── wire ──▶ switchboard of another worker ── apply ──▶ a home
 client ── begin ──▶ its switchboard ── wire ──▶ that of the scheduler ── wire ──▶ … of a worker
```

A call that waits is a message and a later answer: it costs neither thread nor connection. A home in the same
process is asked in the caller's own thread.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from itertools import count
from typing import Any
from uuid import uuid4

from distributed.comm.core import Comm
from distributed.core import ConnectionPool, Status
from tornado.ioloop import IOLoop

from skyward_dask.config import staleness
from skyward_dask.errors import CollectionLost
from skyward_dask.extension.recent import Recent
from skyward_dask.extension.wire import Message, Wire
from skyward_dask.shared.asks import Ask, Pending, Route, Spec
from skyward_dask.shared.calls import Answer, Call, Caller
from skyward_dask.shared.home import KINDS, Home, withdrawal
from skyward_dask.shared.state import Gone

#: Takes a pickled `Answer`; None: it was lost on its way, and may have been carried out.
OnAnswer = Callable[[bytes | None], None]
#: Opens a collection: the directory's `open`, over a connection to the scheduler.
Opener = Callable[[Spec], Coroutine[Any, Any, Route]]


logger = logging.getLogger(__name__)


class Moved(Exception):
    """The home isn't there (any more), and the call was not carried out."""


#: Seconds for a connection to a worker that may be gone: a busy one takes a second at the most.
_CONNECT = 10.0
_MOVED: Answer = (False, Moved())
_MOVED_BYTES = pickle.dumps(_MOVED)


class Switchboard:
    """The calls of one process.

    Parameters
    ----------
    address : str
        Where others reach it; empty for a client.
    loop : tornado.ioloop.IOLoop
    pool : distributed.core.ConnectionPool
        Closes the connections when its owner closes.
    opener : callable
    via : str
        The address to which all calls go; empty: each to its home's worker.
    is_live : callable
        Whether a run is still wanted: what one that has ended asks for is refused, for it would hold it
        for ever.
    is_there : callable
        Whether a worker is known to be gone, by its address: then nobody tries to connect to it.

    Notes
    -----
    `begin` may be called in any thread, the rest is the loop's.
    """

    def __init__(
        self,
        address: str,
        loop: IOLoop,
        pool: ConnectionPool,
        opener: Opener,
        via: str = "",
        is_live: Callable[[str], bool] = lambda run: True,
        is_there: Callable[[str], bool] = lambda address: True,
    ) -> None:
        self._address, self._via = address, via
        self._is_live, self._is_there = is_live, is_there
        self._loop, self._pool = loop, pool
        self._open = opener
        self.session = uuid4().hex
        self.homes: dict[str, Home] = {}
        self._routes: dict[str, Route] = {}
        self._opening: dict[Spec, asyncio.Task[Route]] = {}
        self._wires: dict[str, Wire] = {}
        self._pending: dict[int, tuple[Wire, OnAnswer]] = {}
        self._gone: set[str] = set()
        self._bound: dict[str, set[tuple[str, str]]] = {}
        self._numbers = count(1)
        self._calls = count(1)
        self._recent = Recent(staleness())
        self._background: set[asyncio.Task[None]] = set()
        self._thread = 0
        loop.add_callback(self._note_thread)

    def _note_thread(self) -> None:
        self._thread = threading.get_ident()

    # --- calls of this process ---------------------------------------------------------------------------

    def begin(self, spec: Spec, ask: Ask, caller: Caller, call_id: tuple[str, int] | None = None) -> Pending:
        """Ask a collection; `call_id` is given by who has named the call already."""
        pending = Pending(*(call_id or (self.session, next(self._calls))), caller)
        pending.set_running_or_notify_cancel()
        pending.asked = self._recent.asked()
        call = Call(*pending.id, caller, ask.operation, ask.arguments)
        route = self._routes.get(spec.name)
        if route is not None and not spec.differs(route.kind, route.options):
            if not ask.operation:
                pending.set_result(route)
                return pending
            if route.is_eventual and ask.reads and (recent := self._recent.get(spec, ask)) is not None:
                pending.set_result(recent[0])
                return pending
            worker, key = self._home(route, ask)
            if (home := self.homes.get(key)) is not None:
                if not ask.binds or self._binds(caller.run, worker, key, pending):
                    home.apply(call, lambda answer: self._settle(pending, spec, ask, answer))
                    if ask.binds and not self._is_live(caller.run):  # it has ended meanwhile
                        self._loop.add_callback(self.forget_run, caller.run)
                return pending
        if threading.get_ident() == self._thread:
            self._start(pending, spec, ask, call)
        else:
            self._loop.add_callback(self._start, pending, spec, ask, call)
        return pending

    def give_up(self, spec: Spec, ask: Ask, pending: Pending) -> None:
        """Nobody waits for an answer any more: what it has brought, or may still bring, is given back."""
        assert pending.caller is not None
        caller, undo = pending.caller, ask.undo

        def give_back(answered: Future[Any]) -> None:
            if undo is not None and answered.exception() is None:
                self.begin(spec, undo(answered.result()), caller)

        if not pending.done():
            self.begin(spec, withdrawal(ask, pending.id, expired=False), caller)
        pending.add_done_callback(give_back)

    def _home(self, route: Route, ask: Ask) -> tuple[str, str]:
        return route.homes[ask.place % len(route.homes)]

    def _start(self, pending: Pending, spec: Spec, ask: Ask, call: Call, again: bool = True) -> None:
        route = self._routes.get(spec.name)
        if route is None or spec.differs(route.kind, route.options):
            self._spawn(self._start_unknown(pending, spec, ask, call, again))
        else:
            self._send(pending, spec, ask, call, route, again)

    async def _start_unknown(self, pending: Pending, spec: Spec, ask: Ask, call: Call, again: bool) -> None:
        try:
            route = await self._found(spec)
        except (Exception, asyncio.CancelledError) as error:  # the caller's to see
            lost = isinstance(error, (OSError, asyncio.CancelledError))
            pending.set_exception(_unreachable(spec) if lost else error)
            return
        if ask.operation:
            self._send(pending, spec, ask, call, route, again)
        else:
            pending.set_result(route)

    async def _found(self, spec: Spec) -> Route:
        """Open a collection; callers at once ask together."""
        task = self._opening.get(spec)
        if task is None:
            task = self._opening[spec] = asyncio.ensure_future(self._open(spec))
            task.add_done_callback(lambda _: self._opening.pop(spec))
        route = self._routes[spec.name] = await asyncio.shield(task)
        return route

    def _send(self, pending: Pending, spec: Spec, ask: Ask, call: Call, route: Route, again: bool) -> None:
        worker, key = self._home(route, ask)
        if ask.binds and not self._binds(call.caller.run, worker, key, pending):
            return

        def take(answer: Answer | None) -> None:
            if answer is None:
                self._forget_route(spec, route)
                pending.set_exception(_lost(spec, worker))
            elif isinstance(answer[1], Moved) and again:
                self._forget_route(spec, route)
                self._start(pending, spec, ask, call, again=False)
            else:
                self._settle(pending, spec, ask, answer)

        if (home := self.homes.get(key)) is not None:
            home.apply(call, take)
        elif worker == self._address:
            take(_MOVED)
        else:

            def take_pickled(data: bytes | None) -> None:
                if data is not None and ask.operation in KINDS[spec.kind].undone:
                    self._wire(self._via or worker).send("took", worker, key, *call.id)
                take(None if data is None else pickle.loads(data))

            self._post(worker, key, _pickled(call), take_pickled)

    def destroyed(self, spec: Spec) -> None:
        """A collection was destroyed from here: what was known of it means nothing any more."""
        self._routes.pop(spec.name, None)
        self._recent.clear()

    def _forget_route(self, spec: Spec, route: Route) -> None:
        if self._routes.get(spec.name) is route:
            del self._routes[spec.name]

    def _settle(self, pending: Pending, spec: Spec, ask: Ask, answer: Answer) -> None:
        went_well, value = answer
        if not went_well:
            pending.set_exception(_unreachable(spec) if isinstance(value, Moved) else value)
            return
        route = self._routes.get(spec.name)
        if route is not None and route.is_eventual:
            self._recent.note(spec, ask, value, pending.asked)
        pending.set_result(value)

    # --- runs that end -----------------------------------------------------------------------------------

    def _binds(self, run: str, worker: str, key: str, pending: Pending) -> bool:
        """Note that a run may hold something at a home; False: the run has ended, and may not."""
        if not run:
            return True
        if not self._is_live(run):
            pending.set_exception(CancelledError("the run of the task that asked has ended"))
            return False
        self._bound.setdefault(run, set()).add((worker, key))
        return True

    def forget_run(self, run: str) -> None:
        """A run has ended: have the homes give back what it holds."""
        for worker, key in self._bound.pop(run, ()):
            if (home := self.homes.get(key)) is not None:
                _forget(home, lambda owner: owner == (self._address, run))
            else:
                self._wire(worker).send("gone", key, self._address, run)

    # --- other processes ---------------------------------------------------------------------------------

    def _post(self, worker: str, key: str, call: bytes, on_answer: OnAnswer) -> None:
        if not self._is_there(worker):
            on_answer(_MOVED_BYTES)
            return
        wire = self._wire(self._via or worker)
        number = next(self._numbers)
        self._pending[number] = wire, on_answer
        wire.send("call", number, worker, key, call)

    def _wire(self, address: str) -> Wire:
        if (wire := self._wires.get(address)) is None:
            wire = self._wires[address] = Wire(self._take, self._end)
            self._spawn(wire.connect(self._pool.connect(address, timeout=_CONNECT)))
        return wire

    async def accept(self, comm: Comm, **_: Any) -> Status:
        """Dask's handler of ``skyward_wire``: the connection is ours from here on."""
        await Wire(self._take, self._end).run(comm)
        return Status.dont_reply

    def _take(self, wire: Wire, message: Message) -> None:
        what, *rest = message
        if what == "answer":
            number, answer = rest
            _, on_answer = self._pending.pop(number)
            on_answer(answer)
        elif what == "call":
            self._take_call(wire, *rest)
        elif what == "took":
            self._take_receipt(*rest)
        elif what == "gone":
            key, party, run = rest
            if (home := self.homes.get(key)) is not None:
                _forget(home, lambda owner: owner == (party, run))

    def _take_call(self, wire: Wire, number: int, worker: str, key: str, call: bytes) -> None:
        def answer(data: bytes | None) -> None:
            wire.send("answer", number, data)

        def answer_here(value: Answer) -> None:
            data = _pickled_answer(value)
            if threading.get_ident() == self._thread:
                answer(data)
            else:
                self._loop.add_callback(answer, data)

        if (home := self.homes.get(key)) is not None:
            unpickled = _unpickled(call)
            if unpickled.caller.party in self._gone:  # its last words have come by a longer way than its end
                answer(None)
            else:
                home.apply(unpickled, answer_here, guarded=True)
        elif worker == self._address:
            answer(_MOVED_BYTES)
        else:
            self._post(worker, key, call, answer)

    def _take_receipt(self, worker: str, key: str, session: str, number: int) -> None:
        if (home := self.homes.get(key)) is not None:
            home.took((session, number))
        elif worker != self._address and self._is_there(worker):
            self._wire(worker).send("took", worker, key, session, number)

    def _end(self, wire: Wire, unsent: list[Message]) -> None:
        """A wire has ended: what it had to answer is lost, but for what never left."""
        for address in [address for address, each in self._wires.items() if each is wire]:
            del self._wires[address]
        safe = {message[1] for message in unsent if message[0] == "call"}
        for number in [number for number, (each, _) in self._pending.items() if each is wire]:
            _, on_answer = self._pending.pop(number)
            on_answer(_MOVED_BYTES if number in safe else None)

    def forget_worker(self, address: str) -> None:
        """A worker is gone, with its homes."""
        for name in [n for n, r in self._routes.items() if any(home[0] == address for home in r.homes)]:
            del self._routes[name]

    def forget_party(self, party: str) -> None:
        """A worker or a client is gone: what its callers hold here is given back."""
        self.forget_worker(party)
        if "://" not in party:  # a client, whose name never comes again; a worker's address may
            self._gone.add(party)
        for home in self.homes.values():
            _forget(home, lambda owner: owner[0] == party)
            home.take_back(party)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(coroutine)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _forget(home: Home, gone: Gone) -> None:
    for held in home.forget(gone):
        logger.warning("%s: it is released", held)


def _pickled(call: Call) -> bytes:
    caller = call.caller
    flat = (*call.id, caller.party, caller.run, caller.task, caller.slot, call.operation, call.arguments)
    return pickle.dumps(flat, protocol=5)


def _unpickled(data: bytes) -> Call:
    session, number, party, run, task, slot, operation, arguments = pickle.loads(data)
    return Call(session, number, Caller(party, run, task, slot), operation, arguments)


def _pickled_answer(answer: Answer) -> bytes:
    return pickle.dumps(answer, protocol=5)


def _lost(spec: Spec, worker: str) -> CollectionLost:
    return CollectionLost(
        f"{spec.kind} {spec.name!r} lived on {worker}, and the connection to that worker was lost while an "
        "operation was on its way: it may have taken effect. If the worker is gone, what the collection "
        "held is gone too: destroy() it, and fill it anew."
    )


def _unreachable(spec: Spec) -> CollectionLost:
    return CollectionLost(
        f"{spec.kind} {spec.name!r} can't be reached: its worker or the scheduler doesn't answer, or this "
        "process is closing. The operation was not carried out."
    )

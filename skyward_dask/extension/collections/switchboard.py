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
import os
import pickle
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from dataclasses import dataclass
from functools import partial
from itertools import count
from time import time
from typing import Any
from uuid import uuid4

from distributed.comm.core import Comm
from distributed.core import ConnectionPool, Status
from tornado.ioloop import IOLoop

from skyward_dask.config import staleness
from skyward_dask.errors import FORKED, CollectionLost, SkywardError, WorkerUnreachable
from skyward_dask.extension.collections.homes import Homes
from skyward_dask.extension.collections.read_cache import Asked, Recent
from skyward_dask.extension.collections.wire import Message, Wire
from skyward_dask.shared.asks import Ask, Pending, Route, Spec
from skyward_dask.shared.events import (
    Answer,
    Call,
    Caller,
    Close,
    Forget,
    Forgotten,
    Moved,
    Took,
    Withdraw,
    Withdrawn,
)
from skyward_dask.shared.kinds import KINDS

#: Takes a pickled `Answer`; None: it was lost on its way, and may have been carried out.
OnAnswer = Callable[[bytes | None], None]
#: Opens a collection: the directory's `open`, over a connection to the scheduler.
Opener = Callable[[Spec], Coroutine[Any, Any, Route]]

#: Seconds for a connection to a worker that may be gone: a busy one takes a second at the most.
_CONNECT = 10.0
#: Seconds in which a collection is found or made, so that a call whose time-out is over still reaches it.
_LATE = 5.0
_MOVED = pickle.dumps((False, Moved()))


@dataclass(slots=True)
class _Begun:
    """A call of this process that has no answer yet; `again` says whether it may be asked anew."""

    spec: Spec
    ask: Ask
    caller: Caller
    pending: Pending
    asked: Asked
    again: bool = True

    def call(self, caller: Caller) -> Call:
        return Call(self.pending.id, caller, self.ask.operation, self.ask.arguments, time())

    def fail(self, error: BaseException) -> None:
        if not self.pending.done():  # by its withdrawal, before it was sent
            self.pending.set_exception(error)


class Switchboard:
    """The calls of one process.

    Parameters
    ----------
    party : str
        Who makes the calls of its runs.
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
    present : callable
        The caller that a call is made for, when it is sent: a client that has reconnected is another party.

    Notes
    -----
    `begin`, `took` and `withdraw` may be called in any thread, the rest is the loop's.
    """

    def __init__(
        self,
        party: str,
        address: str,
        loop: IOLoop,
        pool: ConnectionPool,
        opener: Opener,
        via: str = "",
        is_live: Callable[[str], bool] = lambda run: True,
        is_there: Callable[[str], bool] = lambda address: True,
        present: Callable[[Caller], Caller] = lambda caller: caller,
    ) -> None:
        self._party, self._address, self._via = party, address, via
        self._is_live, self._is_there, self._present = is_live, is_there, present
        self._loop, self._pool = loop, pool
        self._open = opener
        self.session = uuid4().hex
        self.homes = Homes()
        self._routes: dict[str, Route] = {}
        self._opening: dict[Spec, asyncio.Task[Route]] = {}
        self._wires: dict[str, Wire] = {}
        self._pending: dict[int, tuple[Wire, OnAnswer]] = {}
        self._bound: dict[str, set[tuple[str, str]]] = {}
        self._numbers = count(1)
        self._calls = count(1)
        self._recent = Recent(staleness())
        self._background: set[asyncio.Task[None]] = set()
        self._closed: SkywardError | None = None
        self._process = os.getpid()
        self._thread = 0
        loop.add_callback(self._note_thread)

    def _note_thread(self) -> None:
        self._thread = threading.get_ident()

    # --- calls of this process ---------------------------------------------------------------------------

    def begin(self, spec: Spec, ask: Ask, caller: Caller, call_id: tuple[str, int] | None = None) -> Pending:
        """Ask a collection; `call_id` is given by who has named the call already."""
        self._refuse_if_useless()
        pending = Pending(*(call_id or (self.session, next(self._calls))))
        pending.confirmed = ask.operation in KINDS[spec.kind].confirmed
        begun = _Begun(spec, ask, caller, pending, self._recent.asked())
        route = self._routes.get(spec.name)
        if route is None or spec.differs(route.kind, route.options):
            self._on_loop(self._start, begun)
        elif not ask.operation:
            pending.set_result(route)
        elif route.is_eventual and ask.reads and (recent := self._recent.get(spec, ask)) is not None:
            pending.set_result(recent[0])
        elif not self._ask_here(begun, route):
            self._on_loop(self._start, begun)
        return pending

    def _refuse_if_useless(self) -> None:
        if self._closed is not None:
            raise self._closed
        if os.getpid() != self._process:
            raise WorkerUnreachable(FORKED)

    def took(self, pending: Pending) -> None:
        """The answer has come to the caller."""
        if not pending.confirmed or pending.home is None:
            return
        worker, key = pending.home
        if not self.homes.apply(key, Took(pending.id, time())):
            self._on_loop(self._say, "took", worker, key, *pending.id)

    def withdraw(self, pending: Pending, expired: bool) -> None:
        """Its caller gives a call up; if its time-out is over, it takes an answer that is on its way."""
        pending.withdrawn = True
        event = Withdraw(pending.id, expired, time())
        if pending.home is None or not self.homes.apply(pending.home[1], event):
            self._on_loop(self._withdraw, pending, expired)

    def _withdraw(self, pending: Pending, expired: bool) -> None:
        if pending.home is not None:
            worker, key = pending.home
            self._say("withdraw", worker, key, *pending.id, expired)
        elif expired:  # not sent yet: its home takes it all the same (a barrier breaks), if it is found soon
            self._loop.call_later(_LATE, _give_up, pending)
        else:
            _give_up(pending)

    def _on_loop(self, function: Callable[..., None], *args: Any) -> None:
        if threading.get_ident() == self._thread:
            function(*args)
        else:
            self._loop.add_callback(function, *args)

    def _ask_here(self, begun: _Begun, route: Route) -> bool:
        """Returns False if the home isn't here."""
        home, run = _home(route, begun.ask), begun.caller.run
        if home[1] not in self.homes:
            return False
        begun.pending.home = home
        if not self._binds(begun):
            return True
        found = self.homes.call(home[1], begun.call(begun.caller), partial(self._settle, begun))
        if begun.ask.binds and not self._is_live(run):  # it has ended meanwhile
            self._loop.add_callback(self.forget_run, run)
        return found

    def _start(self, begun: _Begun) -> None:
        route = self._routes.get(begun.spec.name)
        if self._closed is not None:
            begun.fail(self._closed)
        elif route is None or begun.spec.differs(route.kind, route.options):
            self._spawn(self._start_unknown(begun))
        else:
            self._send(begun, route)

    async def _start_unknown(self, begun: _Begun) -> None:
        try:
            route = await self._found(begun.spec)
        except (Exception, asyncio.CancelledError) as error:  # the caller's to see
            begun.fail(error if isinstance(error, SkywardError) else _unreachable(begun.spec, error))
            return
        if begun.ask.operation:
            self._send(begun, route)
        else:
            begun.pending.set_result(route)

    async def _found(self, spec: Spec) -> Route:
        """Open a collection; callers at once ask together."""
        task = self._opening.get(spec)
        if task is None:
            task = self._opening[spec] = asyncio.ensure_future(self._open(spec))
            task.add_done_callback(lambda _: self._opening.pop(spec))
        route = self._routes[spec.name] = await asyncio.shield(task)
        return route

    def _send(self, begun: _Begun, route: Route) -> None:
        if begun.pending.done():  # given up meanwhile
            return
        if not self._ask_here(begun, route):
            self._ask_elsewhere(begun, route)
        if begun.pending.withdrawn:
            self.withdraw(begun.pending, expired=True)

    def _ask_elsewhere(self, begun: _Begun, route: Route) -> None:
        worker, key = begun.pending.home = _home(route, begun.ask)
        if worker == self._address:
            self._take_answer(begun, route, _MOVED)
        elif self._binds(begun):
            try:
                call = _pickled(begun.call(self._present(begun.caller)))
            except Exception as error:  # keys are nested too deeply, say; the caller's to see
                begun.fail(error)
            else:
                self._post(worker, key, call, partial(self._take_answer, begun, route))

    def _take_answer(self, begun: _Begun, route: Route, data: bytes | None) -> None:
        answer: Answer = (False, _lost(begun.spec, route)) if data is None else pickle.loads(data)
        error = answer[1]
        if data is None or isinstance(error, Moved):
            self._forget_route(begun.spec, route)
        if not isinstance(error, Moved):
            self._settle(begun, answer)
            return
        begun.pending.home = None
        if begun.pending.withdrawn:
            begun.fail(Withdrawn())
        elif begun.again or isinstance(error, Forgotten):
            begun.again = isinstance(error, Forgotten)
            self._start(begun)
        else:
            begun.fail(_unreachable(begun.spec, error))

    def destroyed(self, spec: Spec) -> None:
        """A collection was destroyed from here: what was known of it means nothing any more."""
        self._routes.pop(spec.name, None)
        self._recent.clear()

    def _forget_route(self, spec: Spec, route: Route) -> None:
        if self._routes.get(spec.name) is route:
            del self._routes[spec.name]

    def _settle(self, begun: _Begun, answer: Answer) -> None:
        went_well, value = answer
        if not went_well:
            begun.fail(value)
            return
        route = self._routes.get(begun.spec.name)
        if route is not None and route.is_eventual:
            self._recent.note(begun.spec, begun.ask, value, begun.asked)
        begun.pending.set_result(value)

    # --- runs that end -----------------------------------------------------------------------------------

    def _binds(self, begun: _Begun) -> bool:
        """Note that a run may hold something at a home; False: the run has ended, and may not."""
        run, home = begun.caller.run, begun.pending.home
        if not run or not begun.ask.binds or home is None:
            return True
        if not self._is_live(run):
            begun.fail(CancelledError("the run of the task that asked has ended"))
            return False
        self._bound.setdefault(run, set()).add(home)
        return True

    def forget_run(self, run: str) -> None:
        """A run has ended: have the homes give back what it holds."""
        for worker, key in self._bound.pop(run, ()):
            if not self.homes.apply(key, Forget(self._party, run, time())):
                self._say("gone", worker, key, self._party, run)

    # --- other processes ---------------------------------------------------------------------------------

    def _post(self, worker: str, key: str, call: bytes, on_answer: OnAnswer) -> None:
        if not self._is_there(worker):
            on_answer(_MOVED)
            return
        wire = self._wire(self._via or worker)
        number = next(self._numbers)
        self._pending[number] = wire, on_answer
        wire.send("call", number, worker, key, call)

    def _say(self, what: str, worker: str, *rest: Any) -> None:
        """Send what has no answer to a home elsewhere, if there is still somebody to hear it."""
        if worker != self._address and self._is_there(worker):
            self._wire(self._via or worker).send(what, worker, *rest)

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
        elif what == "withdraw":
            self._take_withdrawal(*rest)
        elif what == "gone":
            _, key, party, run = rest
            self.homes.apply(key, Forget(party, run, time()))

    def _take_call(self, wire: Wire, number: int, worker: str, key: str, call: bytes) -> None:
        def answer(data: bytes | None) -> None:
            wire.send("answer", number, data)

        def reply(value: Answer) -> None:
            self._on_loop(answer, pickle.dumps(value, protocol=5))

        if key in self.homes:
            unpickled = _unpickled(call)
            # else: the last words of one that is gone: nobody would free what they take
            if not (self.homes.knows(unpickled.caller.party) and self.homes.call(key, unpickled, reply)):
                answer(_MOVED)
        elif worker == self._address:
            answer(_MOVED)
        else:
            self._post(worker, key, call, answer)

    def _take_receipt(self, worker: str, key: str, session: str, number: int) -> None:
        if not self.homes.apply(key, Took((session, number), time())):
            self._say("took", worker, key, session, number)

    def _take_withdrawal(self, worker: str, key: str, session: str, number: int, expired: bool) -> None:
        if not self.homes.apply(key, Withdraw((session, number), expired, time())):
            self._say("withdraw", worker, key, session, number, expired)

    def _end(self, wire: Wire, unsent: list[Message]) -> None:
        """A wire has ended: what it had to answer is lost, but for what never left."""
        for address in [address for address, each in self._wires.items() if each is wire]:
            del self._wires[address]
            self._forget_routes(address)
        safe = {message[1] for message in unsent if message[0] == "call"}
        for number in [number for number, (each, _) in self._pending.items() if each is wire]:
            _, on_answer = self._pending.pop(number)
            on_answer(_MOVED if number in safe else None)

    def _forget_routes(self, address: str) -> None:
        """Nothing is to be had from there any more without asking the directory."""
        for name, route in list(self._routes.items()):
            if address == self._via or any(worker == address for worker, _ in route.homes):
                del self._routes[name]

    # --- parties come and go -----------------------------------------------------------------------------

    def forget_party(self, party: str, worker: str) -> None:
        """It is gone: what its callers hold here is given back; so are the homes, if it was a worker."""
        self._forget_routes(worker)
        self.homes.forget(Forget(party, at=time()))

    def close(self, reason: str) -> None:
        """This process leaves the cluster: calls that wait, and later ones, fail for this reason."""
        self._closed = CollectionLost(reason)
        self.homes.end_all(Close(reason, time()))
        for task in self._background:
            task.cancel()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(coroutine)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _give_up(pending: Pending) -> None:
    """A call that has not been sent won't be."""
    if pending.home is None and not pending.done():
        pending.set_exception(Withdrawn())


def _home(route: Route, ask: Ask) -> tuple[str, str]:
    return route.homes[ask.place % len(route.homes)]


def _pickled(call: Call) -> bytes:
    caller = call.caller
    who = caller.party, caller.run, caller.task, caller.slot, caller.place
    flat = (*call.id, *who, call.operation, call.arguments)
    return pickle.dumps(flat, protocol=5)


def _unpickled(data: bytes) -> Call:
    session, number, party, run, task, slot, place, operation, arguments = pickle.loads(data)
    return Call((session, number), Caller(party, run, task, slot, place), operation, arguments, time())


def _lost(spec: Spec, route: Route) -> CollectionLost:
    workers = ", ".join(sorted({worker for worker, _ in route.homes}))
    return CollectionLost(
        f"{spec.kind} {spec.name!r} lives on {workers}, and the connection was lost while an operation was "
        "on its way: it may have taken effect. If the worker is gone, what the collection held is gone too: "
        "destroy() it, and fill it anew."
    )


def _unreachable(spec: Spec, cause: BaseException) -> CollectionLost:
    error = CollectionLost(
        f"{spec.kind} {spec.name!r} can't be reached, and the operation was not carried out: its worker or "
        "the scheduler doesn't answer, or this process is closing. If the scheduler has ended, its "
        "collections have ended with it."
    )
    error.__cause__ = cause
    return error

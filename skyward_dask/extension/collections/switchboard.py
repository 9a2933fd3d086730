"""A switchboard: the calls of one process, from a handle's question to its answer.

```
 handle ── begin ──▶ route known? ── yes ──▶ home here? ── yes ──▶ Homes.call, in the caller's thread
                         └─ no: ask the directory  └─ no: Links.ask, on the loop ──▶ a home elsewhere
```

Each call that is begun gets an answer: from its home, or an error when its link is lost or the process leaves
the cluster.
"""

from __future__ import annotations

import asyncio
import os
import pickle
from collections.abc import Callable
from concurrent.futures import CancelledError, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from time import time
from uuid import uuid4

from tornado.ioloop import IOLoop

from skyward_dask.config import staleness
from skyward_dask.errors import FORKED, CollectionLost, SkywardError, WorkerUnreachable
from skyward_dask.extension.collections.call_messages import Confirm, GiveUp, RunEnded, pickled
from skyward_dask.extension.collections.links import MOVED, Links
from skyward_dask.extension.collections.read_cache import Asked, Recent
from skyward_dask.extension.collections.routes import Routes
from skyward_dask.shared.asks import Ask, Pending, Route, Spec
from skyward_dask.shared.events import Answer, Call, Caller, CallId, Forgotten, Moved, Withdrawn
from skyward_dask.shared.kinds import KINDS

#: Seconds in which a collection must be found or made, so that a call that has timed out still reaches it.
_LATE = 5.0


@dataclass(slots=True, eq=False)
class _Begun:
    """A call of this process that has no answer yet; `again` says whether it can be sent again."""

    spec: Spec
    ask: Ask
    caller: Caller
    pending: Pending
    asked: Asked
    again: bool = True

    def succeed(self, value: object) -> None:
        with suppress(InvalidStateError):  # it was withdrawn before it was sent, or the process has left
            self.pending.set_result(value)

    def fail(self, error: BaseException) -> None:
        with suppress(InvalidStateError):
            self.pending.set_exception(error)


class Switchboard:
    """The calls of one process.

    Parameters
    ----------
    party : str
        The party that makes the calls of this process's runs.
    loop : tornado.ioloop.IOLoop
    routes : Routes
    links : Links
    is_live : callable
        Whether a run is still wanted: calls of a run that has ended are refused, because it would hold for
        ever what they take.
    present : callable
        Returns the caller as it is when the call is sent: a client that has reconnected is another party.

    Notes
    -----
    `begin`, `took`, `withdraw` and `close` may be called in any thread, the rest only on the loop.
    """

    def __init__(
        self,
        party: str,
        loop: IOLoop,
        routes: Routes,
        links: Links,
        is_live: Callable[[str], bool] = lambda run: True,
        present: Callable[[Caller], Caller] = lambda caller: caller,
    ) -> None:
        self._party, self._loop = party, loop
        self._routes, self._links, self._homes = routes, links, links.homes
        self._is_live, self._present = is_live, present
        self._session = uuid4().hex
        self._numbers = count(1)
        self._begun: set[_Begun] = set()
        # the homes at which a run may hold something
        self._bound: dict[str, set[tuple[str, str]]] = {}
        self._recent = Recent(staleness())
        self._finding: set[asyncio.Task[None]] = set()
        self._closed = ""
        self._process = os.getpid()

    def begin(self, spec: Spec, ask: Ask, caller: Caller, call_id: CallId | None = None) -> Pending:
        """Send a call to a collection; `call_id` is given if the call has an id already."""
        self._refuse_if_useless()
        pending = Pending(*(call_id or (self._session, next(self._numbers))))
        pending.confirmed = ask.operation in KINDS[spec.kind].confirmed
        begun = _Begun(spec, ask, caller, pending, self._recent.asked())
        route = self._routes.get(spec)
        if route is None:
            self._start_on_loop(begun)
        elif not ask.operation:
            pending.set_result(route)
        elif route.is_eventual and ask.reads and (recent := self._recent.get(spec, ask)) is not None:
            pending.set_result(recent[0])
        elif not self._ask_here(begun, route):
            self._start_on_loop(begun)
        return pending

    def _refuse_if_useless(self) -> None:
        if self._closed:
            raise CollectionLost(self._closed)
        if os.getpid() != self._process:
            raise WorkerUnreachable(FORKED)

    def took(self, pending: Pending) -> None:
        """The caller has received the answer."""
        if pending.confirmed and pending.home is not None:
            self._links.tell(Confirm(*pending.home, *pending.id))

    def withdraw(self, pending: Pending, expired: bool) -> None:
        """The caller gives up a call; if the call has timed out, the caller takes an answer on its way."""
        pending.withdrawn = True
        if pending.home is not None:
            self._links.tell(GiveUp(*pending.home, *pending.id, expired))
        else:
            self._links.on_loop(self._withdraw, pending, expired)

    def _withdraw(self, pending: Pending, expired: bool) -> None:
        if pending.home is not None:  # it was sent meanwhile
            self._links.tell(GiveUp(*pending.home, *pending.id, expired))
        elif expired:  # not sent yet: its home still gets it (a barrier breaks), if found soon
            self._loop.call_later(_LATE, _give_up, pending)
        else:
            _give_up(pending)

    # --- from the question to the home -------------------------------------------------------------------

    def _ask_here(self, begun: _Begun, route: Route) -> bool:
        """Ask the home, if it is in this process; returns False if it isn't."""
        home, pending, run = _home(route, begun.ask), begun.pending, begun.caller.run
        if home[1] not in self._homes:
            return False
        pending.home = home
        if not self._binds(begun):
            return True
        call = Call(pending.id, begun.caller, begun.ask.operation, begun.ask.arguments, time())
        found = self._homes.call(home[1], call, partial(self._settle, begun, route))
        if begun.ask.binds and not self._is_live(run):  # it has ended meanwhile
            self._loop.add_callback(self.forget_run, run)
        return found

    def _start_on_loop(self, begun: _Begun) -> None:
        self._begun.add(begun)
        begun.pending.add_done_callback(lambda _: self._begun.discard(begun))
        if self._closed:  # it was closed meanwhile
            begun.fail(CollectionLost(self._closed))
        else:
            self._links.on_loop(self._start, begun)

    def _start(self, begun: _Begun) -> None:
        if begun.pending.done():  # given up, or the process has left
            return
        if (route := self._routes.get(begun.spec)) is not None:
            self._send(begun, route)
        else:
            task = asyncio.ensure_future(self._find(begun))
            self._finding.add(task)
            task.add_done_callback(self._finding.discard)

    async def _find(self, begun: _Begun) -> None:
        try:
            route = await self._routes.find(begun.spec)
        except (Exception, asyncio.CancelledError) as error:  # the caller gets it
            begun.fail(error if isinstance(error, SkywardError) else _unreachable(begun.spec, error))
            return
        if begun.ask.operation:
            self._send(begun, route)
        else:
            begun.succeed(route)

    def _send(self, begun: _Begun, route: Route) -> None:
        if begun.pending.done():  # given up meanwhile
            return
        if not self._ask_here(begun, route):
            self._ask_elsewhere(begun, route)
        if begun.pending.withdrawn:
            self.withdraw(begun.pending, expired=True)

    def _ask_elsewhere(self, begun: _Begun, route: Route) -> None:
        pending, ask = begun.pending, begun.ask
        worker, key = pending.home = _home(route, ask)
        if worker == self._links.address:
            self._take_answer(begun, route, MOVED)
        elif self._binds(begun):
            try:
                call = pickled(pending.id, self._present(begun.caller), ask.operation, ask.arguments)
            except Exception as error:  # for example, keys are nested too deeply; the caller gets it
                begun.fail(error)
            else:
                self._links.ask(worker, key, call, partial(self._take_answer, begun, route))

    # --- from the home to the answer ---------------------------------------------------------------------

    def _take_answer(self, begun: _Begun, route: Route, data: bytes | None) -> None:
        answer: Answer = (False, _lost(begun.spec, route)) if data is None else pickle.loads(data)
        error = answer[1]
        if data is None or isinstance(error, Moved):
            self._routes.forget(begun.spec, route)
        if not isinstance(error, Moved):
            self._settle(begun, route, answer)
            return
        begun.pending.home = None
        if begun.pending.withdrawn:
            begun.fail(Withdrawn())
        elif begun.again or isinstance(error, Forgotten):
            begun.again = isinstance(error, Forgotten)
            self._start(begun)
        else:
            begun.fail(_unreachable(begun.spec, error))

    def _settle(self, begun: _Begun, route: Route, answer: Answer) -> None:
        went_well, value = answer
        if not went_well:
            begun.fail(value)
            return
        if route.is_eventual:
            self._recent.note(begun.spec, begun.ask, value, begun.asked)
        begun.succeed(value)

    # --- what ends ---------------------------------------------------------------------------------------

    def _binds(self, begun: _Begun) -> bool:
        """Note that a run may hold something at a home; returns False if the run has ended, and may not."""
        run, home = begun.caller.run, begun.pending.home
        if not run or not begun.ask.binds or home is None:
            return True
        if not self._is_live(run):
            begun.fail(CancelledError("the run of the task that asked has ended"))
            return False
        self._bound.setdefault(run, set()).add(home)
        return True

    def forget_run(self, run: str) -> None:
        """A run has ended: have the homes take back what it holds."""
        for worker, key in self._bound.pop(run, ()):
            self._links.tell(RunEnded(worker, key, self._party, run))

    def destroyed(self, spec: Spec) -> None:
        """A collection was destroyed from here: forget what was known about it."""
        self._routes.forget(spec)
        self._recent.clear()

    def close(self, reason: str) -> None:
        """This process leaves the cluster: every call that has no answer, and every later one, fails."""
        self._closed = reason
        for begun in list(self._begun):
            begun.fail(CollectionLost(reason))
        self._links.on_loop(self._stop_finding)

    def _stop_finding(self) -> None:
        for task in self._finding:
            task.cancel()


def _give_up(pending: Pending) -> None:
    """Give up a call that hasn't been sent, and won't be."""
    if pending.home is None:
        with suppress(InvalidStateError):
            pending.set_exception(Withdrawn())


def _home(route: Route, ask: Ask) -> tuple[str, str]:
    return route.homes[ask.place % len(route.homes)]


def _lost(spec: Spec, route: Route) -> CollectionLost:
    workers = ", ".join(sorted({worker for worker, _ in route.homes}))
    return CollectionLost(
        f"{spec.kind} {spec.name!r} lives on {workers}, and the connection was lost while an operation was "
        "on its way: it may have taken effect. If the worker is gone, what the collection held is gone too: "
        "destroy() it, and fill it again."
    )


def _unreachable(spec: Spec, cause: BaseException) -> CollectionLost:
    error = CollectionLost(
        f"{spec.kind} {spec.name!r} can't be reached, and the operation was not carried out: its worker or "
        "the scheduler doesn't answer, or this process is closing. If the scheduler has ended, its "
        "collections have ended with it."
    )
    error.__cause__ = cause
    return error

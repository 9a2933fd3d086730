"""A switchboard: the calls of one process, from a handle's question to its answer.

```
 handle ── begin ──▶ route known? ── yes ──▶ home here? ── yes ──▶ Homes.call, in the caller's thread
                         └─ no: ask the directory  └─ no: Links.ask, on the loop ──▶ a home elsewhere
```

Each call that is begun gets an answer: from its home, or an error when the collection is lost or the process
leaves the cluster. If its answer is lost on the way, it is sent again, with the same number, until it has
one; so is what else a home has to know: that an answer has arrived, a call is given up, or a run has ended.
"""

from __future__ import annotations

import asyncio
import os
import pickle
from collections.abc import Callable
from concurrent.futures import CancelledError, InvalidStateError
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import count
from time import time
from uuid import uuid4

from tornado.ioloop import IOLoop

from skyward_dask.errors import FORKED, CollectionLost, SkywardError, WorkerUnreachable
from skyward_dask.extension.collections.begun import Begun, destroyed, lost, unreachable
from skyward_dask.extension.collections.call_messages import Word, pickled
from skyward_dask.extension.collections.deliveries import Deliveries
from skyward_dask.extension.collections.links import MOVED, Links
from skyward_dask.extension.collections.read_cache import ReadCache
from skyward_dask.extension.collections.routes import Routes
from skyward_dask.settings import staleness
from skyward_dask.shared.asks import Ask, Pending, Route, Spec
from skyward_dask.shared.events import (
    Answer,
    Call,
    Caller,
    Deposed,
    Forget,
    Forgotten,
    Moved,
    Took,
    Withdraw,
    Withdrawn,
)
from skyward_dask.shared.kinds import KINDS
from skyward_dask.slots.aside import Tasks

#: Seconds in which a collection must be found or made, so that a call that has timed out still reaches it.
_LATE = 5.0
#: Seconds for which a call is sent again if nobody takes it: Dask takes 30 to notice that a machine is gone.
_PATIENCE = 60.0
#: Seconds before a call is sent once more, if the first further time was in vain: a failover takes as long.
_PAUSE = 0.05
#: Bytes of an answer that a home is told of at once when it has come, instead of with the next call.
_LARGE = 1 << 16


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
        self._begun: set[Begun] = set()
        # the homes at which a run may hold something, by their keys
        self._bound: dict[str, dict[str, Pending]] = {}
        self._deliveries = Deliveries()
        self._read_cache = ReadCache(staleness())
        self._finding = Tasks()
        self._closed = ""
        self._process = os.getpid()

    def begin(self, spec: Spec, ask: Ask, caller: Caller) -> Pending:
        """Send a call to a collection."""
        self._refuse_if_useless()
        pending = Pending(self._session, next(self._numbers), (spec, ask.place))
        pending.confirmed = ask.operation in KINDS[spec.kind].confirmed
        begun = Begun(spec, ask, caller, pending, self._read_cache.asked())
        route = self._routes.get(spec)
        if route is None:
            self._start_on_loop(begun)
        elif not ask.operation:
            pending.set_result(route)
        elif route.is_eventual and ask.reads and (kept := self._read_cache.get(spec, ask)) is not None:
            pending.set_result(kept[0])
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
            self._tell(pending, Took(pending.id))

    def withdraw(self, pending: Pending, expired: bool) -> None:
        """The caller gives up a call; if the call has timed out, the caller takes an answer on its way."""
        pending.withdrawn = True
        if pending.home is not None:
            self._tell(pending, Withdraw(pending.id, expired))
        else:
            self._links.on_loop(self._withdraw, pending, expired)

    def _withdraw(self, pending: Pending, expired: bool) -> None:
        if pending.home is not None:  # it was sent meanwhile
            self._tell(pending, Withdraw(pending.id, expired))
        elif expired:  # not sent yet: its home still gets it (a barrier breaks), if found soon
            self._loop.call_later(_LATE, _give_up, pending)
        else:
            _give_up(pending)

    def _tell(self, about: Pending, word: Word) -> None:
        """Have the home of a call know something, wherever it has moved."""
        if self._closed or about.home is None:
            return
        spec, place = about.asked
        told = Pending(*about.id, about.asked)
        told.home = about.home
        ask, caller = Ask(place=place), Caller(self._party)
        begun = Begun(spec, ask, caller, told, self._read_cache.asked(), word, is_doubtful=True)
        route = self._routes.get(spec)
        if route is None or route.home(ask)[1] != about.home[1] or not self._ask_here(begun, route):
            self._start_on_loop(begun)

    # --- from the question to the home -------------------------------------------------------------------

    def _ask_here(self, begun: Begun, route: Route) -> bool:
        """Ask the home, if it is in this process; returns False if it isn't."""
        home = route.home(begun.ask)
        if home[1] not in self._homes:
            return False
        if not self._binds(begun, home):
            return True
        event, run = self._event(begun, home, begun.caller), begun.caller.run
        found = self._homes.apply(home[1], event, partial(self._take, begun, route))
        if begun.ask.binds and not self._is_live(run):  # it has ended meanwhile
            self._loop.add_callback(self.forget_run, run)
        return found

    def _event(self, begun: Begun, home: tuple[str, str], caller: Caller) -> Call | Word:
        """What is sent to a home now."""
        begun.pending.home, begun.sent_as = home, caller.party
        if begun.word is not None:
            return replace(begun.word, at=time())
        begun.attempt = self._deliveries.attempt(home[1])
        if begun.is_kept and not begun.done:
            begun.done = self._deliveries.take(home[1])
        ask = begun.ask
        return Call(begun.pending.id, caller, ask.operation, ask.arguments, time(), begun.attempt, begun.done)

    def _start_on_loop(self, begun: Begun) -> None:
        self._begun.add(begun)
        begun.pending.add_done_callback(lambda _: self._begun.discard(begun))
        if self._closed:  # it was closed meanwhile
            begun.fail(CollectionLost(self._closed))
        else:
            self._links.on_loop(self._start, begun)

    def _start(self, begun: Begun) -> None:
        if begun.pending.done():  # given up, or the process has left
            return
        if (route := self._routes.get(begun.spec)) is not None:
            self._send(begun, route)
        else:
            self._finding.spawn(self._find(begun))

    async def _find(self, begun: Begun) -> None:
        try:
            route = await self._routes.find(begun.spec, begun.key)
        except (Exception, asyncio.CancelledError) as error:  # the caller gets it
            begun.fail(error if isinstance(error, SkywardError) else unreachable(begun, error))
            return
        if begun.ask.operation or begun.word is not None:
            self._send(begun, route)
        else:
            begun.succeed(route)

    def _send(self, begun: Begun, route: Route) -> None:
        if begun.pending.done():  # given up meanwhile
            return
        if begun.key not in ("", route.home(begun.ask)[1]):
            begun.fail(destroyed(begun.spec))
        elif not self._ask_here(begun, route):
            self._ask_elsewhere(begun, route)
        if begun.pending.withdrawn and not begun.is_doubtful:
            self.withdraw(begun.pending, expired=True)

    def _ask_elsewhere(self, begun: Begun, route: Route) -> None:
        worker, key = home = route.home(begun.ask)
        if not self._binds(begun, home):
            return
        try:
            event = pickled(self._event(begun, home, self._present(begun.caller)))
        except Exception as error:  # for example, keys are nested too deeply; the caller gets it
            begun.fail(error)
            return
        if worker == self._links.address:
            self._take_answer(begun, route, MOVED)
        else:
            self._links.ask(worker, key, event, partial(self._take_answer, begun, route))

    # --- from the home to the answer ---------------------------------------------------------------------

    def _take_answer(self, begun: Begun, route: Route, data: bytes | None) -> None:
        answer: Answer = (False, Deposed()) if data is None else pickle.loads(data)
        self._take(begun, route, answer, data is not None and len(data) > _LARGE)

    def _take(self, begun: Begun, route: Route, answer: Answer, is_large: bool = False) -> None:
        if isinstance(answer[1], (Moved, Deposed)):
            self._links.on_loop(self._take_back, begun, route, answer[1])
        else:
            self._settle(begun, route, answer, is_large)

    def _take_back(self, begun: Begun, route: Route, why: Exception) -> None:
        """The call was not carried out, or its answer is lost: send it again."""
        pending = begun.pending
        self._routes.forget(begun.spec, route)
        if isinstance(why, Deposed):
            begun.is_doubtful = True
            self._deliveries.note_lost(begun.home_key, begun.attempt)
        elif isinstance(why, Forgotten):  # it had no effect
            begun.is_doubtful, begun.tries = False, 0
        if not begun.is_doubtful:
            pending.home = None
        if not begun.is_doubtful and pending.withdrawn:
            begun.fail(Withdrawn())
        elif begun.is_doubtful and self._present(begun.caller).party != begun.sent_as:
            begun.fail(lost(begun.spec, route))  # its records have ended with the party
        else:
            self._try_again(begun, why)

    def _try_again(self, begun: Begun, why: Exception) -> None:
        if begun.came_back() > _PATIENCE:
            begun.fail(unreachable(begun, why))
        elif begun.tries == 1:
            self._start_on_loop(begun)
        else:
            self._loop.call_later(_PAUSE, self._start, begun)

    def _settle(self, begun: Begun, route: Route, answer: Answer, is_large: bool) -> None:
        went_well, value = answer
        pending = begun.pending
        if begun.is_kept and not (went_well and pending.confirmed):
            if is_large:
                self._tell(pending, Took(pending.id))
            else:
                self._deliveries.note(begun.home_key, pending.id[1])
        if not went_well:
            begun.fail(value)
            return
        if route.is_eventual and begun.word is None:
            self._read_cache.note(begun.spec, begun.ask, value, begun.asked)
        begun.succeed(value)

    # --- what ends ---------------------------------------------------------------------------------------

    def _binds(self, begun: Begun, home: tuple[str, str]) -> bool:
        """Note that a run may hold something at a home; returns False if the run has ended, and may not."""
        run = begun.caller.run
        if not run or not begun.ask.binds:
            return True
        if not self._is_live(run):
            if begun.is_doubtful:  # it may have been given something
                self._tell(begun.pending, Withdraw(begun.pending.id))
            begun.fail(CancelledError("the run of the task that asked has ended"))
            return False
        bound = self._bound.setdefault(run, {})
        if home[1] not in bound:
            bound[home[1]] = Pending(self._session, 0, begun.pending.asked)
            bound[home[1]].home = home
        return True

    def forget_run(self, run: str) -> None:
        """A run has ended: have the homes take back what it holds."""
        for pending in self._bound.pop(run, {}).values():
            self._tell(pending, Forget(self._party, run))

    def fence(self, key: str, epoch: int) -> list[str]:
        """Another worker may become the host of this home; returns the runs that may hold something there.

        What has no answer is sent there, when the directory says where that is.
        """
        self._routes.fence(key, epoch)
        self._read_cache.clear()
        self._links.abandon(key)
        return [run for run, bound in self._bound.items() if key in bound]

    def destroyed(self, spec: Spec) -> None:
        """A collection was destroyed from here: forget what was known about it."""
        self._routes.forget(spec)
        self._read_cache.clear()

    def close(self, reason: str) -> None:
        """This process leaves the cluster: every call that has no answer, and every later one, fails."""
        self._closed = reason
        for begun in list(self._begun):
            begun.fail(CollectionLost(reason))
        self._links.on_loop(self._finding.cancel)


def _give_up(pending: Pending) -> None:
    """Give up a call that hasn't been sent, and won't be."""
    if pending.home is None:
        with suppress(InvalidStateError):
            pending.set_exception(Withdrawn())

"""The worker's end of a stream whose generator is in a slot's process.

The task's run stays under way as long as its stream. Its child holds no slot while it waits for the reader;
it gets one again before it goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from skyward_dask.errors import SlotCrashed
from skyward_dask.extension.streams.hosts import Hosted
from skyward_dask.extension.streams.reading import PATIENCE
from skyward_dask.slots.exceptions import dump_exception
from skyward_dask.slots.memory.forms import Form
from skyward_dask.slots.outcomes import RunEnded
from skyward_dask.slots.pool import Pool
from skyward_dask.slots.runs import Run
from skyward_dask.slots.yielded_items import grant_items
from skyward_dask.streams.credit import Window
from skyward_dask.streams.messages import Broken, Grant, Outcome, Part, Raised
from skyward_dask.streams.producing import CLOSED


class Rest:
    """The answer to a request for which a run waits, outside its slot if it takes longer.

    Parameters
    ----------
    pool : Pool
    run : Run
    patience : float or None
        Seconds for which the run keeps its slot; None for ever, as another thread of the task computes.
    """

    def __init__(self, pool: Pool, run: Run, patience: float | None) -> None:
        self._pool, self._run = pool, run
        loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[Any] = loop.create_future()
        self._leaving = None if patience is None else loop.call_later(patience, pool.secede, run)

    def end(self, value: object, needs_slot: bool = True) -> None:
        """Give the answer, once the run has a slot again."""
        if self._leaving is None:
            needs_slot = False
        else:
            self._leaving.cancel()
        if not needs_slot or self._run.slotted or self._run.child is None:
            self._settle(value)
            return
        self._pool.rejoin(self._run).add_done_callback(lambda _: self._settle(value))

    def _settle(self, value: object) -> None:
        if not self.answer.done():
            self.answer.set_result(value)


class ChildProducer:
    """Has a child step a generator. Used on the worker's loop only.

    Parameters
    ----------
    hosted : Hosted
    begin : callable or None
        Starts the run that makes the generator; None if it is under way.
    grace : float
        Seconds that a step may take after the stream was closed, before the run is stopped.
    """

    def __init__(self, hosted: Hosted, begin: Callable[[], None] | None, grace: float) -> None:
        self._hosted, self._begin, self._grace = hosted, begin, grace
        self._loop = asyncio.get_running_loop()
        self._pool: Pool | None = None
        self._run: Run | None = None
        self._window: Window | None = None
        self._items = self._nbytes = 0
        self._rest: Rest | None = None
        self._is_closing = False
        self._ending: asyncio.TimerHandle | None = None

    def enter(self, pool: Pool, run: Run) -> None:
        """This run has, or will have, the generator."""
        self._pool, self._run = pool, run

    # --- what the reader wants -----------------------------------------------------------------------------

    def start(self, window: Window) -> None:
        self._window = window
        self._items, self._nbytes = window.items, window.nbytes
        if self._begin is not None:
            begin, self._begin = self._begin, None
            begin()
        else:
            self._go_on()

    def allow(self, grant: Grant) -> None:
        self._items += grant.items
        self._nbytes += grant.nbytes
        self._go_on()

    def stop(self) -> None:
        self._is_closing = True
        if self._run is None or self._pool is None:  # it has never begun
            self._begin = None
            self._hosted.ended(CLOSED)
        elif self._run.child is None:
            self._pool.stop(self._run)
        else:
            self._go_on()
            self._ending = self._loop.call_later(self._grace, self._pool.stop, self._run)

    def _go_on(self) -> None:
        """Tell the child what it may send, or that it must close its generator."""
        if self._pool is None or self._run is None:
            return
        grant_items(self._run, self._items, self._nbytes, self._is_closing)
        rest, self._rest = self._rest, None
        if rest is not None:
            rest.end(self._window and self._window.nbytes, needs_slot=not self._is_closing)

    # --- what the child asks -------------------------------------------------------------------------------

    def opened(self) -> asyncio.Future[Any]:
        """The child has the generator, and waits for a reader; the answer is the window, or None."""
        assert self._pool is not None and self._run is not None
        self._run.yields = True
        return self._waits(0.0 if self._window is None else PATIENCE, self._window is not None)

    def waits(self, items: int, is_held: bool) -> asyncio.Future[Any]:
        """The child has used what it knows to be granted."""
        has_news = items < self._items
        if is_held and not has_news:
            self._hosted.holding()
        return self._waits(PATIENCE, has_news)

    def _waits(self, patience: float, goes_on: bool) -> asyncio.Future[Any]:
        assert self._pool is not None and self._run is not None
        rest = self._rest = Rest(self._pool, self._run, patience)
        if goes_on or self._is_closing:
            self._go_on()
        return rest.answer

    def take(self, form: Form) -> None:
        """The child has sent an item."""
        self._hosted.produced([form.views()])

    def take_packed(self, count: int, block: Part) -> None:
        """The child has sent small items."""
        self._hosted.produced_packed(count, block)

    def over(self, outcome: Form | BaseException | None) -> None:
        """The run has ended."""
        if self._ending is not None:
            self._ending.cancel()
        self._hosted.ended(_outcome(outcome))


def _outcome(outcome: Form | BaseException | None) -> Outcome:
    if isinstance(outcome, Form):
        found: Outcome = outcome.load()
        return found
    assert outcome is not None
    if isinstance(outcome, RunEnded):
        return Broken(f"{outcome}.")
    if type(outcome) is SlotCrashed:
        return Broken(f"the process of its slot has died: {outcome}")
    return Raised(dump_exception(outcome))

"""What steps a generator in this process: a thread, or for an asynchronous one a task of the event loop.

Both pickle each item when it is yielded: what the generator does to it later changes nothing.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, suppress
from contextvars import Context
from functools import partial
from inspect import GEN_CREATED, getgeneratorstate
from types import GeneratorType
from typing import Any

from distributed.sizeof import safe_sizeof as sizeof

from skyward_dask.extension.streams.hosts import Hosted
from skyward_dask.extension.streams.reading import PATIENCE
from skyward_dask.slots.exceptions import dump_exception
from skyward_dask.streams.credit import Credit, Window
from skyward_dask.streams.messages import Grant, Item, Outcome, Raised, Returned, size_of
from skyward_dask.streams.producing import CLOSED, pickled, produce

#: Size of an item in bytes from which pickling it takes a millisecond.
_LARGE = 64 * 1024


class ThreadProducer:
    """Steps an iterator in one thread, in one context.

    Parameters
    ----------
    iterator : iterator
    hosted : Hosted
    begin : callable
        Has a function called in a thread of its own, or of a slot.
    resting : callable
        Makes a context in which that thread waits without its slot.

    Notes
    -----
    `wait_credit`, `wait_room`, `send` and `step` are for that thread, the rest for the loop.
    """

    def __init__(
        self,
        iterator: Iterator[Any],
        hosted: Hosted,
        begin: Callable[[Callable[[], None]], object],
        resting: Callable[[], AbstractContextManager[object]],
    ) -> None:
        self._iterator: Iterator[Any] | None = iterator
        self._hosted, self._call, self._resting = hosted, begin, resting
        self._loop = asyncio.get_running_loop()
        self._changed = threading.Condition()
        self._credit = Credit(0)
        self._is_closing = self._has_begun = False
        self._sent: deque[Item] = deque()

    def start(self, window: Window) -> None:
        self._credit = Credit(window.nbytes, window.items, window.nbytes)
        self._has_begun = True
        self._call(self._run)

    def allow(self, grant: Grant) -> None:
        with self._changed:
            self._credit.grant(grant.items, grant.nbytes)
            self._changed.notify_all()

    def stop(self) -> None:
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        if self._has_begun:
            return
        self._has_begun = True
        if isinstance(self._iterator, GeneratorType) and getgeneratorstate(self._iterator) == GEN_CREATED:
            self._iterator.close()  # it runs nothing
            self._iterator = None
            self._hosted.ended(CLOSED)
        else:
            self._call(self._run)

    # --- in the thread -------------------------------------------------------------------------------------

    def _run(self) -> None:
        iterator, self._iterator = self._iterator, None
        assert iterator is not None
        outcome: Outcome
        try:
            outcome = produce(iterator, self)
        except BaseException as error:  # whoever reads the stream sees it
            outcome = Raised(dump_exception(error))
        del iterator
        self._post(self._end, outcome)

    def _end(self, outcome: Outcome) -> None:
        self._flush()
        self._hosted.ended(outcome)

    def step(self, iterator: Iterator[Any]) -> Any:
        return next(iterator)

    def wait_credit(self) -> bool:
        return self._wait(lambda: self._credit.may_produce)

    def wait_room(self, size: int) -> bool:
        with self._changed:
            if not self._credit.fits(size) and not self._is_closing:
                self._post(self._hosted.holding)
        return self._wait(lambda: self._credit.fits(size))

    def _wait(self, condition: Callable[[], bool]) -> bool:
        def is_over() -> bool:
            return self._is_closing or condition()

        with self._changed:
            is_waiting = not self._changed.wait_for(is_over, PATIENCE)
        if is_waiting:
            with self._resting(), self._changed:
                self._changed.wait_for(is_over)
        return not self._is_closing

    def send(self, item: Item) -> None:
        with self._changed:
            self._credit.send(size_of(item))
        self._sent.append(settled(item))
        if len(self._sent) == 1:  # otherwise the loop is behind, and takes this one along
            self._post(self._flush)

    def _flush(self) -> None:
        items = [self._sent.popleft() for _ in range(len(self._sent))]
        if items:
            self._hosted.produced(items)

    def _post(self, function: Callable[..., None], *args: object) -> None:
        with suppress(RuntimeError):  # the loop has ended, and its readers with it
            self._loop.call_soon_threadsafe(function, *args)


class LoopProducer:
    """Steps an asynchronous iterator as one task of the event loop, in one context.

    Parameters
    ----------
    iterator : asynchronous iterator
    hosted : Hosted
    context : contextvars.Context
    grace : float
        Seconds that a step may take after the stream was closed, before it is cancelled.
    """

    def __init__(self, iterator: AsyncIterator[Any], hosted: Hosted, context: Context, grace: float) -> None:
        self._iterator, self._hosted, self._grace = iterator, hosted, grace
        self._loop = asyncio.get_running_loop()
        self._context = context
        self._credit = Credit(0)
        self._changed = asyncio.Event()
        self._is_closing = False
        self._task: asyncio.Task[None] | None = None

    def start(self, window: Window) -> None:
        self._credit = Credit(window.nbytes, window.items, window.nbytes)
        self._task = self._loop.create_task(self._run(), context=self._context)

    def allow(self, grant: Grant) -> None:
        self._credit.grant(grant.items, grant.nbytes)
        self._changed.set()

    def stop(self) -> None:
        self._is_closing = True
        self._changed.set()
        if self._task is None:
            self._task = self._loop.create_task(self._run(), context=self._context)
        self._loop.call_later(self._grace, self._task.cancel)

    async def _run(self) -> None:
        outcome: Outcome
        try:
            outcome = await self._produce()
        except asyncio.CancelledError:
            outcome = CLOSED
        except (SystemExit, KeyboardInterrupt):
            self._hosted.ended(CLOSED)
            raise
        except BaseException as error:  # whoever reads the stream sees it
            outcome = Raised(dump_exception(error))
        self._hosted.ended(outcome)

    async def _produce(self) -> Outcome:
        count = 0
        try:
            while await self._wait(lambda: self._credit.may_produce):
                try:
                    value = await anext(self._iterator)
                except StopAsyncIteration:
                    return Returned(pickled(None, ""))
                count += 1
                item = await self._pickled(value, f"item {count} of the stream")
                size = size_of(item)
                if not self._credit.fits(size):
                    self._hosted.holding()
                if not await self._wait(partial(self._credit.fits, size)):
                    break
                self._credit.send(size)
                self._hosted.produced([item])
        finally:
            closing = getattr(self._iterator, "aclose", None)
            if closing is not None:
                await closing()
        return CLOSED

    async def _pickled(self, value: object, name: str) -> Item:
        if sizeof(value) < _LARGE:
            return settled(pickled(value, name))
        return await asyncio.to_thread(lambda: settled(pickled(value, name)))

    async def _wait(self, condition: Callable[[], bool]) -> bool:
        while not (self._is_closing or condition()):
            self._changed.clear()
            await self._changed.wait()
        return not self._is_closing


def settled(item: Item) -> Item:
    """An item whose buffers are copies: the generator may reuse the memory of what it has yielded."""
    return [item[0], *(bytes(part) for part in item[1:])]

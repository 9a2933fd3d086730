"""How a task in a slot's process reaches the worker: requests, and their answers."""

from __future__ import annotations

import itertools
import os
import queue
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from skyward_dask.errors import WorkerUnreachable
from skyward_dask.slots.channel import Channel
from skyward_dask.slots.child_messages import Answer, Ask, Item, Items
from skyward_dask.slots.exceptions import load_exception
from skyward_dask.slots.framing import Frame, Part
from skyward_dask.slots.pickling import dumps, loads, named_arguments, unpicklable
from skyward_dask.slots.status_page import Page

if TYPE_CHECKING:
    from skyward_dask.slots.child.exchange import Exchange


class Link:
    """A task's connection to the worker, which carries out calls for the active run.

    Attributes
    ----------
    run : int
        The number of the active run; 0 between runs.
    report : tuple
        Plain values that the backend adds to the answer of the run; emptied after each run.
    exchange : Exchange
        Set when the process is prepared.

    Notes
    -----
    Thread-safe. A call is refused if it comes from a thread that has outlived its run, or from a process that
    a task has forked.
    """

    def __init__(self, runs: Channel, page: Page) -> None:
        self._runs = runs
        self._page = page
        self._process = os.getpid()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Callable[[Frame], None]] = {}
        self.run = 0
        self.report: tuple[Any, ...] = ()
        self.exchange: Exchange
        self._used = 0.0

    def call(self, name: str, *args: object, **kwargs: object) -> Any:
        """Ask the worker to do `name`, and wait; raises what it raised there."""
        number = next(self._numbers)
        reply: queue.SimpleQueue[Frame] = queue.SimpleQueue()
        self._waiting[number] = reply.put
        self._request(number, name, args, kwargs)
        return _answer(reply.get())

    def begin(self, outcome: Future[Any], name: str, *args: object) -> None:
        """Like `call`, without waiting: another thread puts the answer into the outcome."""
        number = next(self._numbers)
        self._waiting[number] = partial(_settle, outcome)
        self._request(number, name, args, {})

    @property
    def is_forked(self) -> bool:
        """Whether this is another process, which a task has forked."""
        return os.getpid() != self._process

    @property
    def is_open(self) -> bool:
        """Whether the worker can be asked for something."""
        return self.run != 0 and not self.is_forked

    @property
    def stopped(self) -> bool:
        """Whether the active run must stop."""
        return self.run != 0 and self._page.stop == self.run

    def call_begins(self) -> None:
        """The task's function is about to be called: the run's time starts now."""
        self._page.called = monotonic()
        self._used = 0.0

    # --- a run that yields, in its main thread -----------------------------------------------------------

    def pause(self) -> None:
        """The run waits for its reader: its time doesn't count until `resume`."""
        if called := self._page.called:
            self._used = monotonic() - called
            self._page.called = 0.0

    def resume(self) -> None:
        """The run computes."""
        self._page.called = monotonic() - self._used

    def granted(self) -> tuple[int, int, bool]:
        """How many items and bytes the run may send, in total; whether it must close its generator."""
        return self._page.granted()

    def send_item(self, parts: list[Part]) -> None:
        """Send one item of the run's stream, large buffers in shared memory."""
        sizes, inline = self.exchange.result(parts, self.run)
        self._runs.send(Item(sizes), self.run, inline)

    def begin_stream(self) -> None:
        """The run begins to yield."""
        self._page.begin_stream()

    def keep_item(self, block: bytes) -> int:
        """Have a small item be sent with the next ones, or by the worker's own look if this process dies."""
        return self._page.add_item(block)

    def send_items(self, count: int) -> None:
        """Send the items that were kept; in any thread, but not in two at once."""
        self._runs.send(Items(count), self.run, [self._page.waiting_items()])
        self._page.have_sent(count)

    # --- requests ------------------------------------------------------------------------------------------

    def tell(self, name: str, *args: object, **kwargs: object) -> None:
        """Have the worker do `name`, and don't wait; nobody learns whether it succeeded."""
        self._request(0, name, args, kwargs)

    def _request(self, number: int, name: str, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        run = self.run
        try:
            self._check_open(name)
            parts = _pickled_arguments(args, kwargs)
            self._runs.send(Ask(run, name), number, parts)
        except BaseException:
            self._waiting.pop(number, None)
            raise

    def _check_open(self, name: str) -> None:
        if self.is_forked:
            raise WorkerUnreachable(
                f"{name!r} needs the worker, and was called in a process that a task forked: only the task's "
                "own process can reach the worker. Call it there, and pass the result to the forked "
                "processes."
            )
        if not self.run:
            raise WorkerUnreachable(
                f"{name!r} needs the worker, and was called in a thread that has outlived its task: the "
                "worker can be reached only while a task runs. Wait for the thread in the task."
            )

    def answer(self, frame: Frame) -> None:
        assert isinstance(frame.message, Answer)
        complete = frame if frame.message.layout is None else self.exchange.answer(frame)
        self._waiting.pop(frame.number)(complete)


def _answer(frame: Frame) -> Any:
    assert isinstance(frame.message, Answer)
    if frame.message.done:
        return loads(frame.parts)
    raise load_exception(frame.parts)


def _settle(outcome: Future[Any], frame: Frame) -> None:
    try:
        outcome.set_result(_answer(frame))
    except BaseException as error:  # whoever waits for the outcome sees it
        outcome.set_exception(error)


def _pickled_arguments(args: tuple[object, ...], kwargs: dict[str, object]) -> list[Part]:
    try:
        return dumps((args, kwargs))
    except Exception as error:
        raise unpicklable(named_arguments(args, kwargs), error) from error

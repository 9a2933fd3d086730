"""A call for a slot, and one run of it: which child has the run, and what was decided about it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from skyward_dask.slots.framing import Part
from skyward_dask.slots.memory.forms import Form, share
from skyward_dask.slots.memory.segments import Segments
from skyward_dask.slots.pickling import dumps, named_arguments, unpicklable

if TYPE_CHECKING:
    from skyward_dask.slots.child_process import ChildProcess


@dataclass(slots=True)  # a frozen one takes three times as long to make
class Request:
    """One call for a slot, which doesn't change.

    Attributes
    ----------
    key : str
        The task's name in errors and in its output.
    function, args, kwargs
        The call; pickled on the way.
    serve : callable
        Carries out what the task asks the worker for: ``serve(name, args, kwargs)``. Called on the pool's
        loop, and must not wait there: for work that takes a while it returns a future, of `asyncio` or of
        `concurrent.futures`, whose outcome is the answer.
    report : callable
        Takes the plain values that the child's backend adds to the answer of the run.
    again : callable
        Called before the call is given to another child because its own was lost through no fault of the
        call.
    pieces : callable
        Yields the call's parts, with their names for an error message.
    timeout : float or None
        Seconds from the call of the function, when its arguments are unpickled, until it has its outcome.
    memory_limit : int or None
        Bytes of memory of its own that the child may use, with all that it started.
    attached : callable
        Makes further positional arguments, in their pickled form.
    is_large : bool
        Whether pickling it may take long: then a helper thread does it.
    take, take_packed : callable
        Take what a call that yields sends before its result: an item, or several small ones, which `packing`
        unpacks, and their number.
    """

    key: str
    function: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    serve: Callable[[str, tuple[Any, ...], dict[str, Any]], Any] | None = None
    report: Callable[..., None] | None = None
    again: Callable[[], None] | None = None
    pieces: Callable[[], Iterator[tuple[str, object]]] | None = None
    timeout: float | None = None
    memory_limit: int | None = None
    attached: Callable[[], tuple[Form, ...]] = tuple
    is_large: bool = False
    take: Callable[[Form], None] | None = None
    take_packed: Callable[[int, Part], None] | None = None

    def pickled(self, segments: Segments | None) -> tuple[Form, ...]:
        """The call and what is attached to it.

        Raises
        ------
        SerializationError
            Something can't be pickled; the error names it.
        SharedMemoryError
            There is no room for a large argument.
        """
        try:
            parts = dumps((self.function, self.args, self.kwargs))
        except BaseException as error:  # a user's `__reduce__` may raise anything
            raise unpicklable(self.named(), error) from error
        return share(parts, segments), *self.attached()

    def named(self) -> Iterator[tuple[str, object]]:
        if self.pieces is not None:
            yield from self.pieces()
        yield "the function", self.function
        yield from named_arguments(self.args, self.kwargs)


class Verdict(Enum):
    """Why a run is ended from outside."""

    STOPPED = "stopped"
    TIMED_OUT = "timed out"
    OUT_OF_MEMORY = "out of memory"
    POOL_ENDED = "pool ended"


class Run:
    """One run of a request, from `Pool.start` to its end: there is no other object for it.

    Attributes
    ----------
    key : str
    request : Request or None
        None when the run is over: its arguments aren't kept any longer.
    forms : tuple of Form
        The call in its pickled form.
    outcome : Form or BaseException or None
        The value as its child has pickled it, or the error; None until the run is over.
    child : ChildProcess or None
        The child that has the run.
    slotted : bool
        It takes up one of the pool's slots: it has a child, and hasn't seceded.
    raised : sequence of Part or None
        The error that it will end with, in its pickled form, while its child checks its health.
    verdict : Verdict or None
        The first verdict that was given; it stands, whatever the child still sends.
    repeats : int
        How often it was given to another child because its own was lost through no fault of the run.
    stack : str
        The stacks of its process when it timed out.
    peak : int
        Bytes that its child used when it was over its limit.
    yields : bool
        It has begun to send items, and can't be repeated.
    items : int
        How many small ones have arrived.
    may_begin : callable or None
        Called when a child is about to get the run; returns False if the run was cancelled.
    """

    __slots__ = (
        "__weakref__",
        "_subscribers",
        "child",
        "deadline",
        "forms",
        "items",
        "key",
        "may_begin",
        "memory_limit",
        "outcome",
        "peak",
        "raised",
        "repeats",
        "request",
        "slotted",
        "stack",
        "timeout",
        "verdict",
        "yields",
    )

    def __init__(self, request: Request) -> None:
        self.key = request.key
        self.timeout, self.memory_limit = request.timeout, request.memory_limit
        self.request: Request | None = request
        self.forms: tuple[Form, ...] = ()
        self.outcome: Form | BaseException | None = None
        self.deadline: asyncio.TimerHandle | None = None
        self.child: ChildProcess | None = None
        self.slotted = self.yields = False
        self.raised: Sequence[Part] | None = None
        self.verdict: Verdict | None = None
        self.repeats = self.peak = self.items = 0
        self.stack = ""
        self.may_begin: Callable[[], bool] | None = None
        self._subscribers: list[Callable[[Run], None]] = []

    @property
    def has_limits(self) -> bool:
        """Whether its time or its memory is limited."""
        return self.timeout is not None or self.memory_limit is not None

    @property
    def is_over(self) -> bool:
        """Whether it has its outcome: then no verdict is given any more."""
        return self.outcome is not None

    def when_over(self, call: Callable[[Run], None]) -> None:
        """Have a function called with the run when it is over; several are called in order."""
        self._subscribers.append(call)

    def finish(self, outcome: Form | BaseException) -> None:
        """The run is over: call those functions, and drop all that the run was called with."""
        self.outcome = outcome
        self.request, self.forms, self.may_begin = None, (), None
        self.cancel_deadline()
        subscribers, self._subscribers = self._subscribers, []
        for call in subscribers:
            call(self)

    def cancel_deadline(self) -> None:
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None

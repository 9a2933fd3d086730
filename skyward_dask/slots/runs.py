"""A call for a slot, and one run of it: who has it, and what was decided about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from skyward_dask.slots.forms import Form, share
from skyward_dask.slots.pickling import dumps, unpicklable
from skyward_dask.slots.segments import Segments

if TYPE_CHECKING:
    from skyward_dask.slots.process import ChildProcess


@dataclass(frozen=True, slots=True)
class Request:
    """One call for a slot.

    Attributes
    ----------
    key : str
        The task's name in errors and in its output.
    function, args, kwargs
        The call; pickled on the way.
    serve : callable
        Carries out what the task asks the worker for: ``serve(name, args, kwargs)``. Called in the thread
        that waits for the run, which must not wait there for long: it would not see the child's death. What
        takes its time returns a `concurrent.futures.Future`, whose outcome is the answer.
    report : callable
        Takes the plain values that the child's backend adds to the answer of the run.
    again : callable
        Called before the call is given to another child, because its own was lost through no fault of it.
    pieces : callable
        Yields the call's parts with the names that an error should call them by.
    timeout : float or None
        Seconds from the moment that a child has the call.
    memory_limit : int or None
        Bytes of memory of its own that the child may have, with all that it started.
    attached : tuple of Form
        Further positional arguments, in their pickled form.
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
    attached: tuple[Form, ...] = ()

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
            parts = dumps((self.function, self.args, dict(self.kwargs)))
        except Exception as error:
            raise unpicklable(self.named(), error) from error
        return share(parts, segments), *self.attached

    def named(self) -> Iterator[tuple[str, object]]:
        if self.pieces is not None:
            yield from self.pieces()
        yield "the function", self.function
        yield from ((f"argument {n}", value) for n, value in enumerate(self.args))
        yield from ((f"argument {name!r}", value) for name, value in self.kwargs.items())


class Verdict(Enum):
    """Why a run is ended from outside."""

    STOPPED = "stopped"
    TIMED_OUT = "timed out"
    OUT_OF_MEMORY = "out of memory"
    POOL_ENDED = "pool ended"


@dataclass(slots=True, eq=False)
class Run:
    """One run of a request. The pool's lock guards it.

    Attributes
    ----------
    child : ChildProcess or None
        Who has it.
    verdict : Verdict or None
        The first that was given; it stands, whatever the child still says.
    done : bool
        Whether its caller has, or is about to have, its outcome: then no verdict is given any more.
    repeats : int
        How often it was given to another child because its own had gone through no fault of the run.
    stack : str
        Where it stood when it was timed out.
    peak : int
        Bytes that its child had when it was over its limit.
    """

    request: Request
    child: ChildProcess | None = None
    verdict: Verdict | None = None
    done: bool = False
    repeats: int = 0
    stack: str = ""
    peak: int = 0

"""Calls that one child is to have, one after the other: the first, and those that lie ready behind it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from skyward_dask.slots.ahead import LARGEST, Ahead
from skyward_dask.slots.forms import Form
from skyward_dask.slots.runs import Run
from skyward_dask.slots.segments import Segments


@dataclass(slots=True, eq=False)
class Call:
    """A run whose outcome goes to a future."""

    future: Future[Any]
    run: Run
    _forms: tuple[Form, ...] = ()

    def begin(self) -> bool:
        """Whether it is to be run; from here on it can't be cancelled. False: it has been."""
        return self.future.running() or self.future.set_running_or_notify_cancel()

    def pickled(self, segments: Segments | None) -> tuple[Form, ...]:
        """See `Request.pickled`; it is done once."""
        self._forms = self._forms or self.run.request.pickled(segments)
        return self._forms

    def stream(self, segments: Segments | None) -> bytes | None:
        """The call as one small piece, if it is one."""
        ((stream, *buffers),) = (form.parts for form in self.pickled(segments))
        return stream if isinstance(stream, bytes) and not buffers and len(stream) <= LARGEST else None

    def settle(self, outcome: Callable[[], Any]) -> None:
        """Give the future what a function returns or raises; the last that is done with a call."""
        try:
            self.future.set_result(outcome())
        except BaseException as error:  # whoever waits for the future sees it
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """Give the future an error; the last that is done with a call."""
        future = self.future
        del self.future  # the error's traceback refers to frames, and they to this call
        future.set_exception(error)


class Burst:
    """Calls for one child: the first, and those that are to lie ready for it.

    Parameters
    ----------
    calls : list of Call
    put_back : callable
        Takes those that another child is to run.
    on_laid : callable
        Called when calls lie ready.

    Notes
    -----
    Thread-safe.
    """

    def __init__(
        self,
        calls: Sequence[Call],
        put_back: Callable[[list[Call]], None],
        on_laid: Callable[[], None],
    ) -> None:
        self.first, *self.rest = calls
        self.put_back, self._on_laid = put_back, on_laid
        self._lock = threading.Lock()
        self._ahead: Ahead | None = None
        self._laid: dict[int, Call] = {}

    def lay(self, ahead: Ahead, allot: Callable[[], int], segments: Segments | None) -> None:
        """Leave calls for the child, under numbers that it allots, as long as they are small."""
        rest, self.rest = self.rest, []
        if not rest:
            return
        with self._lock:
            self._ahead = ahead
        while rest and self._lay(rest[0], ahead, allot(), segments):
            del rest[0]
        self.put_back(rest)
        self._on_laid()

    def _lay(self, call: Call, ahead: Ahead, number: int, segments: Segments | None) -> bool:
        stream = None
        with suppress(BaseException):  # it is raised again when the call's own turn has come
            stream = call.stream(segments)
        if stream is None:
            return False
        with self._lock:
            self._laid[number] = call
            if not ahead.lay(number, stream):
                del self._laid[number]
            return number in self._laid

    def taken(self, number: int) -> Call:
        """The call that the child has taken."""
        return self._laid.pop(number)

    def take_back(self) -> Call | None:
        """A call that the child has not taken."""
        with self._lock:
            taken = self._ahead and self._ahead.take()
            return self._laid.pop(taken[0]) if taken else None

    def recall(self) -> None:
        """Put back all calls that the child has not taken."""
        self.put_back(list(iter(self.take_back, None)))

    def close(self) -> None:
        """The child takes no more; what it has taken and not answered is put back too."""
        self.recall()
        with self._lock:
            self._ahead = None
            left = [*self._laid.values(), *self.rest]
            self._laid.clear()
            self.rest.clear()
        self.put_back(left)

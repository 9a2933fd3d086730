"""A child's side of a run: it gets the call and returns the result, large buffers in shared memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from resource import RLIMIT_NOFILE, getrlimit
from time import monotonic
from typing import Any

from skyward_dask.errors import SharedMemoryError
from skyward_dask.slots.channel import Channel, Quiet
from skyward_dask.slots.child.heap import give_back
from skyward_dask.slots.child.orphans import Orphans
from skyward_dask.slots.child_messages import Allocate, Answer, Begin, Grant, Target
from skyward_dask.slots.exceptions import dump_exception, load_exception
from skyward_dask.slots.framing import Frame, Part
from skyward_dask.slots.memory.borrowing import Borrower
from skyward_dask.slots.pickling import loads, unloadable

#: Seconds without a run after which memory is given back: longer than the pause between two tasks of a graph.
_IDLE = 1.0
#: Seconds between two checks for dead orphans, in a child that has children and no run: the pause doubles
#: from the first to the longest.
_FIRST_LOOK, _LONGEST_LOOK = 0.1, 60.0
#: Bytes of shared memory that a stream gets at once for its next items, and the most items: to ask for room
#: costs as much as to copy half a megabyte.
_AHEAD, _MOST_AHEAD = 4 << 20, 16
#: Function, positional and keyword arguments.
Call = tuple[Any, tuple[Any, ...], dict[str, Any]]


class Exchange:
    """What a child receives for a run, and what it returns.

    Parameters
    ----------
    runs : Channel
        The channel between the child's main thread and its worker.
    share_from : int or None
        Size in bytes from which a buffer of a result goes into shared memory.
    orphans : Orphans

    Attributes
    ----------
    is_short : bool
        The run came without all its descriptors, or its result can't be returned: this process has too many
        open.

    Notes
    -----
    For the main thread only, except `answer`: between a run and its result, nobody else reads `runs`.
    """

    def __init__(self, runs: Channel, share_from: int | None, orphans: Orphans) -> None:
        self._runs, self._share_from = runs, share_from
        self._borrower = Borrower()
        self.is_short = self._was_short = False
        self._orphans = orphans
        self._room: tuple[Target, ...] = ()
        self._room_sizes: tuple[int, ...] = ()
        self._look_at = 0.0

    def call(self, frame: Frame) -> Call:
        """The call in a frame: what was attached to the call comes after its own arguments."""
        assert isinstance(frame.message, Begin)
        layout, counts = frame.message
        self._check_complete(frame, "arguments")
        try:
            parts = self._borrower.borrow(layout, frame.parts, frame.descriptors)
        except OSError as error:
            raise SharedMemoryError(
                f"a large argument of a task can't be mapped in its slot's process: {error!r}. A limit of "
                "the system or of the process (RLIMIT_AS, vm.max_map_count) may be too low."
            ) from error
        if not counts:
            function, args, kwargs = _loaded(parts)
            return function, args, kwargs
        forms, start = [], 0
        for count in counts:
            forms.append(_loaded(parts[start : start + count]))
            start += count
        function, args, kwargs = forms[0]
        return function, (*args, *forms[1:]), kwargs

    def result(self, parts: list[Part], number: int) -> tuple[tuple[int | None, ...], list[Part]]:
        """Put large buffers where the worker says: those of a run's result, or of its next item.

        Returns
        -------
        sizes : tuple
            For each part its size, if it was put there; empty if none was.
        parts : list
            The parts that were not put there.

        Raises
        ------
        SharedMemoryError
            The worker has no room.
        """
        sizes = tuple(self._size_if_large(part) for part in parts)
        large = [memoryview(part) for part, size in zip(parts, sizes, strict=True) if size is not None]
        if not large:
            return (), parts
        self._borrower.deliver(self._room_for(tuple(part.nbytes for part in large), number), large)
        return sizes, [part for part, size in zip(parts, sizes, strict=True) if size is None]

    def _room_for(self, sizes: tuple[int, ...], number: int) -> tuple[Target, ...]:
        """A range for each size. A stream whose items are alike gets ranges for several of them at once."""
        if not self._room or self._room_sizes != sizes:
            are_alike = self._room_sizes == sizes
            count = max(1, min(_AHEAD // (sum(sizes) or 1), _MOST_AHEAD)) if are_alike else 1
            self._room_sizes, self._room = sizes, self._granted(count * sizes, number)
        taken, self._room = self._room[: len(sizes)], self._room[len(sizes) :]
        return taken

    def _granted(self, sizes: tuple[int, ...], number: int) -> tuple[Target, ...]:
        self._runs.send(Allocate(sizes), number)
        answer = self._receive(0)
        grant = answer.message
        if not isinstance(grant, Grant):
            raise load_exception(answer.parts)
        self._check_complete(answer, "result")
        self._borrower.learn(grant.segments, answer.descriptors)
        return grant.places

    def answer(self, frame: Frame) -> Frame:
        """An answer of the worker, with what was lent for it; in the listener's thread."""
        assert isinstance(frame.message, Answer)
        try:
            self._check_complete(frame, "items")
            parts = self._borrower.borrow(frame.message.layout, frame.parts, frame.descriptors)
        except Exception as error:  # the thread that asked raises it
            return Frame(Answer(False), frame.number, dump_exception(error))
        return Frame(Answer(True), frame.number, parts)

    def _check_complete(self, frame: Frame, what: str) -> None:
        if frame.is_short:
            self.is_short = True
            limit, _ = getrlimit(RLIMIT_NOFILE)
            raise SharedMemoryError(
                f"the {what} of a task can't be shared with its slot's process, which has all of its {limit} "
                "descriptors in use: a task may have left files or sockets open. Close them, raise the "
                "limit (ulimit -n), or have processes replaced regularly (max_tasks_per_child)."
            )
        if frame.descriptors:
            self._was_short = False

    def _size_if_large(self, part: Part) -> int | None:
        if self._share_from is None or not isinstance(part, memoryview) or part.nbytes < self._share_from:
            return None
        return part.nbytes

    def tidy(self) -> None:
        """The run is over: drop what it wrote to its inputs, and room that it has left."""
        self._borrower.tidy()
        self._room = self._room_sizes = ()
        if self.is_short:
            self.is_short, self._was_short = False, True

    def next_run(self) -> Frame | None:
        """Wait for the next run; None if another process must take it: this one has no descriptors left."""
        frame = self._next_frame()
        return None if frame.is_short and self._was_short else frame

    def _next_frame(self) -> Frame:
        now = monotonic()
        if now < self._look_at:  # a child that is busy doesn't look between all of its runs
            with suppress(Quiet):
                return self._receive(_FIRST_LOOK)
        self._look_at = now + _FIRST_LOOK
        for pause in self._pauses():
            with suppress(Quiet):
                return self._receive(pause)
        raise AssertionError("the last pause has no end")

    def _receive(self, pause: float) -> Frame:
        self._runs.set_patience(pause)
        return self._runs.receive()

    def _pauses(self) -> Iterator[float]:
        """Seconds until a child that has no run must do something; 0 if there is nothing left to do."""
        idle, look = 0.0, _FIRST_LOOK
        while self._orphans.reap():
            yield look
            if idle < _IDLE <= idle + look:
                self._give_back()
            idle, look = idle + look, min(2 * look, _LONGEST_LOOK)
        if idle < _IDLE:
            yield _IDLE - idle
            self._give_back()
        yield 0

    def _give_back(self) -> None:
        """A child that has nothing to do doesn't need the memory that it keeps for its next run."""
        give_back()
        self.tidy()


def _loaded(parts: list[Part]) -> Any:
    try:
        return loads(parts)
    except Exception as error:
        what = "a task's function or one of its arguments"
        raise unloadable(what, "in its slot's process", parts, error) from error

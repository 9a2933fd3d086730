"""Shared buffers are passed to a child by reference, with a lease.

```
 worker: Lender                                                       child: Borrower
   send     ── Begin: layout, inline parts, segments, leases ──▶  borrow: private views
   grant    ── Grant: where to write, segments ────────────────▶  deliver: copy a result there
   collect  ◀── Ended: which of its parts are there ────────────
   answer   ── Answer: like Begin, over the other socket ──────▶  borrow
```

A *layout* consists of plain values, for a message: the segments that are new to this child, the segments
that have a lease, and for each part None, if it travels inline, or (segment, start of its range, start,
size). The descriptors follow in the same order.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

from skyward_dask.slots.child_messages import Answer, Begin, Grant, Layout, Place, Refuse
from skyward_dask.slots.exceptions import dump_exception
from skyward_dask.slots.framing import Frame, Part
from skyward_dask.slots.loop_channel import LoopChannel
from skyward_dask.slots.memory.borrowing import Borrower
from skyward_dask.slots.memory.forms import Form, Piece, refer
from skyward_dask.slots.memory.leases import lease
from skyward_dask.slots.memory.segment import Range, Segment
from skyward_dask.slots.memory.segments import Segments
from skyward_dask.slots.pickling import loads


class Lender:
    """The worker's end of the exchange with one child.

    Parameters
    ----------
    segments : Segments, optional
        Without them, everything travels inline.
    """

    def __init__(self, segments: Segments | None) -> None:
        self._segments = segments
        self._known: set[int] = set()
        self._granted: deque[Range] = deque()

    @property
    def share_from(self) -> int | None:
        """Size in bytes from which buffers of the child's results go into shared memory."""
        return None if self._segments is None else self._segments.share_from

    def send(self, runs: LoopChannel, number: int, forms: tuple[Form, ...]) -> None:
        """Send a run: a call, and what is attached to it."""
        if len(forms) == 1 and not forms[0].is_shared:
            runs.send(Frame(Begin(), number, forms[0].inline))
            return
        parts = [part for form in forms for part in form.parts]
        counts = tuple(len(form.parts) for form in forms) if len(forms) > 1 else ()
        inline = [part for part in parts if not isinstance(part, Piece)]
        if len(inline) == len(parts):
            runs.send(Frame(Begin(None, counts), number, inline))
            return
        layout, descriptors, leases = self.lend(parts)
        runs.send(Frame(Begin(layout, counts), number, inline, descriptors), owned=leases)

    def answer(self, answers: LoopChannel, number: int, done: bool, parts: Sequence[Part]) -> None:
        """Send an answer; what is in shared memory already isn't copied."""
        segments = self._segments
        found: Sequence[Part | Piece] = parts
        if segments is not None:
            found = [refer(part, segments) for part in parts]
        inline = [part for part in found if not isinstance(part, Piece)]
        if len(inline) == len(parts):
            answers.send(Frame(Answer(done), number, parts))
            return
        layout, descriptors, leases = self.lend(found)
        answers.send(Frame(Answer(done, layout), number, inline, descriptors), owned=leases)

    def lend(self, parts: Sequence[Part | Piece]) -> tuple[Layout, list[int], list[int]]:
        """What a borrower must know about the pieces among the parts.

        Returns
        -------
        layout : Layout
        descriptors : list of int
            Those that the layout refers to.
        leases : list of int
            Those of them that the caller must close.
        """
        lent: dict[Segment, list[tuple[int, int]]] = {}
        for part in parts:
            if isinstance(part, Piece):
                lent.setdefault(part.range.segment, []).append((part.range.start, part.range.size))
        new = self._new(lent)
        leases = [lease(segment.fd, extents) for segment, extents in lent.items()]
        layout = _described(new), tuple(segment.number for segment in lent), tuple(map(_place, parts))
        return layout, [*(segment.fd for segment in new), *leases], leases

    def allocate(self, sizes: Sequence[int]) -> list[Range]:
        """Ranges for the buffers of a result; may take a while, and may be called in any thread.

        Raises
        ------
        SharedMemoryError
            There is no room.
        """
        assert self._segments is not None
        return [self._segments.allocate(size) for size in sizes]

    def grant(self, runs: LoopChannel, number: int, taken: list[Range]) -> None:
        """Tell the child where to write the buffers of its result."""
        # if the child dies, they stay in use until `close`: it may write to them until its very end.
        # It doesn't use what is left of those before
        self._granted = deque(taken)
        new = self._new(given.segment for given in taken)
        places = tuple((given.segment.number, given.start, given.size, given.warm) for given in taken)
        descriptors = [segment.fd for segment in new]
        runs.send(Frame(Grant(_described(new), places), number, (), descriptors))

    def refuse(self, runs: LoopChannel, number: int, error: Exception) -> None:
        """Tell the child why it can't have the ranges: its task raises the error."""
        runs.send(Frame(Refuse(), number, dump_exception(error)))

    def collect(self, sizes: Sequence[int | None], inline: Sequence[Part]) -> Form:
        """A result, or an item; `sizes` has for each part its size, if it was granted a range, else None."""
        if not sizes:
            return Form(tuple(inline))
        rest = iter(inline)
        return Form(tuple(next(rest) if size is None else self._piece(size) for size in sizes))

    def _piece(self, size: int) -> Piece:
        taken = self._granted.popleft()
        return Piece(taken, taken.start, size)

    def forget(self) -> None:
        """Not all that was sent has reached the child: it gets every segment again."""
        self._known.clear()

    def close(self) -> None:
        """The child, or its run, has ended: it writes no more."""
        self._granted.clear()

    def _new(self, segments: Iterable[Segment]) -> list[Segment]:
        new = [each for each in dict.fromkeys(segments) if each.number not in self._known]
        self._known.update(segment.number for segment in new)
        return new


class PrivateViews:
    """Values for threads of the worker's own process, over mappings that nobody else uses.

    Notes
    -----
    Thread-safe.
    """

    def __init__(self) -> None:
        self._lender = Lender(None)
        self._borrower = Borrower()
        self._lock = threading.Lock()

    def load(self, form: Form) -> Any:
        """The value of a form: only its holder sees what is written to it."""
        stream, *buffers = form.inline
        inline = [stream, *map(bytearray, buffers)]
        with self._lock:
            layout, descriptors, _ = self._lender.lend(form.parts)
            return loads(self._borrower.borrow(layout, inline, descriptors))


def _described(segments: Iterable[Segment]) -> tuple[tuple[int, int], ...]:
    return tuple((segment.number, segment.size) for segment in segments)


def _place(part: Part | Piece) -> Place | None:
    if isinstance(part, Piece):
        return part.range.segment.number, part.range.start, part.start, part.size
    return None

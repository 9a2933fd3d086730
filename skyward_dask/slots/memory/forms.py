"""A value in its pickled form: a stream and its buffers, large ones as pieces of shared memory.

A form never changes. Each consumer gets its own value from it, over private mappings: so each may write to
its value, and nobody else sees that.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from skyward_dask.slots.framing import Part
from skyward_dask.slots.memory.mappings import address, is_clean
from skyward_dask.slots.memory.segment import Range
from skyward_dask.slots.memory.segments import Segments
from skyward_dask.slots.pickling import dumps, loads, unloadable

#: Bytes of a stream that take a millisecond to unpickle, if they are many small objects.
_LONG = 64 * 1024


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of a range: where they begin in its segment, and how many."""

    range: Range
    start: int
    size: int

    def view(self) -> memoryview:
        return self.range.view(self.start, self.size)


@dataclass(frozen=True, slots=True)
class Form:
    """A pickled value."""

    parts: tuple[Part | Piece, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the stream and of all buffers."""
        return sum(part.size if isinstance(part, Piece) else len(part) for part in self.parts)

    @property
    def inline(self) -> list[Part]:
        """The parts that are not in shared memory."""
        return [part for part in self.parts if not isinstance(part, Piece)]

    @property
    def is_shared(self) -> bool:
        return len(self.parts) > 1 and any(isinstance(part, Piece) for part in self.parts)

    @property
    def is_long(self) -> bool:
        """Whether unpickling it may take more than a millisecond."""
        return len(self.parts[0]) > _LONG  # type: ignore[arg-type]  # the stream is never shared

    def load(self) -> Any:
        """The value, over the worker's own mapping: it keeps its ranges in use.

        Raises
        ------
        SerializationError
            The value can't be unpickled here.
        """
        parts = self.views()
        try:
            return loads(parts)
        except BaseException as error:  # a user's `__setstate__` may raise anything
            raise unloadable("the result", "in its worker", parts, error) from error

    def views(self) -> list[Part]:
        """All parts, those in shared memory over the worker's own mapping."""
        return [part.view() if isinstance(part, Piece) else part for part in self.parts]


def share(parts: Iterable[Part], segments: Segments | None) -> Form:
    """Put large buffers into shared memory, except those that are already there and unchanged.

    Raises
    ------
    SharedMemoryError
        There is no room.
    """
    stream, *buffers = parts
    if segments is None or not buffers:
        return Form((stream, *buffers))
    return Form((stream, *(_shared(buffer, segments) for buffer in buffers)))


def refer(part: Part, segments: Segments) -> Part | Piece:
    """A reference to a part that is in shared memory and unchanged; any other part as it is."""
    data = memoryview(part)
    if data.nbytes < segments.share_from:
        return part
    where = address(data)
    found = segments.find(where, data.nbytes)
    if found is not None and is_clean(where, data.nbytes):
        return Piece(found, where - found.segment.base, data.nbytes)
    return part


def _shared(buffer: Part, segments: Segments) -> Part | Piece:
    found, data = refer(buffer, segments), memoryview(buffer)
    if isinstance(found, Piece) or data.nbytes < segments.share_from:
        return found
    copied = segments.copy(data)
    return Piece(copied, copied.start, data.nbytes)


def form_of(value: object, segments: Segments | None) -> Form:
    """The pickled form of a value."""
    return share(dumps(value), segments)

"""Frames: a small header, a message of plain values, opaque parts. Packed and parsed here, without I/O.

The message holds plain values only; all else is opaque bytes that only the two ends of a run unpickle. So a
value that can't be pickled or unpickled fails one run, never the channel. A frame may carry descriptors.
"""

from __future__ import annotations

import marshal
import struct
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

from skyward_dask.slots import child_messages, template_messages

Part = bytes | bytearray | memoryview
#: A message of one of the two protocols: a named tuple.
Message = tuple[Any, ...]


def _defaults(kind: Any) -> Message | None:
    """The fields of a message all of whose fields have their defaults: they aren't sent."""
    return tuple(kind()) if len(kind._field_defaults) == len(kind._fields) else None


#: The types of messages: a frame's header has the index of its own.
_TYPES: tuple[type[Message], ...] = (*child_messages.MESSAGES, *template_messages.MESSAGES)
_INDEX = {kind: index for index, kind in enumerate(_TYPES)}
_DEFAULTS = {kind: _defaults(kind) for kind in _TYPES}

#: type, count of descriptors, count of parts, bytes of the message, number of the run or request
_HEADER = struct.Struct("<BBIIQ")
#: Bytes read at once: more than most small frames, so that they cost one system call.
READ = 64 * 1024
#: Descriptors that one frame may carry (SCM_MAX_FD is 253 on Linux).
MOST_DESCRIPTORS = 253


@dataclass(slots=True)
class Frame:
    """A message, the number of its run or request, its opaque parts and its descriptors."""

    message: Message
    number: int = 0
    parts: Sequence[Part] = ()
    descriptors: Sequence[int] = ()
    #: How many descriptors belong to it, as its header says.
    carried: int = field(default=0, compare=False)

    @property
    def is_short(self) -> bool:
        """Whether some of its descriptors didn't arrive: its receiver has too many open."""
        return len(self.descriptors) < self.carried


def pack(frame: Frame) -> list[Part]:
    """A frame as buffers to be written one after the other; a single one if it is small."""
    kind, fields = type(frame.message), tuple(frame.message)
    packed = b"" if fields == _DEFAULTS[kind] else marshal.dumps(fields)
    lengths = [part.nbytes if isinstance(part, memoryview) else len(part) for part in frame.parts]
    header = _HEADER.pack(_INDEX[kind], len(frame.descriptors), len(lengths), len(packed), frame.number)
    first = b"".join((header, struct.pack(f"<{len(lengths)}Q", *lengths), packed))
    if sum(lengths) < READ:
        return [b"".join((first, *frame.parts))]
    return [
        first,
        *(memoryview(part).cast("B") for part, size in zip(frame.parts, lengths, strict=True) if size),
    ]


class FrameReader:
    """Takes bytes as they arrive, and collects frames when they are complete.

    Attributes
    ----------
    target : memoryview
        Where the next bytes must be put: never empty.
    frames : deque of Frame
        Complete frames; the caller must still give them their descriptors.
    """

    def __init__(self) -> None:
        self._ahead = memoryview(bytearray(READ))
        self._begin = self._end = 0
        self.frames: deque[Frame] = deque()
        self._steps = self._read_frames()
        self.target = next(self._steps)

    def received(self, count: int) -> None:
        """`count` bytes have been put into `target`."""
        self.target = self._steps.send(count)

    @property
    def is_between_frames(self) -> bool:
        """Whether no part of a further frame has arrived."""
        return self._begin == self._end and self.target.obj is self._ahead.obj

    def close(self) -> None:
        """Take no more bytes."""
        self._steps.close()

    def _read_frames(self) -> Generator[memoryview, int, None]:
        while True:
            if self._begin == self._end:
                self._begin, self._end = 0, (yield self._ahead)
            self.frames.append(self._whole() or (yield from self._frame()))

    def _whole(self) -> Frame | None:
        """The next frame, if it has arrived in one piece, as most do: several times as fast as by parts."""
        at = self._begin + _HEADER.size
        if at > self._end:
            return None
        kind, carried, count, size, number = _HEADER.unpack_from(self._ahead, self._begin)
        fields_at = at + 8 * count
        if fields_at > self._end:
            return None
        lengths = struct.unpack_from(f"<{count}Q", self._ahead, at)
        at = fields_at + size
        if at + sum(lengths) > self._end:
            return None
        fields = marshal.loads(self._ahead[fields_at:at]) if size else ()
        parts: list[Part] = []
        for length in lengths:
            parts.append(bytearray(self._ahead[at : at + length]))
            at += length
        self._begin = at
        return Frame(_TYPES[kind](*fields), number, parts, (), carried)

    def _frame(self) -> Generator[memoryview, int, Frame]:
        """The next frame: what it carries isn't kept here while the one after it is awaited."""
        head = yield from self._take(_HEADER.size)
        kind, carried, count, size, number = _HEADER.unpack(head)
        rest = yield from self._take(8 * count + size)
        lengths = struct.unpack_from(f"<{count}Q", rest)
        fields = marshal.loads(memoryview(rest)[8 * count :]) if size else ()
        parts: list[Part] = []
        for length in lengths:
            part = yield from self._take(length)
            parts.append(part)
        return Frame(_TYPES[kind](*fields), number, parts, (), carried)

    def _take(self, size: int) -> Generator[memoryview, int, bytearray]:
        """Exactly `size` bytes, writable."""
        if size > READ:
            return (yield from self._take_large(size))
        while self._end - self._begin < size:
            self._ahead[: self._end - self._begin] = self._ahead[self._begin : self._end]
            self._begin, self._end = 0, self._end - self._begin
            self._end += yield self._ahead[self._end :]
        self._begin += size
        return bytearray(self._ahead[self._begin - size : self._begin])

    def _take_large(self, size: int) -> Generator[memoryview, int, bytearray]:
        taken = bytearray(size)
        view, have = memoryview(taken), self._end - self._begin
        view[:have] = self._ahead[self._begin : self._end]
        self._begin = self._end = 0
        while have < size:
            have += yield view[have:]
        return taken

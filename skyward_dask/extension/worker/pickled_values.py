"""The pickled forms of the values that a worker holds, beside them and by their keys.

A child's result is kept in the form in which it came, and a large value from elsewhere is pickled once for
all slots. So who computes with a value gets it as it was made, whatever others did to theirs.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from skyward_dask.slots.framing import Part
from skyward_dask.slots.memory.forms import Form, Piece, form_of
from skyward_dask.slots.memory.segment import Range
from skyward_dask.slots.memory.segments import Segments


@dataclass(frozen=True, slots=True)
class _Kept:
    """A form whose ranges are in use as long as its value is."""

    value: int
    parts: tuple[Part | tuple[weakref.ref[Range], int, int], ...]

    @classmethod
    def of(cls, value: object, form: Form) -> _Kept:
        parts = form.parts
        return cls(
            id(value),
            tuple((weakref.ref(p.range), p.start, p.size) if isinstance(p, Piece) else p for p in parts),
        )

    def form(self) -> Form | None:
        """The form; None if the value is gone."""
        parts: list[Part | Piece] = []
        for part in self.parts:
            if not isinstance(part, tuple):
                parts.append(part)
            elif (found := part[0]()) is not None:
                parts.append(Piece(found, *part[1:]))
            else:
                return None
        return Form(tuple(parts))


class Shelf:
    """Forms by key.

    Parameters
    ----------
    segments : Segments or None
        Where large buffers of values that children didn't make are copied to.
    limit : int
        Bytes of forms that were made here, for values from elsewhere; the longest unused go first.

    Notes
    -----
    Thread-safe. A form belongs to one object: a value that was spilled and read again gets a new one.
    """

    def __init__(self, segments: Segments | None, limit: int) -> None:
        self._segments = segments
        self._limit = limit
        self._lock = threading.Lock()
        self._kept: dict[Any, _Kept] = {}
        self._made: OrderedDict[Any, tuple[int, Form]] = OrderedDict()
        self._size = 0

    def keep(self, key: Any, value: object, form: Form) -> None:
        """Keep the form that a child's result came in."""
        with self._lock:
            self._kept[key] = _Kept.of(value, form)

    def kept(self, key: Any, value: object) -> Form | None:
        """The form that is there for the value, if one is."""
        with self._lock:
            if (kept := self._kept.get(key)) and kept.value == id(value):
                return kept.form()
            if (made := self._made.get(key)) and made[0] == id(value):
                self._made.move_to_end(key)
                return made[1]
            return None

    def form(self, key: Any, value: object) -> Form:
        """The value's form, made if need be; raises what its pickling raises."""
        found = self.kept(key, value)
        if found is None:
            found = form_of(value, self._segments)
            with self._lock:
                self._add(key, id(value), found)
        return found

    def forget(self, key: Any) -> None:
        """The worker doesn't hold the value any more."""
        with self._lock:
            self._kept.pop(key, None)
            self._remove(key)

    def clear(self) -> None:
        """Forget what was made here: memory is short."""
        with self._lock:
            self._made.clear()
            self._size = 0

    def _add(self, key: Any, value: int, form: Form) -> None:
        self._remove(key)
        self._made[key] = value, form
        self._size += form.nbytes
        while self._size > self._limit:
            self._remove(next(iter(self._made)))

    def _remove(self, key: Any) -> None:
        if (made := self._made.pop(key, None)) is not None:
            self._size -= made[1].nbytes

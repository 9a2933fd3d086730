"""The pickled forms of the values that a worker holds, by key.

A child's result is kept in the form in which it arrived, and a large value from elsewhere is pickled once
for all slots. So every task gets a value as it was made, whatever other tasks did to their copies.
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
    """A form that keeps no range in use: its ranges are in use only as long as its value exists."""

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
        """The form; None if the value no longer exists."""
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
    """The forms of values, by key.

    Parameters
    ----------
    segments : Segments or None
        Large buffers of values that no child has made are copied there.
    limit : int
        Maximum size, in bytes, of all forms made here for values from elsewhere; the least recently used ones
        are dropped first.

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
        """The value's form, if there is one."""
        with self._lock:
            if (kept := self._kept.get(key)) and kept.value == id(value):
                return kept.form()
            if (made := self._made.get(key)) and made[0] == id(value):
                self._made.move_to_end(key)
                return made[1]
            return None

    def form(self, key: Any, value: object) -> Form:
        """The value's form, made if necessary; raises what pickling the value raises."""
        found = self.kept(key, value)
        if found is None:
            found = form_of(value, self._segments)
            with self._lock:
                self._add(key, id(value), found)
        return found

    def forget(self, key: Any) -> None:
        """Drop the form of a value that the worker no longer holds."""
        if key not in self._kept and key not in self._made:
            return  # as most: this is called several times for each task
        with self._lock:
            self._kept.pop(key, None)
            self._remove(key)

    def clear(self) -> None:
        """Drop all forms made here, because memory is short."""
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

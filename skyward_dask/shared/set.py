"""A set's state."""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from itertools import islice
from typing import Any

from skyward_dask.shared.events import Call
from skyward_dask.shared.pages import MOST_ENTRIES, Pages
from skyward_dask.shared.state import State


class SetState(State):
    """Members, in the order in which they were added."""

    reads = frozenset({"contains", "size", "page"})

    def __init__(self) -> None:
        super().__init__()
        self._members: Pages[bool] = Pages()

    def add(self, call: Call, member: Any) -> bool:
        return self._members.put(member, True)

    def add_many(self, call: Call, members: Iterable[Any]) -> int:
        """Returns how many were new."""
        return sum(self._members.put(member, True) for member in members)

    def discard(self, call: Call, member: Any) -> bool:
        """Returns whether it was there."""
        return self._members.pop(member) is not None

    def contains(self, call: Call, member: Any) -> bool:
        return member in self._members

    def pop(self, call: Call) -> tuple[Any] | None:
        """Remove some member and return it in a tuple; None if there is none."""
        last = self._members.pop_last()
        return None if last is None else last[:1]

    def size(self, call: Call) -> int:
        return len(self._members)

    def clear(self, call: Call) -> None:
        self._members.clear()

    def page(self, call: Call, after: int) -> tuple[list[Any], int | None]:
        """Members, and the number to continue after; None at the end."""
        found = list(islice(self._members.after(after), MOST_ENTRIES))
        return [member for _, member, _ in found], found[-1][0] if found else None

    def split(self) -> tuple[SetState, Iterable[Any]]:
        light, (light._members, entries) = copy(self), self._members.split()
        return light, entries

    def add_entries(self, entries: Iterable[Any]) -> None:
        self._members.add_entries(entries)

    @property
    def nbytes(self) -> int:
        return self._members.nbytes

    def __len__(self) -> int:
        return len(self._members)

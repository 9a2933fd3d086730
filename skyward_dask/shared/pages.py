"""Entries in order of insertion, which can be read in pages while others are added and removed."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

from skyward_dask.shared.weight import weight

V = TypeVar("V")

#: Limits of a page: its entries, and the bytes of their values. Making a page takes a millisecond, sending it
#: a few.
MOST_ENTRIES, MOST_BYTES = 10_000, 1 << 20


class Pages(Generic[V]):
    """A mapping of keys to values.

    Attributes
    ----------
    nbytes : int
        About how many bytes it has.

    Notes
    -----
    Not thread-safe. Reading pages while entries are added and removed gives each entry that stays exactly
    once.

    Reading the first page makes a list of all keys, so that each further page costs a binary search. New keys
    are added to the list; removed ones are skipped, until there are so many that the list is rebuilt.
    """

    def __init__(self) -> None:
        self._entries: dict[Any, tuple[int, V]] = {}
        self._number = 0  # of the last entry
        self.nbytes = 0
        self._listed: tuple[list[int], list[Any]] | None = None

    def get(self, key: Any) -> V | None:
        found = self._entries.get(key)
        return None if found is None else found[1]

    def put(self, key: Any, value: V) -> bool:
        """Add or replace a value; returns whether the key is new."""
        found = self._entries.get(key)
        if found is not None:
            self._entries[key] = found[0], value
            self.nbytes += weight(value) - weight(found[1])
            return False
        self.nbytes += weight(key) + weight(value)
        self._number = number = self._number + 1
        self._entries[key] = number, value
        if self._listed is not None:
            numbers, keys = self._listed
            numbers.append(number)
            keys.append(key)
        return True

    def pop(self, key: Any) -> V | None:
        found = self._entries.pop(key, None)
        if found is None:
            return None
        self.nbytes -= weight(key) + weight(found[1])
        self._weed()
        return found[1]

    def pop_last(self) -> tuple[Any, V] | None:
        if not self._entries:
            return None
        key, (_, value) = self._entries.popitem()
        self.nbytes -= weight(key) + weight(value)
        self._weed()
        return key, value

    def clear(self) -> None:
        self._entries.clear()
        self.nbytes, self._listed = 0, None

    def _weed(self) -> None:
        """Drop the list if more than half of it was removed: so removing costs no more than adding did."""
        if self._listed is not None and len(self._listed[0]) > 2 * len(self._entries):
            self._listed = None

    def after(self, number: int) -> Iterator[tuple[int, Any, V]]:
        """Entries that were added after the one with this number, each with its own number."""
        if self._listed is None:
            # a dict keeps the order of insertion, in which the numbers grow
            self._listed = [number for number, _ in self._entries.values()], list(self._entries)
        numbers, keys = self._listed
        for position in range(bisect_right(numbers, number), len(numbers)):
            key = keys[position]
            found = self._entries.get(key)
            # otherwise it was removed, or added again and comes later
            if found is not None and found[0] == numbers[position]:
                yield found[0], key, found[1]

    def split(self) -> tuple[Pages[V], Iterable[tuple[Any, tuple[int, V]]]]:
        """Pages without entries that go on counting, and a copy of the entries."""
        light: Pages[V] = Pages()
        light._number, light.nbytes = self._number, self.nbytes
        return light, self._entries.copy().items()

    def add_entries(self, entries: Iterable[tuple[Any, tuple[int, V]]]) -> None:
        """Add some of the entries of `split`, in their order."""
        self._entries.update(entries)

    def __contains__(self, key: Any) -> bool:
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

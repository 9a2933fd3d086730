"""Free room in segments: the best fit is taken, and what is given back merges with its neighbours. Pure."""

from __future__ import annotations

from bisect import bisect_left, insort

#: A segment's number, the offset of the first byte, a length; in bytes.
Extent = tuple[int, int, int]


class Extents:
    """A set of free extents that don't touch each other.

    Notes
    -----
    Not thread-safe. Taking and giving back cost a binary search each, and a move of pointers.
    """

    def __init__(self) -> None:
        self._by_size: list[Extent] = []  # (size, segment, start), ascending
        self._sizes: dict[tuple[int, int], int] = {}  # by segment and start
        self._starts: dict[tuple[int, int], int] = {}  # by segment and end
        self.total = 0

    def __len__(self) -> int:
        return len(self._by_size)

    def add(self, segment: int, start: int, size: int) -> None:
        """Give an extent back."""
        self.total += size
        following = self._sizes.get((segment, start + size))
        if following is not None:
            self._remove(segment, start + size, following)
            size += following
        before = self._starts.get((segment, start))
        if before is not None:
            self._remove(segment, before, start - before)
            start, size = before, size + start - before
        self._insert(segment, start, size)

    def take(self, size: int) -> tuple[int, int] | None:
        """Take `size` bytes; returns their segment and their start, or None if nothing fits."""
        position = bisect_left(self._by_size, (size, -1, -1))
        if position == len(self._by_size):
            return None
        found, segment, start = self._by_size[position]
        self._remove(segment, start, found)
        if found > size:
            self._insert(segment, start + size, found - size)
        self.total -= size
        return segment, start

    def clear(self) -> list[Extent]:
        """Take all extents: (segment, start, size) of each."""
        taken = [(segment, start, size) for size, segment, start in self._by_size]
        self.__init__()  # type: ignore[misc]  # as it was at first
        return taken

    def _insert(self, segment: int, start: int, size: int) -> None:
        insort(self._by_size, (size, segment, start))
        self._sizes[segment, start] = size
        self._starts[segment, start + size] = start

    def _remove(self, segment: int, start: int, size: int) -> None:
        del self._by_size[bisect_left(self._by_size, (size, segment, start))]
        del self._sizes[segment, start]
        del self._starts[segment, start + size]

"""A reader's end of a stream: items that have arrived, and what has to be granted for those taken."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import takewhile

from skyward_dask.slots.packing import unpack
from skyward_dask.streams.credit import Window
from skyward_dask.streams.messages import Grant, Item, Items, Last, Packed, SentItem, size_of


@dataclass(slots=True)
class Inbox:
    """Items in order, then how the stream has ended.

    Attributes
    ----------
    window : Window
    last : Last or None
        How the stream has ended, once that is known; items may still be left.
    """

    window: Window
    last: Last | None = None
    _items: deque[SentItem] = field(default_factory=deque)
    _taken: int = 0
    _taken_bytes: int = 0
    _is_held: bool = False

    def put(self, arrived: Items | Packed) -> None:
        """Items have arrived."""
        self._items.extend(unpack(arrived.block) if isinstance(arrived, Packed) else arrived.items)
        self._is_held = False

    def hold(self) -> Grant | None:
        """The host holds an item until all that was taken is granted."""
        self._is_held = True
        return self._due()

    def end(self, last: Last) -> None:
        """The stream has ended: the first report stands."""
        self.last = self.last or last

    def __len__(self) -> int:
        return len(self._items)

    def settle(self, settled: Callable[[SentItem], Item]) -> None:
        """Replace the items that haven't been taken."""
        self._items = deque(map(settled, self._items))

    def take(self) -> tuple[SentItem, Grant | None]:
        """The next item, and what has to be granted now; raises IndexError if there is none."""
        item = self._items.popleft()
        self._taken += 1
        self._taken_bytes += size_of(item)
        return item, self._due()

    def _due(self) -> Grant | None:
        """Grant in halves of the window: a message for each item would cost more than the item."""
        is_half = 2 * self._taken >= self.window.items or 2 * self._taken_bytes >= self.window.nbytes
        if not self._taken or not (is_half or (self._is_held and not self._items)):
            return None
        grant = Grant(self._taken, self._taken_bytes)
        self._taken = self._taken_bytes = 0
        return grant

    def drop(self, is_lost: Callable[[SentItem], bool] = lambda item: True) -> None:
        """Drop the first item for which that is so, and all after it."""
        self._items = deque(takewhile(lambda item: not is_lost(item), self._items))

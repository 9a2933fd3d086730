"""A queue's state: items in line, callers that wait for one, and callers that wait for room."""

from __future__ import annotations

import queue
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from typing import Any

from skyward_dask.shared.events import Call, Caller, CallId, Forget
from skyward_dask.shared.state import WAITS, State, Waits
from skyward_dask.shared.weight import weight


class QueueState(State):
    """A queue: first in, first out; the caller that has waited longest is served first.

    Parameters
    ----------
    maxsize : int or None
        The most items that it holds; None for no limit.
    """

    reads = frozenset({"qsize", "full"})

    def __init__(self, maxsize: int | None = None) -> None:
        super().__init__()
        self._maxsize = maxsize
        self._items: deque[bytes] = deque()
        self._nbytes = 0
        self._getters: OrderedDict[CallId, Call] = OrderedDict()
        # each with those of its items that aren't in the queue yet
        self._putters: OrderedDict[CallId, tuple[Call, deque[bytes]]] = OrderedDict()
        # items on their way to callers that haven't confirmed them yet
        self._given: dict[CallId, tuple[Caller, list[bytes]]] = {}

    def put(self, call: Call, items: Sequence[bytes]) -> Waits:
        """Add items at the end; wait for room."""
        if items:
            self._putters[call.id] = call, deque(items)
            self._flow()
        else:
            self.answer(call)
        return WAITS

    def put_nowait(self, call: Call, items: Sequence[bytes]) -> None:
        if items and (self._putters or len(items) > self._room()):
            raise queue.Full
        self._items.extend(items)
        self._nbytes += weight(items)
        self._flow()

    def get(self, call: Call, most: int) -> Waits:
        """Take up to `most` items; wait for the first."""
        self._getters[call.id] = call
        self._flow()
        return WAITS

    def get_nowait(self, call: Call, most: int) -> list[bytes]:
        if not self._items:
            raise queue.Empty
        taken = self._take(call, most)
        self._flow()
        return taken

    def put_back(self, call: Call, items: Sequence[bytes]) -> None:
        """Put items that were taken in vain back at the front, even if there is no room."""
        self._put_first(items)

    def qsize(self, call: Call) -> int:
        return len(self._items)

    def full(self, call: Call) -> bool:
        return self._room() <= 0

    def _room(self) -> float:
        return float("inf") if self._maxsize is None else self._maxsize - len(self._items)

    def _take(self, call: Call, most: int) -> list[bytes]:
        taken = [self._items.popleft() for _ in range(min(most, len(self._items)))]
        self._nbytes -= weight(taken)
        self._given[call.id] = call.caller, taken
        return taken

    def _put_first(self, items: Sequence[bytes]) -> None:
        self._items.extendleft(reversed(items))
        self._nbytes += weight(items)
        self._flow()

    def _flow(self) -> None:
        """Let items in and hand them out until nothing moves any more."""
        while self._let_in() or self._hand_out():
            pass

    def _let_in(self) -> bool:
        if not self._putters or self._room() <= 0:
            return False
        call, items = next(iter(self._putters.values()))
        while items and self._room() > 0:
            self._items.append(item := items.popleft())
            self._nbytes += weight(item)
        if not items:
            del self._putters[call.id]
            self.answer(call)
        return True

    def _hand_out(self) -> bool:
        if not self._getters or not self._items:
            return False
        _, call = self._getters.popitem(last=False)
        self.answer(call, self._take(call, call.arguments[0]))
        return True

    def withdraw(self, call: Call, expired: bool) -> int | None:
        """Returns how many items were not put, if others were."""
        self._getters.pop(call.id, None)
        _, items = self._putters.pop(call.id, (call, ()))
        return len(items) if items and len(items) < len(call.arguments[0]) else None

    def undo(self, call_id: CallId) -> None:
        if (given := self._given.pop(call_id, None)) is not None:
            self._put_first(given[1])

    def took(self, call_id: CallId) -> None:
        self._given.pop(call_id, None)

    def undo_all(self, gone: Forget) -> None:
        # the last first, so that they are back in line in their old order
        for call_id, (caller, _) in reversed(list(self._given.items())):
            if gone.concerns(caller.owner):
                self.undo(call_id)

    def owners(self) -> Iterator[tuple[str, str]]:
        for caller, _ in self._given.values():
            yield caller.owner

    def split(self) -> tuple[QueueState, Iterable[Any]]:
        light = copy(self)
        light._items = deque()
        return light, self._items.copy()

    def add_entries(self, entries: Iterable[bytes]) -> None:
        self._items.extend(entries)

    @property
    def nbytes(self) -> int:
        return self._nbytes

    def __len__(self) -> int:
        return len(self._items)

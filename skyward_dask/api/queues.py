"""A queue that all tasks and clients of a cluster share."""

from __future__ import annotations

import queue
from collections.abc import Iterable
from typing import Generic, TypeVar

from skyward_dask.api.handles import Handle, Steps, both, checked_count, checked_timeout, one
from skyward_dask.errors import SerializationError
from skyward_dask.shared.asks import Ask
from skyward_dask.shared.events import Withdrawn
from skyward_dask.shared.keys import pack, unpack

T = TypeVar("T")


class Queue(Handle, Generic[T]):
    """First in, first out: see `queue`."""

    kind = "queue"

    def _put(self, item: T, block: bool = True, timeout: float | None = None) -> Steps[None]:
        """Add an item at the end; wait for room if necessary.

        Raises
        ------
        queue.Full
            There was no room in `timeout` seconds, or at once with ``block=False``.
        """
        yield from self._put_many([item], block, timeout)

    put, put_async = both(_put)

    def _put_nowait(self, item: T) -> Steps[None]:
        """Add an item, or raise `queue.Full`."""
        yield from self._put_many([item], block=False)

    put_nowait, put_nowait_async = both(_put_nowait)

    def _put_many(self, items: Iterable[T], block: bool = True, timeout: float | None = None) -> Steps[None]:
        """Add items in order, in one round trip; those that don't fit wait for room.

        Raises
        ------
        queue.Full
            As for `put`. With ``block=False`` nothing was added, otherwise the message says how many items
            were.
        """
        packed = [pack(item) for item in items]
        if not block:
            yield Ask("put_nowait", (packed,))
            return
        try:
            yield Ask("put", (packed,), binds=True, timeout=checked_timeout(timeout))
        except Withdrawn as end:
            added = 0 if end.left is None else len(packed) - end.left
            raise queue.Full(f"{added} of {len(packed)} items were added in {timeout} s") from None

    put_many, put_many_async = both(_put_many)

    def _get(self, block: bool = True, timeout: float | None = None) -> Steps[T]:
        """Take the first item; wait for one if necessary.

        Raises
        ------
        queue.Empty
            No item arrived within `timeout` seconds, or there was none with ``block=False``.
        """
        return (yield from self._get_many(1, block, timeout))[0]

    get, get_async = both(_get)

    def _get_nowait(self) -> Steps[T]:
        """Take the first item, or raise `queue.Empty`."""
        return (yield from self._get_many(1, block=False))[0]

    get_nowait, get_nowait_async = both(_get_nowait)

    def _get_many(self, most: int, block: bool = True, timeout: float | None = None) -> Steps[list[T]]:
        """Take up to `most` items, in one round trip; wait for the first.

        Raises
        ------
        queue.Empty
            As for `get`.
        SerializationError
            The first item can't be unpickled here. It is taken; the others stay in the queue.
        """
        most = checked_count("most", most)
        operation, seconds = ("get", checked_timeout(timeout)) if block else ("get_nowait", None)
        try:
            taken = yield Ask(operation, (most,), binds=True, timeout=seconds)
        except Withdrawn:
            raise queue.Empty(f"no item arrived in {timeout} s") from None
        items: list[T] = []
        for number, item in enumerate(taken):
            try:
                items.append(unpack(item))
            except SerializationError:
                # the caller gets those before it; if there are none, the error is about this one
                if rest := taken[number or 1 :]:
                    yield Ask("put_back", (rest,))
                if not number:
                    raise
                break
        return items

    get_many, get_many_async = both(_get_many)

    def _qsize(self) -> Steps[int]:
        """The number of items."""
        return one(Ask("qsize", reads=True))

    qsize, qsize_async = both(_qsize)

    def _len(self) -> Steps[int]:
        """The number of items."""
        return one(Ask("qsize", reads=True))

    __len__, len_async = both(_len, "len()")

    def _empty(self) -> Steps[bool]:
        """Whether the queue is empty."""
        return not (yield Ask("qsize", reads=True))

    empty, empty_async = both(_empty)

    def _full(self) -> Steps[bool]:
        """Whether the queue is full."""
        return one(Ask("full", reads=True))

    full, full_async = both(_full)

    def __bool__(self) -> bool:
        return True  # as the standard library's: an empty queue is a queue

"""Carries a generator out step by step: an item is computed when there is credit, and sent when it fits.

A generator is stepped in one thread and in one context from its first step to its end, and closed between
two steps only: Python refuses to close one that is running.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from skyward_dask.slots.pickling import dumps, unpicklable
from skyward_dask.streams.messages import Broken, Item, Outcome, Returned, size_of

CLOSED = Broken("it was closed.")


class Port(Protocol):
    """A producer's connection to its reader."""

    def wait_credit(self) -> bool:
        """Wait until an item may be computed; False if the stream must be closed instead."""

    def wait_room(self, size: int) -> bool:
        """Wait until an item of that many bytes may be sent; False if the stream must be closed instead."""

    def send(self, item: Item) -> None:
        """Send an item, which must not change any more afterwards."""

    def step(self, iterator: Iterator[Any]) -> Any:
        """The next item of the iterator."""


def produce(iterator: Iterator[Any], port: Port) -> Outcome:
    """Send all items; raises what the generator raises."""
    count = 0
    try:
        while port.wait_credit():
            try:
                value = port.step(iterator)
            except StopIteration as stop:
                return Returned(pickled(stop.value, "the value that the generator returned"))
            count += 1
            item = pickled(value, f"item {count} of the stream")
            del value
            if not port.wait_room(size_of(item)):
                break
            port.send(item)
            del item
    finally:
        close(iterator)
    return CLOSED


def close(iterator: Iterator[Any] | None) -> None:
    """Close a generator, or an iterator that can be closed like one."""
    closing = getattr(iterator, "close", None)
    if callable(closing):
        closing()


def pickled(value: object, name: str) -> Sequence[Any]:
    """The pickled value; raises `SerializationError`, which names it."""
    try:
        return dumps(value)
    except Exception as error:
        raise unpicklable([(name, value)], error) from error

"""What each collection does, written once, for every place that a collection can be used from.

A case is given `do(handle, operation, *arguments)`: it blocks where one may block, and awaits the twin on an
event loop. It must leave the collections that it made to its caller, who destroys them.
"""

from __future__ import annotations

import queue
from collections.abc import Awaitable, Callable
from enum import Enum
from fractions import Fraction
from typing import Any

import pytest

import skyward_dask as sky

Do = Callable[..., Awaitable[Any]]


class Colour(Enum):
    """A key of a type of our own."""

    RED = 1


class Point:
    """A value whose class no home can import."""

    def __init__(self, x: int) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and other.x == self.x


class Bomb:
    """A value that nobody can unpickle."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Fraction, ("Boom",)


async def a_counter_counts(do: Do, name: str) -> None:
    c = sky.counter(name)
    assert await do(c, "value") == 0
    assert await do(c, "increment") == 1
    assert await do(c, "increment", 5) == 6
    assert await do(c, "decrement", 2) == 4
    assert await do(c, "compare_and_set", 4, 10)
    assert not await do(c, "compare_and_set", 4, 11)
    await do(c, "reset")
    assert await do(c, "value") == 0
    assert await do(c, "increment", 1 << 80) == 1 << 80
    with pytest.raises(TypeError):
        await do(c, "increment", 0.5)


async def a_dict_is_a_mapping(do: Do, name: str) -> None:
    d = sky.dict(name)
    with pytest.raises(KeyError, match="missing"):
        await do(d, "getitem", "missing")
    with pytest.raises(KeyError):
        await do(d, "delitem", "missing")
    await do(d, "setitem", "a", [1])
    assert await do(d, "getitem", "a") == [1]
    assert await do(d, "get", "b") is None and await do(d, "get", "b", 7) == 7
    assert await do(d, "contains", "a") and not await do(d, "contains", "b")
    assert await do(d, "setdefault", "a", 2) == [1] and await do(d, "setdefault", "b", 2) == 2
    await do(d, "update", {"c": 3}, d=4)
    await do(d, "update", [("c", 5)])
    assert await do(d, "len") == 4
    assert await do(d, "items") == [("a", [1]), ("b", 2), ("c", 5), ("d", 4)]
    assert await do(d, "iter") == await do(d, "keys") == ["a", "b", "c", "d"]
    assert await do(d, "values") == [[1], 2, 5, 4]
    assert await do(d, "pop", "c") == 5 and await do(d, "pop", "c", None) is None
    with pytest.raises(KeyError):
        await do(d, "pop", "c")
    assert await do(d, "popitem") == ("d", 4)
    await do(d, "delitem", "a")
    await do(d, "clear")
    assert await do(d, "len") == 0 and await do(d, "items") == []
    with pytest.raises(KeyError):
        await do(d, "popitem")


async def keys_are_equal_where_python_says_so(do: Do, name: str) -> None:
    d = sky.dict(name, shards=3)
    pair = "x" * 50  # one object twice, and two equal ones, have different pickles
    other = "".join(["x" * 25, "x" * 25])
    keys = [1, "1", b"1", (1, "a"), frozenset({1, 2}), None, 2.5, Colour.RED, (Colour.RED, (pair, pair))]
    for number, key in enumerate(keys):
        await do(d, "setitem", key, number)
    assert await do(d, "getitem", True) == await do(d, "getitem", 1.0) == 0
    assert await do(d, "getitem", frozenset({2, 1.0})) == 4
    assert await do(d, "getitem", (Colour.RED, (pair, other))) == len(keys) - 1
    assert set(await do(d, "iter")) == set(keys)
    with pytest.raises(TypeError, match="unhashable"):
        await do(d, "setitem", [], 1)


async def values_of_ones_own_types_cross(do: Do, name: str) -> None:
    d = sky.dict(name)
    await do(d, "setitem", "p", Point(3))
    assert await do(d, "getitem", "p") == Point(3)
    assert await do(d, "compare_and_set", "p", Point(3), lambda: 4)
    assert (await do(d, "getitem", "p"))() == 4
    assert not await do(d, "compare_and_set", "p", Point(3), 5)
    assert not await do(d, "compare_and_set", "missing", None, 5)


async def a_value_is_computed_once(do: Do, name: str) -> None:
    d = sky.dict(name)
    assert await do(d, "get_or_compute", "k", lambda: 5) == 5
    assert await do(d, "get_or_compute", "k", lambda: 6) == 5
    with pytest.raises(ZeroDivisionError):
        await do(d, "get_or_compute", "z", lambda: 1 / 0)
    assert await do(d, "get_or_compute", "z", lambda: 7) == 7


async def a_value_that_needs_itself_is_an_error(do: Do, name: str) -> None:
    d = sky.dict(name)
    ask = d.get_or_compute if do is blocking else d.get_or_compute_async
    with pytest.raises(sky.OperatorError, match="wait for itself"):
        await do(d, "get_or_compute", "k", lambda: ask("other", lambda: ask("k", int)))
    assert await do(d, "len") == 0
    assert await do(d, "get_or_compute", "k", lambda: ask("other", lambda: 5)) == 5
    assert await do(d, "get_or_compute", "set meanwhile", lambda: _set_and_ask(d, do)) == 7


def _set_and_ask(d: Any, do: Do) -> Any:
    """Set the value that is being computed, and ask for it."""

    async def set_and_ask() -> Any:
        await do(d, "setitem", "set meanwhile", 7)
        return await do(d, "get_or_compute", "set meanwhile", int)

    if do is awaiting:
        return set_and_ask()
    with pytest.raises(StopIteration) as end:
        set_and_ask().send(None)
    return end.value.value


async def a_set_has_members(do: Do, name: str) -> None:
    s = sky.set(name, shards=2)
    assert await do(s, "add", "a") and not await do(s, "add", "a")
    assert await do(s, "update", ["a", "b", (1, 2)]) == 2
    assert await do(s, "contains", (1, 2)) and not await do(s, "contains", "z")
    assert await do(s, "isdisjoint", ["z"]) and not await do(s, "isdisjoint", ["z", "b"])
    assert await do(s, "len") == 3 and set(await do(s, "iter")) == {"a", "b", (1, 2)}
    await do(s, "discard", "z")
    with pytest.raises(KeyError):
        await do(s, "remove", "z")
    await do(s, "remove", "a")
    assert {await do(s, "pop"), await do(s, "pop")} == {"b", (1, 2)}
    with pytest.raises(KeyError):
        await do(s, "pop")
    await do(s, "update", range(10))
    await do(s, "clear")
    assert await do(s, "len") == 0


async def a_queue_keeps_order(do: Do, name: str) -> None:
    q = sky.queue(name)
    await do(q, "put", None)
    await do(q, "put_nowait", 1)
    await do(q, "put_many", [2, 3, 4])
    assert await do(q, "qsize") == await do(q, "len") == 5
    assert await do(q, "get") is None and await do(q, "get_nowait") == 1
    assert await do(q, "get_many", 2) == [2, 3] and await do(q, "get_many", 10) == [4]
    assert await do(q, "empty") and not await do(q, "full")
    with pytest.raises(queue.Empty):
        await do(q, "get_nowait")
    with pytest.raises(queue.Empty):
        await do(q, "get", timeout=0.01)
    with pytest.raises(sky.ConfigurationError):
        await do(q, "get", timeout=-1)


async def an_item_that_cant_be_read_is_taken_alone(do: Do, name: str) -> None:
    q = sky.queue(name)
    await do(q, "put_many", [1, Bomb(), 2, 3])
    assert await do(q, "get_many", 9) == [1]
    with pytest.raises(sky.SerializationError, match="Boom"):
        await do(q, "get_many", 9)
    assert await do(q, "get_many", 9) == [2, 3]
    await do(q, "put_many", [Bomb(), 4])
    with pytest.raises(sky.SerializationError, match="Boom"):
        await do(q, "get")
    assert await do(q, "get") == 4


async def a_queue_has_a_size(do: Do, name: str) -> None:
    q = sky.queue(name, 2)
    await do(q, "put_many", [1, 2])
    assert await do(q, "full")
    await do(q, "put_many", [])  # there is room for nothing
    await do(q, "put_many", [], block=False)
    with pytest.raises(queue.Full):
        await do(q, "put_nowait", 3)
    with pytest.raises(queue.Full, match="0 of 1"):
        await do(q, "put", 3, timeout=0.01)
    assert await do(q, "get") == 1
    with pytest.raises(queue.Full, match="1 of 2"):
        await do(q, "put_many", [3, 4], timeout=0.01)
    assert await do(q, "get_many", 5) == [2, 3]


async def a_barrier_of_one_opens(do: Do, name: str) -> None:
    b = sky.barrier(name, 1)
    assert await do(b, "wait") == 0
    assert await do(b, "parties") == 1 and await do(b, "n_waiting") == 0
    await do(b, "abort")
    assert await do(b, "broken")
    with pytest.raises(sky.BrokenBarrierError):
        await do(b, "wait")
    await do(b, "reset")
    assert await do(b, "wait") == 0


async def a_barrier_breaks_at_a_timeout(do: Do, name: str) -> None:
    b = sky.barrier(name, 2)
    with pytest.raises(sky.BrokenBarrierError, match=r"0\.01 s"):
        await do(b, "wait", 0.01)
    assert await do(b, "broken")


async def a_lock_excludes(do: Do, name: str) -> None:
    lock = sky.lock(name)
    assert await do(lock, "holder") is None and not await do(lock, "locked")
    assert await do(lock, "acquire")
    first = await do(lock, "fence")
    holder = await do(lock, "holder")
    assert holder.fence == first and holder.since > 0 and holder.worker
    assert not await do(lock, "acquire", blocking=False)
    assert not await do(lock, "acquire", timeout=0.01)
    await do(lock, "release")
    with pytest.raises(sky.LockError, match="nobody holds"):
        await do(lock, "release")
    assert await do(lock, "acquire", blocking=False)
    assert await do(lock, "fence") > first
    await do(lock, "release")


async def options_must_agree(do: Do, name: str) -> None:
    await do(sky.dict(name, shards=2), "len")
    assert await do(sky.dict(name), "len") == 0
    with pytest.raises(sky.CollectionConflict, match="has shards=2"):
        await do(sky.dict(name, shards=1), "len")
    with pytest.raises(sky.CollectionConflict, match="is a dict"):
        await do(sky.queue(name), "qsize")


async def a_destroyed_collection_begins_anew(do: Do, name: str) -> None:
    d = sky.dict(name)
    await do(d, "setitem", 1, 1)
    await do(d, "destroy")
    assert await do(d, "len") == 0
    await do(d, "destroy")
    await do(sky.queue(name), "put", 1)
    with pytest.raises(sky.CollectionConflict, match="exists, and is a queue"):
        await do(d, "len")
    await do(sky.queue(name), "destroy")


CASES = {
    case.__name__: case
    for case in (
        a_counter_counts,
        a_dict_is_a_mapping,
        keys_are_equal_where_python_says_so,
        values_of_ones_own_types_cross,
        a_value_is_computed_once,
        a_value_that_needs_itself_is_an_error,
        a_set_has_members,
        a_queue_keeps_order,
        an_item_that_cant_be_read_is_taken_alone,
        a_queue_has_a_size,
        a_barrier_of_one_opens,
        a_barrier_breaks_at_a_timeout,
        a_lock_excludes,
        options_must_agree,
        a_destroyed_collection_begins_anew,
    )
}

# --- places ------------------------------------------------------------------------------------------------

#: Operations whose blocking form isn't a method of that name.
_BLOCKING: dict[str, Callable[..., Any]] = {
    "getitem": lambda handle, key: handle[key],
    "setitem": lambda handle, key, value: handle.__setitem__(key, value),
    "delitem": lambda handle, key: handle.__delitem__(key),
    "contains": lambda handle, key: key in handle,
    "len": len,
    "iter": list,
    "keys": lambda handle: list(handle.keys()),
    "items": lambda handle: list(handle.items()),
    "values": lambda handle: list(handle.values()),
}


async def blocking(handle: Any, operation: str, *args: Any, **kwargs: Any) -> Any:
    """Do it and wait; nothing in here awaits."""
    if operation in _BLOCKING:
        return _BLOCKING[operation](handle, *args)
    found = getattr(handle, operation)
    return found(*args, **kwargs) if callable(found) else found


async def awaiting(handle: Any, operation: str, *args: Any, **kwargs: Any) -> Any:
    """Await the twin."""
    if operation == "iter":
        return [each async for each in handle]
    twin = getattr(handle, f"{operation}_async")(*args, **kwargs)
    if operation in ("keys", "items", "values"):
        return [each async for each in twin]
    return await twin


def run_blocking(case: str, name: str) -> None:
    """Run a case where one may block: a coroutine that never waits needs no loop."""
    try:
        CASES[case](blocking, name).send(None)
    except StopIteration:
        return
    raise AssertionError("it has awaited something")


async def run_awaiting(case: str, name: str) -> None:
    """Run a case on an event loop."""
    await CASES[case](awaiting, name)

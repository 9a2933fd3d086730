"""A dict that all tasks and clients of a cluster share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    ItemsView,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
    Sequence,
    ValuesView,
)
from contextvars import ContextVar
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from skyward_dask.api.handles import Handle, Steps, both, checked_timeout, one, pages, pages_async
from skyward_dask.errors import ConfigurationError, OperatorError
from skyward_dask.shared.asks import Ask
from skyward_dask.shared.events import Withdrawn
from skyward_dask.shared.keys import pack, pack_key, place, unpack, unpack_key

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")
_MISSING: Any = object()


#: What is being computed in this context, the innermost last.
_computing: ContextVar[tuple[_Computation, ...]] = ContextVar("skyward_computing", default=())


class _Computation:
    """A value that a user's function is computing: callers in a copy of its context are part of that.

    Not by the owner: a client's threads have one, and wait for each other.
    """

    def __init__(self, name: str, key: Any) -> None:
        self._what = name, key
        self._has_ended = False

    def is_under_way(self) -> bool:
        """Whether the caller is a part of such a computation."""
        return any(each._what == self._what and not each._has_ended for each in _computing.get())

    def __enter__(self) -> None:
        self._outer = _computing.get()
        _computing.set((*self._outer, self))

    def __exit__(self, *error: object) -> None:
        self._has_ended = True  # for threads and tasks that the function has left running
        _computing.set(self._outer)


class Dict(Handle, MutableMapping[K, V]):
    """A mapping: see `dict`."""

    kind = "dict"
    __hash__ = None  # type: ignore[assignment]  # as all mutable mappings

    def _ask(self, operation: str, key: object, *arguments: object, **options: Any) -> Ask:
        packed = pack_key(key)
        return Ask(operation, (packed, *arguments), place(packed), **options)

    def _getitem(self, key: K) -> Steps[V]:
        """The value of a key; raises KeyError if there is none."""
        found = yield self._ask("get", key, reads=True)
        if found is None:
            raise KeyError(key)
        value: V = unpack(found)
        return value

    __getitem__, getitem_async = both(_getitem, "[]")

    def _get(self, key: K, default: Any = None) -> Steps[Any]:
        """The value of a key, or the default."""
        found = yield self._ask("get", key, reads=True)
        return default if found is None else unpack(found)

    if TYPE_CHECKING:  # `get` is typed as any mapping's

        @overload
        async def get_async(self, key: K) -> V | None: ...
        @overload
        async def get_async(self, key: K, default: V | D) -> V | D: ...
        async def get_async(self, key: K, default: Any = None) -> Any: ...
    else:
        get, get_async = both(_get)

    def _setitem(self, key: K, value: V) -> Steps[None]:
        """Set the value of a key."""
        yield self._ask("put", key, pack(value))

    __setitem__, setitem_async = both(_setitem, "[]=")

    def _delitem(self, key: K) -> Steps[None]:
        """Remove a key; raises KeyError if it isn't there."""
        if (yield self._ask("pop", key)) is None:
            raise KeyError(key)

    __delitem__, delitem_async = both(_delitem, "del []")

    def _contains(self, key: object) -> Steps[bool]:
        """Whether the key is there."""
        return one(self._ask("contains", key, reads=True))

    __contains__, contains_async = both(_contains, "in")

    def _len(self) -> Steps[int]:
        """The number of keys."""
        shards = yield from self._shards()
        return sum((yield [Ask("size", place=shard, reads=True) for shard in range(shards)]))

    __len__, len_async = both(_len, "len()")

    def _setdefault(self, key: K, default: Any = None) -> Steps[V]:
        """The value of a key; if there is none, set it to the default first. Atomic."""
        value: V = unpack((yield self._ask("setdefault", key, pack(default))))
        return value

    setdefault, setdefault_async = both(_setdefault)

    def _pop(self, key: K, default: Any = _MISSING) -> Steps[Any]:
        """Remove a key and return its value; the default, or KeyError, if it isn't there."""
        found = yield self._ask("pop", key)
        if found is not None:
            return unpack(found)
        if default is _MISSING:
            raise KeyError(key)
        return default

    if TYPE_CHECKING:  # `pop` is typed as any mapping's

        @overload
        async def pop_async(self, key: K) -> V: ...
        @overload
        async def pop_async(self, key: K, default: V | D) -> V | D: ...
        async def pop_async(self, key: K, default: Any = None) -> Any: ...
    else:
        pop, pop_async = both(_pop)

    def _popitem(self) -> Steps[tuple[K, V]]:
        """Remove the last key and return it with its value; raises KeyError if there is none."""
        for shard in range((yield from self._shards())):
            if (found := (yield Ask("pop_last", place=shard))) is not None:
                return unpack_key(found[0]), unpack(found[1])
        raise KeyError(f"popitem from {self!r}, which is empty")

    popitem, popitem_async = both(_popitem)

    def _clear(self) -> Steps[None]:
        """Remove all keys."""
        yield [Ask("clear", place=shard) for shard in range((yield from self._shards()))]

    clear, clear_async = both(_clear)

    def _update(self, other: Mapping[K, V] | Iterable[tuple[K, V]] = (), /, **named: V) -> Steps[None]:
        """Set many values, in one round trip to each shard; atomic within a shard."""
        shards = yield from self._shards()
        parts: defaultdict[int, list[tuple[Any, bytes]]] = defaultdict(list)
        for key, value in [*dict(other).items(), *cast("dict[K, V]", named).items()]:
            packed = pack_key(key)
            parts[place(packed) % shards].append((packed, pack(value)))
        yield [Ask("put_many", (items,), shard) for shard, items in parts.items()]

    update, update_async = both(_update)  # type: ignore[assignment]

    def _compare_and_set(self, key: K, expected: V, value: V) -> Steps[bool]:
        """Set the value of a key if it equals `expected`; returns whether it did."""
        while True:
            found = yield self._ask("look", key)
            if found is None or unpack(found[1]) != expected:
                return False
            # compared here, where its type is known; set only if nobody has set another one meanwhile
            if (yield self._ask("replace", key, found[0], pack(value))):
                return True

    compare_and_set, compare_and_set_async = both(_compare_and_set)

    def _get_or_compute(
        self, key: K, function: Callable[[], V | Awaitable[V]], timeout: float | None = None
    ) -> Steps[V]:
        """The value of a key; if there is none, one caller computes it, and the others wait for it.

        Parameters
        ----------
        key
        function : callable
            Called without arguments, in the caller. For the twin it may be an ``async def``.
        timeout : float, optional
            Seconds to wait for the caller that computes; the function itself may take longer.

        Raises
        ------
        Exception
            What the function raises goes to its caller only; the next waiter computes.
        TimeoutError
            Another caller is still computing the value after `timeout` seconds.
        OperatorError
            The function asks for the value that it is computing.
        """
        if not callable(function):
            raise ConfigurationError(f"function must be one that takes no arguments, not {function!r}.")
        computation = _Computation(self.name, pack_key(key))
        if computation.is_under_way():
            return (yield from self._computed_meanwhile(key))
        try:
            number, found = yield self._ask("claim", key, binds=True, timeout=checked_timeout(timeout))
        except Withdrawn:
            raise TimeoutError(
                f"another caller is still computing {key!r} of {self!r} after {timeout} s: its task may hang."
            ) from None
        if not number:
            value: V = unpack(found)
            return value
        try:
            with computation:
                made = function()
                if isawaitable(made):
                    made = yield made
            packed = pack(made)
        except BaseException:
            yield self._ask("abandon", key, number)
            raise
        value = unpack((yield self._ask("setdefault", key, packed)))
        return value

    def _computed_meanwhile(self, key: K) -> Steps[V]:
        found = yield self._ask("get", key)
        if found is None:
            raise OperatorError(
                f"the function that computes {key!r} of {self!r} calls get_or_compute for the same key, and "
                "would wait for itself: let it compute the value without asking for it."
            )
        value: V = unpack(found)
        return value

    get_or_compute, get_or_compute_async = both(_get_or_compute)

    # --- all of it ---------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[K]:
        return (key for key, _ in pages(self, _keys))

    def items(self) -> ItemsView[K, V]:
        """Keys with their values, read in pages."""
        return _Items(self)

    def values(self) -> ValuesView[V]:
        """Values, read in pages."""
        return _Values(self)

    async def __aiter__(self) -> AsyncIterator[K]:
        async for key, _ in pages_async(self, _keys):
            yield key

    async def keys_async(self) -> AsyncIterator[K]:
        """Keys, for ``async for``."""
        async for key in self:
            yield key

    async def items_async(self) -> AsyncIterator[tuple[K, V]]:
        """Keys with their values, for ``async for``."""
        async for item in pages_async(self, _items):
            yield item

    async def values_async(self) -> AsyncIterator[V]:
        """Values, for ``async for``."""
        async for _, value in pages_async(self, _items):
            yield value


class _Items(ItemsView[K, V]):
    _mapping: Dict[K, V]

    def __iter__(self) -> Iterator[tuple[K, V]]:
        return pages(self._mapping, _items)


class _Values(ValuesView[V]):
    _mapping: Dict[Any, V]

    def __iter__(self) -> Iterator[V]:
        return (value for _, value in pages(self._mapping, _items))


def _keys(handle: Handle, shard: int, after: int) -> Steps[tuple[Sequence[tuple[Any, Any]], Any]]:
    entries, after = yield Ask("page", (after, False), shard)
    return [(unpack_key(key), None) for key, _ in entries], after


def _items(handle: Handle, shard: int, after: int) -> Steps[tuple[Sequence[tuple[Any, Any]], Any]]:
    entries, after = yield Ask("page", (after, True), shard)
    return [(unpack_key(key), unpack(value)) for key, value in entries], after

"""A set that all tasks and clients of a cluster share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, MutableSet, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from skyward_dask.api.handles import Handle, Steps, both, one, pages, pages_async
from skyward_dask.shared.asks import Ask
from skyward_dask.shared.keys import pack_key, place, unpack_key

T = TypeVar("T")


class Set(Handle, MutableSet[T]):
    """A set: see `set`."""

    kind = "set"
    __hash__ = None  # type: ignore[assignment]  # as all mutable sets

    @classmethod
    def _from_iterable(cls, it: Iterable[Any]) -> Any:
        return set(it)  # set operations return ordinary sets

    def _ask(self, operation: str, member: object, reads: bool = False) -> Ask:
        packed = pack_key(member)
        return Ask(operation, (packed,), place(packed), reads=reads)

    def _add(self, value: T) -> Steps[bool]:
        """Add a member, and return whether it was new: claiming work is one call."""
        return one(self._ask("add", value))

    if TYPE_CHECKING:  # MutableSet's returns None

        def add(self, value: T) -> bool: ...  # type: ignore[override]
        async def add_async(self, value: T) -> bool: ...
    else:
        add, add_async = both(_add)

    def _discard(self, value: T) -> Steps[None]:
        """Remove a member, if it is there."""
        yield self._ask("discard", value)

    discard, discard_async = both(_discard)

    def _remove(self, value: T) -> Steps[None]:
        """Remove a member; raises KeyError if it isn't there."""
        if not (yield self._ask("discard", value)):
            raise KeyError(value)

    remove, remove_async = both(_remove)

    def _contains(self, value: object) -> Steps[bool]:
        """Whether the value is a member."""
        return one(self._ask("contains", value, reads=True))

    __contains__, contains_async = both(_contains, "in")

    def _len(self) -> Steps[int]:
        """The number of members."""
        shards = yield from self._shards()
        return sum((yield [Ask("size", place=shard, reads=True) for shard in range(shards)]))

    __len__, len_async = both(_len, "len()")

    def _pop(self) -> Steps[T]:
        """Remove and return an arbitrary member; raises KeyError if there is none."""
        for shard in range((yield from self._shards())):
            if (found := (yield Ask("pop", place=shard))) is not None:
                member: T = unpack_key(found[0])
                return member
        raise KeyError(f"pop from {self!r}, which is empty")

    pop, pop_async = both(_pop)

    def _clear(self) -> Steps[None]:
        """Remove all members."""
        yield [Ask("clear", place=shard) for shard in range((yield from self._shards()))]

    clear, clear_async = both(_clear)

    def _update(self, values: Iterable[T]) -> Steps[int]:
        """Add members, in one round trip to each shard, and return how many were new."""
        shards = yield from self._shards()
        parts: defaultdict[int, list[Any]] = defaultdict(list)
        for packed in map(pack_key, values):
            parts[place(packed) % shards].append(packed)
        return sum((yield [Ask("add_many", (members,), shard) for shard, members in parts.items()]))

    update, update_async = both(_update)

    async def isdisjoint_async(self, other: Iterable[Any]) -> bool:
        """Whether it has no member in common with the other."""
        for value in other:
            if await self.contains_async(value):
                return False
        return True

    def __ior__(self, values: Iterable[T]) -> Set[T]:  # type: ignore[override,misc]
        self.update(values)
        return self

    def __iter__(self) -> Iterator[T]:
        return pages(self, _page)

    def __aiter__(self) -> AsyncIterator[T]:
        found: AsyncIterator[T] = pages_async(self, _page)
        return found


def _page(handle: Handle, shard: int, after: int) -> Steps[tuple[Sequence[Any], Any]]:
    members, after = yield Ask("page", (after,), shard)
    return [unpack_key(member) for member in members], after

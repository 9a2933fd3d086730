"""Results that consist of many objects: pickled by the child, and unpickled by whoever uses them.

```
 child: list ── seal ──▶ Sealed ══ pickled ══▶ worker: Parcel ══ pickled ══▶ child, worker, client: list
```

A bag of a million dicts costs a second to pickle and as long to unpickle, and the interpreter does nothing
else meanwhile. So the worker keeps it closed, as the child made it, and passes it on like an array. It
is opened there only for a task that runs in one of its threads.
"""

from __future__ import annotations

import builtins
import copyreg
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, SupportsIndex, cast

from dask.sizeof import sizeof
from distributed.sizeof import safe_sizeof

from skyward_dask.errors import SerializationError
from skyward_dask.slots.framing import Part
from skyward_dask.slots.pickling import as_buffer, dumps_whole, loads, unloadable

#: Size in bytes from which a result stays closed: unpickling it costs more than all else about it. And the
#: objects of thousands of small ones, dropped together, leave holes that Python doesn't give back.
SEAL_FROM = 16 * 1024
#: Bytes of an array up to which it is one of many objects: as cheap to copy as to view.
_SMALL = 4096


class _ParcelType(type):
    """The metaclass of parcels: if a parcel's class is sent, the type of the content arrives.

    The worker tells the scheduler the type of a result, which becomes ``future.type``.
    """

    content: type


class Parcel(metaclass=_ParcelType):
    """A value that stays pickled as long as it is in the worker.

    Parameters
    ----------
    nbytes : int
        Size of the value, as Dask estimates it.
    parts : list of buffers
        Its pickle.
    """

    __slots__ = ("_parts", "nbytes")
    content: ClassVar[type]

    def __init__(self, nbytes: int, parts: list[Part]) -> None:
        self.nbytes = nbytes
        self._parts = parts

    def open(self) -> Any:
        """A new copy of the value.

        Raises
        ------
        SerializationError
            It can't be unpickled here.
        """
        try:
            return loads(self._parts)
        except BaseException as error:  # a user's `__setstate__` may raise anything
            raise unloadable(
                f"a task's result, a {self.content.__name__},", "here", self._parts, error
            ) from error

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        # with some peers Dask uses an older protocol, which has no out-of-band buffers
        as_part = as_buffer if int(protocol) >= 5 else bytes
        return _opened, tuple(map(as_part, self._parts))

    def __repr__(self) -> str:
        return f"<closed {self.content.__name__}, {self.nbytes:,} bytes>"


def _opened(*parts: Part) -> Any:
    return loads(list(parts))


class Foreign(Parcel):
    """A result that can't be unpickled in the worker, but can be in a slot's process.

    Parameters
    ----------
    name : str
        What an error calls it in other processes that can't unpickle it.
    """

    __slots__ = ("_name",)
    content = object

    def __init__(self, name: str, nbytes: int, parts: list[Part]) -> None:
        super().__init__(nbytes, parts)
        self._name = name

    def open(self) -> Any:
        return _opened_or_named(self._name, *self._parts)

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        _, parts = super().__reduce_ex__(protocol)
        return _opened_or_named, (self._name, *parts)


def _opened_or_named(name: str, *parts: Part) -> Any:
    try:
        return loads(list(parts))
    except BaseException as error:
        raise SerializationError(
            f"{name} can't be unpickled here: {error!r}. It can be in a slot's process: have a task return "
            "what you need of it."
        ) from error


def type_of(*parts: Part) -> str:
    """The type of a pickled value; in a process that can unpickle it."""
    found = type(loads(list(parts)))
    return f"{found.__module__}.{found.__qualname__}"


#: What reads a parcel as its content, for users' code that looks into ``worker.data``.
_READING = ("__len__", "__iter__", "__contains__", "__getitem__", "keys", "values", "items", "get")


def _reading(name: str) -> Any:
    def read(parcel: Parcel, *arguments: Any) -> Any:
        return getattr(parcel.open(), name)(*arguments)

    return read


def _parcel_of(content: type) -> type[Parcel]:
    """The class of parcels with such a content; it looks like the content's own class."""
    named = {"__slots__": (), "__module__": content.__module__, "content": content}
    named |= {name: _reading(name) for name in _READING if hasattr(content, name)}
    made: Any = _ParcelType(content.__name__, (Parcel,), named)
    return cast(type[Parcel], made)


_CLASSES: Mapping[type, type[Parcel]] = MappingProxyType(
    {content: _parcel_of(content) for content in (list, tuple, dict, set, frozenset)}
)


def _content(name: str) -> Any:
    return getattr(builtins, name)


def _reduce_class(cls: _ParcelType) -> tuple[Any, ...]:
    return _content, (cls.content.__name__,)


copyreg.pickle(_ParcelType, _reduce_class)


@sizeof.register(Parcel)  # type: ignore[untyped-decorator]  # as Dask leaves it
def _size(parcel: Parcel) -> int:
    return parcel.nbytes


class Sealed:
    """A value on its way from a child to the worker, where it arrives as a `Parcel`."""

    def __init__(self, value: Any, parts: list[Part]) -> None:
        self._content = type(value).__name__
        self._nbytes = safe_sizeof(value)
        self._parts = parts

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (self._content, self._nbytes, *map(as_buffer, self._parts))


def _received(content: str, nbytes: int, *parts: Part) -> Parcel:
    return _CLASSES[_content(content)](nbytes, list(parts))


def seal(value: Any) -> Any:
    """Close a large value of many objects; anything else stays as it is.

    Large buffers would be shared by all that open it; in an ordinary value, everybody gets their own.
    """
    if type(value) not in _CLASSES or safe_sizeof(value) < SEAL_FROM:
        return value
    try:
        return Sealed(value, [dumps_whole(value, _SMALL)])
    except KeyboardInterrupt:  # the task is being cancelled
        raise
    except BaseException:  # a large buffer; or it can't be pickled, which is found again, and said
        return value

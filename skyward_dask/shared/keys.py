"""Users' values as opaque bytes, and their keys in a form that a home can compare without users' modules.

Keys of plain types (text, bytes, numbers, None, and tuples and frozen sets of these) stay as they are: two of
them are equal if Python says so. Others travel as their pickle, together with an *identity* of plain values,
by which homes compare them: pickles of equal keys differ between processes, identities don't.
"""

from __future__ import annotations

import copyreg
import pickle
import reprlib
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import partial
from numbers import Rational
from pathlib import PurePath, PureWindowsPath
from types import FunctionType
from typing import Any

import cloudpickle

from skyward_dask.errors import SerializationError

_PLAIN = frozenset({str, bytes, int, bool, type(None)})
#: Convert an instance of a subclass to its plain base class, whatever the subclass overrides.
_BASES: tuple[tuple[type, Callable[[Any], object]], ...] = (
    (str, str.__str__),
    (bytes, partial(bytes.__add__, b"")),
    (int, int.__int__),
    (float, float.__float__),
    (complex, partial(complex.__add__, 0j)),
    (tuple, lambda key: tuple(tuple.__iter__(key))),
    (frozenset, lambda key: frozenset(frozenset.__iter__(key))),
)
_NO_TIME = timedelta()


@dataclass(frozen=True, slots=True, eq=False)
class Opaque:
    """A key that isn't plain: its identity, by which it is compared (with plain keys too), and its pickle."""

    identity: Any
    pickle: bytes

    def __eq__(self, other: object) -> bool:
        return bool(self.identity == (other.identity if isinstance(other, Opaque) else other))

    def __hash__(self) -> int:
        return hash(self.identity)


@dataclass(frozen=True, slots=True)
class _Instance:
    """In an identity: what a class, or another function, makes from these plain values."""

    maker: str
    parts: Any


def pack(value: object) -> bytes:
    """Pickle a value; classes and functions of ``__main__`` travel by value."""
    try:
        data = pickle.dumps(value, protocol=5)
        if b"__main__" not in data:
            return data
    except Exception:
        pass  # cloudpickle has the last word
    try:
        return bytes(cloudpickle.dumps(value, protocol=5))
    except Exception as error:
        raise SerializationError(
            f"a value of type {type(value).__qualname__!r} can't be put into a collection, because it can't "
            f"be pickled: {error!r}"
        ) from error


def unpack(data: bytes) -> Any:
    """The value that `pack` packed."""
    try:
        return pickle.loads(data)
    except Exception as error:
        raise SerializationError(
            f"a value in a collection can't be unpickled here: {error!r}. Its module may be missing in this "
            "process, or its class can't be recreated from its pickle."
        ) from error


def pack_key(key: Any) -> Any:
    """Convert a key to what a home can take.

    Raises
    ------
    TypeError
        The key can't be hashed.
    SerializationError
        A key that is equal to it here might not be equal in another process.
    """
    hash(key)
    try:
        return key if _is_plain(key) else Opaque(_identity(key), pack(key))
    except RecursionError:
        raise _refused(key, "it is nested too deeply, or contains itself") from None


def unpack_key(key: Any) -> Any:
    """The key that `pack_key` packed."""
    return unpack(key.pickle) if isinstance(key, Opaque) else key


def _is_plain(key: Any) -> bool:
    kind = type(key)
    if kind in _PLAIN:
        return True
    if kind is float or kind is complex:
        return bool(key == key)
    return kind in (tuple, frozenset) and all(map(_is_plain, key))


# --- identities ------------------------------------------------------------------------------------------


def _identity(key: Any) -> Any:
    """Plain values that are equal if the keys are, in all processes."""
    if _is_plain(key):
        return key
    if type(key) in (tuple, frozenset):
        return type(key)(map(_identity, key))
    if key != key:
        raise _refused(key, "it doesn't equal itself, and would never be found again")
    for simpler in _simpler(key):
        if type(simpler) is not type(key) and simpler == key and hash(simpler) == hash(key):
            return _identity(simpler)
    return _instance(key)


def _simpler(key: Any) -> Iterator[Any]:
    """Values that a key may equal, and that are plain or closer to plain."""
    for base, convert in _BASES:
        if isinstance(key, base):
            yield convert(key)
    if type(key).__module__ == "numpy" and hasattr(key, "item"):
        yield key.item()
    if isinstance(key, (Rational, Decimal)):
        with suppress(OverflowError):
            yield float(key)
        with suppress(OverflowError):  # the key is infinite
            exact = Fraction(key)
            yield exact.numerator
            yield exact


def _instance(key: Any) -> Any:
    """The identity of a key that equals nothing of another class, or of a value inside such a key."""
    match key:
        case type():
            return _Instance("class", _name(key))
        case FunctionType() if "<" not in key.__qualname__:
            return _Instance("function", _name(key))
        case Enum():  # such classes keep their full names: `_name` isn't needed
            cls = type(key)
            return _Instance(f"{cls.__module__}:{cls.__qualname__}", _identity(key.name or key.value))
        case Fraction():
            return _Instance("fraction", (key.numerator, key.denominator))
        case datetime():
            offset = key.utcoffset()
            return _Instance(
                "moment", ((key.replace(tzinfo=None) - (offset or _NO_TIME)).isoformat(), offset is None)
            )
        case PurePath():
            path = key.as_posix()
            return _Instance("path", path.lower() if isinstance(key, PureWindowsPath) else path)
        case range():
            return _Instance("range", tuple(key[:1]) + tuple(key[1:2]) + (len(key),))
        case list() | bytearray():
            return _Instance("list", tuple(map(_identity, key)))
        case set():
            return frozenset(map(_identity, key))
        case dict():
            return _Instance("dict", frozenset((_identity(name), _identity(key[name])) for name in key))
    if (names := _compared(type(key))) is not None:
        return _Instance(_name(type(key)), tuple(_identity(getattr(key, name)) for name in names))
    return _reduced(key)


def _compared(cls: type) -> list[str] | None:
    """The attributes by which instances of a dataclass, or of an attrs class, are compared."""
    if _compares_by_identity(cls):
        return None
    if is_dataclass(cls):
        return [each.name for each in fields(cls) if each.compare]
    attributes = getattr(cls, "__attrs_attrs__", None)
    return None if attributes is None else [each.name for each in attributes if each.eq]


def _reduced(key: Any) -> Any:
    """What pickle would rebuild a key from; the order of sets and dicts, and the memo, don't count."""
    reduce = copyreg.dispatch_table.get(type(key))
    try:
        made: Any = reduce(key) if reduce is not None else key.__reduce_ex__(4)
    except Exception as error:
        raise _refused(key, f"it can't be pickled: {error!r}") from error
    if isinstance(made, str):
        return _Instance("object", f"{getattr(key, '__module__', type(key).__module__)}:{made}")
    if _compares_by_identity(type(key)):
        raise _refused(key, "its class has no __eq__, and a copy of it in another process isn't equal to it")
    maker, arguments, state, items, pairs = [*made, None, None, None][:5]
    contents = state, None if items is None else list(items), None if pairs is None else dict(pairs)
    return _Instance(_name(maker), (_identity(arguments), *map(_identity, contents)))


def _compares_by_identity(cls: Any) -> bool:
    return cls.__eq__ is object.__eq__


def _name(found: Any) -> str:
    """The name of a class or a function, the same in all processes."""
    name = found.__qualname__
    if found.__module__ == "__main__" or "<locals>" in name:
        name = found.__name__  # all that cloudpickle keeps of it when it recreates the class elsewhere
    return f"{found.__module__}:{name}"


def _refused(key: object, why: str) -> SerializationError:
    return SerializationError(
        f"{reprlib.repr(key)} of type {type(key).__qualname__!r} can't be a key or a member of a collection: "
        f"{why}. Use text, numbers, a tuple of these, an enum, or a frozen dataclass."
    )


def place(key: Any) -> int:
    """A number that selects a key's shard: the same in all processes, and for equal keys."""
    match key:
        case str():
            return zlib.crc32(key.encode(errors="surrogatepass"))
        case bytes():
            return zlib.crc32(key)
        case Opaque():
            return place(key.identity)
        case _Instance():
            return place((key.maker, key.parts))
        case tuple():
            return zlib.crc32(b"".join(place(each).to_bytes(4) for each in key))
        case frozenset():
            return sum(map(place, key)) & 0xFFFFFFFF
        case int() | float() | complex():
            # the hash of a number doesn't depend on a seed, and equal numbers have equal hashes
            return zlib.crc32(hash(key).to_bytes(8, signed=True))
    return 0  # None, whose hash depends on its address before Python 3.12

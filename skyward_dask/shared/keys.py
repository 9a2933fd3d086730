"""Users' values as opaque bytes, and their keys as something that a home can compare without their modules.

Keys of plain types (text, bytes, numbers, None, and tuples and frozen sets of these) stay as they are: they
are equal where Python says so. Others are compared by their pickle.
"""

from __future__ import annotations

import io
import pickle
import zlib
from dataclasses import dataclass
from typing import Any

import cloudpickle

_PLAIN = frozenset({str, bytes, int, float, complex, bool, type(None)})
_NUMBERS = (int, float, complex)


@dataclass(frozen=True, slots=True)
class Opaque:
    """A key of a type of somebody's own, by its pickle."""

    pickle: bytes


def pack(value: object) -> bytes:
    """A value as bytes; what lives in ``__main__`` travels by value."""
    try:
        data = pickle.dumps(value, protocol=5)
        if b"__main__" not in data:
            return data
    except Exception:
        pass  # cloudpickle has the last word
    return bytes(cloudpickle.dumps(value, protocol=5))


def unpack(data: bytes) -> Any:
    """The value that `pack` has packed."""
    return pickle.loads(data)


def pack_key(key: Any) -> Any:
    """A key as a home can take it; raises TypeError if it can't be hashed."""
    hash(key)
    return key if _is_plain(key) else Opaque(_canonical(key))


def unpack_key(key: Any) -> Any:
    """The key that `pack_key` has packed."""
    return unpack(key.pickle) if isinstance(key, Opaque) else key


def _is_plain(key: Any) -> bool:
    kind = type(key)
    return kind in _PLAIN or (kind in (tuple, frozenset) and all(map(_is_plain, key)))


def _canonical(key: object) -> bytes:
    """The same bytes for equal keys: without the memo, which tells one object from two that are equal."""
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, protocol=5)
    pickler.fast = True
    try:
        pickler.dump(key)
    except Exception:
        return pack(key)
    data = buffer.getvalue()
    return pack(key) if b"__main__" in data else data


def place(key: Any) -> int:
    """A number by which a key finds its shard: the same in all processes, and for equal keys."""
    if isinstance(key, str):
        return zlib.crc32(key.encode(errors="surrogatepass"))
    if isinstance(key, bytes):
        return zlib.crc32(key)
    if isinstance(key, Opaque):
        return zlib.crc32(key.pickle)
    if isinstance(key, tuple):
        return zlib.crc32(b"".join(place(each).to_bytes(4) for each in key))
    if isinstance(key, frozenset):
        return sum(map(place, key)) & 0xFFFFFFFF
    # numbers have no seed in their hash, and those that are equal have the same; None has an address in it
    return zlib.crc32(hash(key).to_bytes(8, signed=True)) if isinstance(key, _NUMBERS) else 0

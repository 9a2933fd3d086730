"""Small pickled items, one after the other in one block of bytes: each with its parts' count and sizes."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from skyward_dask.slots.framing import Part

_ONE = struct.Struct("<II")
_NUMBER = struct.Struct("<I")


def pack(parts: Sequence[Part]) -> bytes:
    """One item."""
    if len(parts) == 1:
        return _ONE.pack(1, len(parts[0])) + parts[0]
    sizes = [memoryview(part).nbytes for part in parts]
    return b"".join([struct.pack(f"<{len(sizes) + 1}I", len(sizes), *sizes), *parts])


def unpack(block: Part) -> list[list[Part]]:
    """All items, over the block's memory."""
    view, at, items = memoryview(block), 0, list[list[Part]]()
    while at < len(view):
        count, size = _ONE.unpack_from(view, at)
        at += _ONE.size
        sizes = [size]
        if count > 1:
            sizes += struct.unpack_from(f"<{count - 1}I", view, at)
            at += (count - 1) * _NUMBER.size
        parts: list[Part] = []
        for size in sizes:
            parts.append(view[at : at + size])
            at += size
        items.append(parts)
    return items

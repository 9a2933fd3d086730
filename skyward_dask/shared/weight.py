"""About how many bytes plain values take, without looking at each of them for long."""

from __future__ import annotations

from typing import Any

from skyward_dask.shared.events import Call

#: What a value or an event weighs besides its bytes: about what its pickle, or its objects, take.
_OVERHEAD = 100


def weight(value: Any) -> int:
    """About how many bytes a value has, in memory or when it is sent."""
    if isinstance(value, (bytes, str)):
        return len(value) + _OVERHEAD
    if isinstance(value, Call):
        return _OVERHEAD + weight(value.arguments)
    if isinstance(value, (tuple, list)):
        return sum(map(weight, value))
    return _OVERHEAD

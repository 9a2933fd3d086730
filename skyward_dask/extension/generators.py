"""The error for a task that yields, as there are no streams yet."""

from __future__ import annotations

from types import AsyncGeneratorType, GeneratorType
from typing import TypeVar

from skyward_dask.errors import StreamsNotSupported

T = TypeVar("T")


def refuse_generator(result: T, key: object) -> T:
    """Return the result; raises an error if it is a generator."""
    if isinstance(result, (GeneratorType, AsyncGeneratorType)):
        raise StreamsNotSupported(
            f"task {key!r} returned the generator {result.__qualname__!r}: it can't leave the process that "
            "made it. Return a list of what it yields."
        )
    return result

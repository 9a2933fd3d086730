"""The partitions of Dask's collections."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from dask.base import is_dask_collection


def partition_count(value: Any) -> int | None:
    """How many partitions a Dask collection has, an array along its first axis; None for anything else."""
    if not is_dask_collection(value):
        return None
    count: int | None = value.numblocks[0] if getattr(value, "numblocks", ()) else None
    return count if count is not None else getattr(value, "npartitions", None)


def partitions(collection: Any, chosen: list[int]) -> Any:
    """A collection of some of the partitions, in that order."""
    if hasattr(collection, "blocks"):
        return collection.blocks[chosen] if chosen else collection[:0]
    if hasattr(collection, "partitions"):
        return collection.partitions[chosen] if chosen else collection.head(0, compute=False)
    bag, parts = import_module("dask.bag"), collection.to_delayed()
    return bag.from_delayed([parts[n] for n in chosen]) if chosen else bag.from_sequence(())

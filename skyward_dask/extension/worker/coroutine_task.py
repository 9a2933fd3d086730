"""A coroutine task: it runs on the worker's loop, and raises only errors that Dask can carry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skyward_dask.extension.dask_errors import awaited
from skyward_dask.extension.parcel import Parcel
from skyward_dask.extension.private import GraphNode


class LoopTask(GraphNode):
    """Stands in for a coroutine's spec while the coroutine is executed.

    The spec itself is never changed: with ``inproc://`` it is the scheduler's own object. If this
    object is pickled, the spec arrives at the other end.
    """

    __slots__ = ("spec",)

    def __init__(self, spec: GraphNode) -> None:
        self.key = spec.key
        self._dependencies = spec.dependencies
        self.spec = spec

    @classmethod
    def of(cls, spec: GraphNode) -> LoopTask:
        return spec if isinstance(spec, cls) else cls(spec)

    def __call__(self, values: Mapping[Any, Any] = {}) -> Any:
        return awaited(self.key, self._computed(values))

    async def _computed(self, values: Mapping[Any, Any]) -> Any:
        # a parcel that the worker couldn't open can't be opened here either: the task fails with its error
        given = {key: v.open() if isinstance(v, Parcel) else v for key, v in values.items()}
        return await self.spec(given)

    @property
    def is_coro(self) -> bool:
        return True

    def __repr__(self) -> str:
        return repr(self.spec)

    def __reduce__(self) -> tuple[Any, ...]:
        return _itself, (self.spec,)

    def __sizeof__(self) -> int:
        return self.spec.__sizeof__()


def _itself(spec: GraphNode) -> GraphNode:
    return spec

"""A coroutine task: it runs on the worker's loop, and raises only errors that Dask can carry."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from inspect import isawaitable
from typing import Any

from skyward_dask.extension.child.streams import GENERATORS
from skyward_dask.extension.dask_errors import awaited
from skyward_dask.extension.private import GraphNode
from skyward_dask.extension.task_run import TaskRun, current
from skyward_dask.extension.worker.routing import arguments
from skyward_dask.extension.worker.values import given_to_task


class LoopTask(GraphNode):
    """Stands in for a coroutine's spec while the coroutine is executed.

    The spec itself is never changed: with ``inproc://`` it is the scheduler's own object. If this
    object is pickled, the spec arrives at the other end.
    """

    __slots__ = ("_finished", "spec")

    def __init__(self, spec: GraphNode, finished: Callable[..., Awaitable[Any]]) -> None:
        self.key = spec.key
        self._dependencies = spec.dependencies
        self.spec = spec
        self._finished = finished

    @classmethod
    def of(cls, spec: GraphNode, finished: Callable[..., Awaitable[Any]]) -> LoopTask:
        """Stand in for the spec of a coroutine or an asynchronous generator; `finished` takes its value."""
        return cls(spec.spec if isinstance(spec, cls) else spec, finished)

    def __call__(self, values: Mapping[Any, Any] = {}) -> Any:
        return awaited(self.key, self._computed(values))

    async def _computed(self, values: Mapping[Any, Any]) -> Any:
        # a parcel that the worker couldn't open can't be opened here either: the task fails with its error
        given = {key: given_to_task(value) for key, value in values.items()}
        run = current.get() or TaskRun(self.key)
        with run.reading():
            value = self.spec(given)
            value = await value if isawaitable(value) else value
            run.is_stream = isinstance(value, GENERATORS)
        read = (*given.values(), *arguments(self.spec))
        return await self._finished(value, read)

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

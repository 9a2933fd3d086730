"""Where a task runs, and why: a pure decision, and the node of the graph that carries it out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from dask._task_spec import Alias, DataNode, GraphNode

from skyward_dask.errors import ConfigurationError
from skyward_dask.extension.tracebacks import shortened


class Place(StrEnum):
    """Where a task runs."""

    CHILD = "child"
    THREAD = "thread"
    LOOP = "loop"
    WORKER = "worker"


class Reason(StrEnum):
    """Why it runs there."""

    PLAIN = "plain"
    P2P = "p2p"
    ASYNC = "async"
    ACTOR = "actor"
    ALIAS = "alias"
    DATA = "data"
    ANNOTATED = "annotated"
    OTHER_EXECUTOR = "other-executor"


@dataclass(frozen=True, slots=True)
class Route:
    """A place and its reason."""

    place: Place
    reason: Reason


@dataclass(frozen=True, slots=True)
class Limits:
    """What a task may take, by its own annotations; None: what its node says."""

    timeout: float | None = None
    memory_limit: int | None = None


_SLOT_PLACES = {"process": Place.CHILD, "thread": Place.THREAD}


def limits(annotations: Mapping[str, Any], route: Route) -> Limits:
    """The limits that a task is annotated with.

    Raises
    ------
    ConfigurationError
        It runs in a thread, which can't be ended.
    """
    found = Limits(annotations.get("skyward_timeout"), annotations.get("skyward_memory_limit"))
    if route.place is Place.THREAD and found != Limits():
        raise ConfigurationError(
            "a task with a timeout or a memory_limit of its own has come to a thread slot, and a thread "
            "can't be ended: give the node process slots, or the task executor='process'."
        )
    return found


def route(spec: GraphNode, *, is_actor: bool, annotation: str | None, executor: str) -> Route:
    """Decide where a task runs.

    Parameters
    ----------
    spec : GraphNode
        What it computes.
    is_actor : bool
        Whether it builds an actor.
    annotation : str or None
        The executor that the task is annotated with.
    executor : str
        The node's own: ``"thread"`` or ``"process"``.
    """
    if annotation not in (None, "default", *_SLOT_PLACES):
        return Route(Place.WORKER, Reason.OTHER_EXECUTOR)
    if is_actor:
        return Route(Place.WORKER, Reason.ACTOR)
    if isinstance(spec, Alias):
        return Route(Place.WORKER, Reason.ALIAS)
    if isinstance(spec, DataNode):
        return Route(Place.WORKER, Reason.DATA)
    if spec.is_coro:
        return Route(Place.LOOP, Reason.ASYNC)
    if annotation in _SLOT_PLACES:
        return Route(_SLOT_PLACES[annotation], Reason.ANNOTATED)
    return Route(_SLOT_PLACES[executor], Reason.PLAIN)


class RoutedTask(GraphNode):
    """A task's spec, wrapped so that its call goes where it was routed.

    The spec itself is never changed: with ``inproc://`` it is the scheduler's own object. Nothing but this
    worker ever sees the wrapper; should it be pickled, what arrives is the spec.
    """

    __slots__ = ("call", "limits", "route", "spec")

    def __init__(
        self,
        spec: GraphNode,
        route: Route,
        limits: Limits,
        call: Callable[[RoutedTask, Mapping[Any, Any]], Any],
    ) -> None:
        self.key = spec.key
        self._dependencies = spec.dependencies
        self.spec = spec
        self.route = route
        self.limits = limits
        self.call = call

    def __call__(self, values: Mapping[Any, Any] = {}) -> Any:
        with shortened():
            return self.call(self, values)

    @property
    def is_coro(self) -> bool:
        return bool(self.spec.is_coro)

    def __repr__(self) -> str:
        return repr(self.spec)

    def __reduce__(self) -> tuple[Any, ...]:
        return _itself, (self.spec,)

    def __sizeof__(self) -> int:
        return self.spec.__sizeof__()


def _itself(spec: GraphNode) -> GraphNode:
    return spec


class UnroutableTask(GraphNode):
    """In the place of a task whose routing failed: it raises, rather than run elsewhere."""

    __slots__ = ("error",)

    def __init__(self, spec: GraphNode, error: Exception) -> None:
        self.key = spec.key
        self._dependencies = spec.dependencies
        self.error = error

    def __call__(self, values: Mapping[Any, Any] = {}) -> Any:
        raise self.error

    def __repr__(self) -> str:
        return f"<a task that can't be routed: {self.error!r}>"

"""Where a task runs, and why: a pure decision."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from functools import partial
from inspect import CO_ASYNC_GENERATOR, CO_GENERATOR
from types import CodeType
from typing import Any, NamedTuple

from skyward_dask.config import Worker, parse_memory_limit, parse_timeout
from skyward_dask.errors import ConfigurationError
from skyward_dask.extension.private import Alias, DataNode, GraphNode


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


class Route(NamedTuple):
    """A place and its reason."""

    place: Place
    reason: Reason


class Limits(NamedTuple):
    """A task's limits, in seconds and in bytes; None for no limit."""

    timeout: float | None
    memory_limit: int | None


_SLOT_PLACES = {"process": Place.CHILD, "thread": Place.THREAD}


def limits(annotations: Mapping[str, Any], route: Route, config: Worker) -> Limits:
    """The limits that a task is annotated with, or else the node's.

    Raises
    ------
    ConfigurationError
        A limit is invalid (`dask.annotate` takes anything), or the task runs in a thread, which can't be
        stopped.
    """
    if not annotations:
        return Limits(config.timeout, config.memory_limit)
    timeout = parse_timeout(annotations.get("skyward_timeout"))
    memory_limit = parse_memory_limit(annotations.get("skyward_memory_limit"))
    if route.place is Place.THREAD and (timeout, memory_limit) != (None, None):
        raise ConfigurationError(
            "a task with its own timeout or memory_limit was sent to a thread slot, and a thread can't be "
            "stopped: use process slots, or give the task executor='process'."
        )
    return Limits(timeout or config.timeout, memory_limit or config.memory_limit)


def route(spec: GraphNode, *, is_actor: bool, annotation: str | None, executor: str) -> Route:
    """Decide where a task runs.

    Parameters
    ----------
    spec : GraphNode
        What the task computes.
    is_actor : bool
        Whether the task builds an actor.
    annotation : str or None
        The executor that the task is annotated with.
    executor : str
        The node's kind of slots: ``"thread"`` or ``"process"``.
    """
    if annotation not in (None, "default", *_SLOT_PLACES):
        return Route(Place.WORKER, Reason.OTHER_EXECUTOR)
    if is_actor:
        return Route(Place.WORKER, Reason.ACTOR)
    if isinstance(spec, Alias):
        return Route(Place.WORKER, Reason.ALIAS)
    if isinstance(spec, DataNode):
        return Route(Place.WORKER, Reason.DATA)
    if spec.is_coro or _flags(spec) & CO_ASYNC_GENERATOR:
        return Route(Place.LOOP, Reason.ASYNC)
    if annotation in _SLOT_PLACES:
        return Route(_SLOT_PLACES[annotation], Reason.ANNOTATED)
    return Route(_SLOT_PLACES[executor], Reason.PLAIN)


def arguments(spec: GraphNode) -> tuple[Any, ...]:
    """The arguments of a task's function, as far as they aren't results of other tasks."""
    return (*getattr(spec, "args", ()), *getattr(spec, "kwargs", {}).values())


def yields(spec: GraphNode) -> bool:
    """Whether a task's function is a generator: then nothing runs until there is a reader."""
    return bool(_flags(spec) & CO_GENERATOR)


def _flags(spec: GraphNode) -> int:
    """What kind of function a task calls: a few lookups, as this is asked for every task."""
    function = getattr(spec, "func", None)
    while isinstance(function, partial):
        function = function.func
    code = getattr(function, "__code__", None)
    return code.co_flags if isinstance(code, CodeType) else 0

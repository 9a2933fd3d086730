"""What a key of a dict, a counter, a queue and a lock do when one calls after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from tests.linearizability.checker import Model, Operation

#: What is added to a history for those who were killed: what they held may come back at any time after.
PUT_BACK, DIES = "put back", "dies"


def _fits(operation: Operation, result: Any) -> bool:
    return operation.is_open or operation.result == result


# --- the value of a key; None: it isn't there -------------------------------------------------------------


def _register(value: Any, operation: Operation) -> Iterator[Any]:
    name, arguments = operation.name, operation.arguments
    after, result = value, None
    if name == "get":
        result = value
    elif name == "set":
        (after,) = arguments
    elif name == "pop":
        after, result = None, value
    elif name == "setdefault":
        after = result = arguments[0] if value is None else value
    elif name == "compare_and_set":
        result = value is not None and value == arguments[0]
        after = arguments[1] if result else value
    else:
        raise ValueError(operation)
    if _fits(operation, result):
        yield after


# --- a number ---------------------------------------------------------------------------------------------


def _counter(value: int, operation: Operation) -> Iterator[int]:
    after = value + sum(operation.arguments)  # to read it is to add nothing
    if _fits(operation, after):
        yield after


# --- items in line, and those that were taken for somebody who may have been gone ------------------------

_Items = tuple[Any, ...]


def _queue(state: tuple[_Items, tuple[_Items, ...]], operation: Operation) -> Iterator[Any]:
    items, taken = state
    name, arguments = operation.name, operation.arguments
    if name == "put":
        yield items + arguments, taken
    elif name == PUT_BACK:
        for each in taken:
            rest = list(taken)
            rest.remove(each)
            yield each + items, tuple(rest)
    else:
        (most,) = arguments
        found, rest = items[:most], items[most:]
        if not operation.is_open:
            if operation.result == list(found):
                yield rest, taken
        elif found:
            yield rest, tuple(sorted((*taken, found)))


# --- who has it, its number, and whether anybody has seen that number -------------------------------------


def _lock(state: tuple[str | None, int, bool], operation: Operation) -> Iterator[Any]:
    holder, fence, is_seen = state
    caller = operation.caller
    if operation.name == "acquire":
        if holder is None and _fits(operation, True):
            yield caller, fence, False
        elif holder is not None and not operation.is_open and not operation.result:
            yield state
    elif operation.name == "fence":  # of the holder's
        if holder == caller and (operation.result == fence if is_seen else operation.result > fence):
            yield caller, operation.result, True
    elif holder == caller:  # it releases, or dies
        yield None, fence, False


MODELS = {
    "dict": Model(None, _register),
    "counter": Model(0, _counter),
    "queue": Model(((), ()), _queue),
    "lock": Model((None, 0, False), _lock, lambda operation: (operation.name, operation.caller)),
}


def with_deaths(kind: str, history: list[Operation], deaths: Mapping[str, float]) -> list[Operation]:
    """The history, and what may have happened to what the dead had taken.

    Parameters
    ----------
    deaths : dict
        The last moment at which each of them is known to have lived.
    """
    if kind == "queue":
        gets = [operation for operation in history if operation.is_open and operation.name == "get"]
        return history + [replace(operation, name=PUT_BACK, arguments=()) for operation in gets]
    if kind == "lock":
        return history + [Operation(caller, DIES, (), moment) for caller, moment in deaths.items()]
    return history

"""A checker of recorded histories: could one caller at a time have seen all this? After Wing, Gong and Lowe.

An operation takes effect at one moment between its call and its return. The search takes, of those that may
come next, one after the other, and remembers where it has been. An operation whose caller was killed is open:
it may have taken effect at any time after its call, or not at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

State = Any


@dataclass(frozen=True, slots=True)
class Operation:
    """What a caller did, and saw.

    Attributes
    ----------
    caller, name : str
    arguments : tuple
    called, returned : float
        Moments of one clock; infinite for an operation that nobody saw return.
    result
        Means nothing for an open one.
    """

    caller: str
    name: str
    arguments: tuple[Any, ...]
    called: float
    returned: float = math.inf
    result: Any = None

    @property
    def is_open(self) -> bool:
        return self.returned == math.inf


@dataclass(frozen=True, slots=True)
class Model:
    """What a collection does when one calls after the other.

    Attributes
    ----------
    start
        The first state.
    step : callable
        Gives the states that an operation may lead to: none if its result can't be.
    alike : callable
        Of open operations with the same one, only the first is tried: the others would do the same.
    """

    start: State
    step: Callable[[State, Operation], Iterable[State]]
    alike: Callable[[Operation], Hashable] = lambda operation: (operation.name, operation.arguments)


class Undecided(Exception):
    """The search was too long; the history says nothing."""


#: Steps of a search: some seconds, when all of a right history takes milliseconds.
_PATIENCE = 1_000_000


@dataclass(frozen=True, slots=True)
class _Node:
    """Where the search is: which operations have taken effect (as bits), and the state that they left."""

    done: int
    opened: int
    state: State


def complaint(model: Model, history: Iterable[Operation]) -> str:
    """Why no order of a history's operations explains what was seen; empty if one does.

    Raises
    ------
    Undecided
    """
    search = _Search(model, sorted(history, key=lambda operation: operation.called))
    best = _Node(0, 0, model.start)
    stack, seen = [best], set()
    while stack:
        node = stack.pop()
        key = (node.done, node.opened, node.state)
        if key in seen:
            continue
        seen.add(key)
        if len(seen) > _PATIENCE:
            raise Undecided(f"after {_PATIENCE} steps; as far as {search.described(best)}")
        if node.done == search.all:
            return ""
        if node.done.bit_count() > best.done.bit_count():
            best = node
        stack += reversed(list(search.after(node)))
    return search.described(best)


class _Search:
    def __init__(self, model: Model, history: Sequence[Operation]) -> None:
        self._model = model
        self._known = [operation for operation in history if not operation.is_open]
        self._open = [operation for operation in history if operation.is_open]
        self.all = (1 << len(self._known)) - 1

    def after(self, node: _Node) -> Iterator[_Node]:
        """What may come next: first what has been seen, then what may have been."""
        first_return = math.inf
        for number in self._next(node):
            operation = self._known[number]
            first_return = min(first_return, operation.returned)
            for state in self._model.step(node.state, operation):
                yield _Node(node.done | 1 << number, node.opened, state)
        tried = set()
        for number, operation in enumerate(self._open):
            if operation.called > first_return:
                break
            alike = self._model.alike(operation)
            if not node.opened >> number & 1 and alike not in tried:
                tried.add(alike)
                for state in self._model.step(node.state, operation):
                    if state != node.state:  # what changes nothing, nobody has seen
                        yield _Node(node.done, node.opened | 1 << number, state)

    def _next(self, node: _Node) -> Iterator[int]:
        """Those that were called before any of the others has returned."""
        first_return = math.inf
        position = (~node.done & node.done + 1).bit_length() - 1  # of the first that isn't done
        for number in range(position, len(self._known)):
            if self._known[number].called > first_return:
                break
            if not node.done >> number & 1:
                first_return = min(first_return, self._known[number].returned)
                yield number

    def described(self, node: _Node) -> str:
        """As far as it went, and what could not come next."""
        stuck = "\n".join(f"  {self._known[number]}" for number in self._next(node))
        return (
            f"{node.done.bit_count()} of {len(self._known)} operations, and {node.opened.bit_count()} of "
            f"{len(self._open)} open ones, lead to {node.state!r}, where nothing fits of:\n{stuck}"
        )

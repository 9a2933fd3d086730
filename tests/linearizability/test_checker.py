"""The checker accepts what one caller at a time could have seen, and nothing else."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.linearizability.checker import Operation, Undecided, complaint
from tests.linearizability.models import MODELS, with_deaths


def op(
    caller: str, called: float, returned: float, name: str, *arguments: Any, result: Any = None
) -> Operation:
    return Operation(caller, name, arguments, called, returned, result)


RIGHT: dict[str, tuple[str, list[Operation], dict[str, float]]] = {
    "a read beside a write sees either": (
        "dict",
        [
            op("a", 1, 2, "set", "x"),
            op("a", 3, 9, "set", "y"),
            op("b", 4, 5, "get", result="x"),
            op("c", 4, 6, "get", result="y"),
        ],
        {},
    ),
    "a swap happens once": (
        "dict",
        [
            op("a", 1, 2, "set", "x"),
            op("a", 3, 9, "compare_and_set", "x", "y", result=True),
            op("b", 3, 9, "compare_and_set", "x", "z", result=False),
            op("b", 10, 11, "get", result="y"),
        ],
        {},
    ),
    "a write of the dead may come late": (
        "dict",
        [
            op("a", 1, math.inf, "set", "x"),
            op("b", 2, 3, "get"),
            op("b", 4, 5, "get", result="x"),
        ],
        {"a": 1},
    ),
    "a count beside a count": (
        "counter",
        [op("a", 1, 9, "increment", 2, result=3), op("b", 1, 9, "increment", 1, result=1)],
        {},
    ),
    "what the dead have put may be had, or not": (
        "queue",
        [
            op("a", 1, math.inf, "put", "x"),
            op("b", 1, math.inf, "put", "y"),
            op("c", 2, 3, "get", 1, result=["y"]),
            op("c", 4, 5, "get", 1, result=[]),
        ],
        {"a": 1, "b": 1},
    ),
    "what the dead have taken comes back, in front": (
        "queue",
        [
            op("a", 1, 2, "put", "x", "y", "z"),
            op("b", 3, math.inf, "get", 1),
            op("c", 4, 5, "get", 1, result=["y"]),
            op("c", 6, 7, "get", 3, result=["x", "z"]),
        ],
        {"b": 3},
    ),
    "a lock of the dead is free": (
        "lock",
        [
            op("a", 1, 2, "acquire", result=True),
            op("a", 3, 4, "fence", result=7),
            op("b", 3, 8, "acquire", result=True),
            op("b", 9, 10, "fence", result=8),
        ],
        {"a": 4},
    ),
    "who is too late doesn't have it": (
        "lock",
        [
            op("a", 1, 2, "acquire", result=True),
            op("b", 3, 4, "acquire", result=False),
            op("a", 5, 6, "release"),
            op("b", 7, 8, "acquire", result=True),
        ],
        {},
    ),
}

WRONG: dict[str, tuple[str, list[Operation], dict[str, float]]] = {
    "a stale read": (
        "dict",
        [
            op("a", 1, 2, "set", "x"),
            op("a", 3, 4, "set", "y"),
            op("b", 5, 6, "get", result="x"),
        ],
        {},
    ),
    "two reads that go back in time, beside a write": (
        "dict",
        [
            op("a", 1, 2, "set", "x"),
            op("a", 3, 9, "set", "y"),
            op("b", 4, 5, "get", result="y"),
            op("b", 6, 7, "get", result="x"),
        ],
        {},
    ),
    "two swaps of one value": (
        "dict",
        [
            op("a", 1, 2, "set", "x"),
            op("a", 3, 9, "compare_and_set", "x", "y", result=True),
            op("b", 3, 9, "compare_and_set", "x", "z", result=True),
        ],
        {},
    ),
    "a count twice": (
        "counter",
        [op("a", 1, 9, "increment", 1, result=1), op("b", 1, 9, "increment", 1, result=1)],
        {},
    ),
    "a count of the dead that takes effect twice": (
        "counter",
        [op("a", 1, math.inf, "increment", 1), op("b", 2, 3, "value", result=2)],
        {"a": 1},
    ),
    "a lost item": (
        "queue",
        [
            op("a", 1, 2, "put", "x", "y"),
            op("b", 3, 4, "get", 1, result=["y"]),
            op("b", 5, 6, "get", 1, result=[]),
        ],
        {},
    ),
    "a lost item, though somebody died later": (
        "queue",
        [
            op("a", 1, 2, "put", "x"),
            op("b", 3, 4, "get", 1, result=[]),
            op("c", 5, math.inf, "get", 1),
        ],
        {"c": 5},
    ),
    "a doubled item": (
        "queue",
        [
            op("a", 1, 2, "put", "x"),
            op("b", 3, 4, "get", 1, result=["x"]),
            op("c", 3, 4, "get", 1, result=["x"]),
        ],
        {},
    ),
    "an item of one who died, doubled": (
        "queue",
        [
            op("a", 1, 2, "put", "x"),
            op("b", 3, math.inf, "get", 1),
            op("c", 3, 4, "get", 1, result=["x"]),
            op("c", 5, 6, "get", 1, result=["x"]),
        ],
        {"b": 3},
    ),
    "two holders": (
        "lock",
        [
            op("a", 1, 2, "acquire", result=True),
            op("b", 3, 4, "acquire", result=True),
            op("a", 5, 6, "release"),
        ],
        {},
    ),
    "a lock that nobody has, and nobody gets": (
        "lock",
        [
            op("a", 1, 2, "acquire", result=True),
            op("a", 3, 4, "release"),
            op("b", 5, 6, "acquire", result=False),
        ],
        {},
    ),
    "a number that comes again": (
        "lock",
        [
            op("a", 1, 2, "acquire", result=True),
            op("a", 3, 4, "fence", result=7),
            op("a", 5, 6, "release"),
            op("b", 7, 8, "acquire", result=True),
            op("b", 9, 10, "fence", result=7),
        ],
        {},
    ),
}


@pytest.mark.parametrize("history", RIGHT)
def test_it_accepts(history: str) -> None:
    """What can be explained."""
    kind, operations, deaths = RIGHT[history]
    assert complaint(MODELS[kind], with_deaths(kind, operations, deaths)) == ""


@pytest.mark.parametrize("history", WRONG)
def test_it_rejects(history: str) -> None:
    """What can't, and says where it is stuck."""
    kind, operations, deaths = WRONG[history]
    found = complaint(MODELS[kind], with_deaths(kind, operations, deaths))
    assert "nothing fits of" in found and "Operation(caller=" in found


def _overlapping(count: int) -> list[Operation]:
    """Counts of many callers, each at once with some of the others."""
    return [op(f"c{n % 8}", n, n + 7.5, "increment", 1, result=n + 1) for n in range(count)]


def test_it_is_quick_with_what_is_right() -> None:
    """A thousand operations of eight callers, and fifty that died, take no long search."""
    died = [op(f"d{n}", n, math.inf, "increment", 1) for n in range(50)]
    assert complaint(MODELS["counter"], _overlapping(1000) + died) == ""


def test_it_gives_up_with_what_it_cannot_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error, not a verdict."""
    monkeypatch.setattr("tests.linearizability.checker._PATIENCE", 5)
    with pytest.raises(Undecided, match="as far as"):
        complaint(MODELS["counter"], _overlapping(20))

"""The same events make the same home and the same answers: what a copy of a home lives by."""

from __future__ import annotations

import pickle
from collections import deque
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyward_dask.shared.events import Call, Caller, Close, Event, Forget, Took, Withdraw
from skyward_dask.shared.home import Home
from skyward_dask.shared.kinds import KINDS
from skyward_dask.shared.state import operations
from tests.shared.played import Played

_KEYS = st.sampled_from(["a", "b"])
_SMALL = st.integers(0, 3)
_VALUES = st.sampled_from([b"x", b"y"])
_MANY = st.lists(_VALUES, max_size=3)
#: What each operation of each kind is asked with.
ARGUMENTS: dict[str, dict[str, tuple[st.SearchStrategy[Any], ...]]] = {
    "barrier": dict.fromkeys(("wait", "n_waiting", "parties", "broken", "abort", "reset"), ()),
    "counter": {
        "value": (),
        "increment": (_SMALL,),
        "reset": (_SMALL,),
        "compare_and_set": (_SMALL, _SMALL),
    },
    "dict": {
        **dict.fromkeys(("get", "look", "pop", "contains", "claim"), (_KEYS,)),
        **dict.fromkeys(("pop_last", "size", "clear"), ()),
        **dict.fromkeys(("put", "setdefault"), (_KEYS, _VALUES)),
        "put_many": (st.lists(st.tuples(_KEYS, _VALUES), max_size=2),),
        "replace": (_KEYS, _SMALL, _VALUES),
        "page": (_SMALL, st.booleans()),
        "abandon": (_KEYS, _SMALL),
    },
    "lock": dict.fromkeys(("acquire", "acquire_nowait", "release", "holder", "fence"), ()),
    "queue": {
        **dict.fromkeys(("put", "put_nowait", "put_back"), (_MANY,)),
        **dict.fromkeys(("get", "get_nowait"), (st.integers(1, 3),)),
        **dict.fromkeys(("qsize", "full"), ()),
    },
    "set": {
        **dict.fromkeys(("add", "discard", "contains"), (_KEYS,)),
        **dict.fromkeys(("pop", "size", "clear"), ()),
        "add_many": (st.lists(_KEYS, max_size=2),),
        "page": (_SMALL,),
    },
}
OPTIONS: dict[str, dict[str, Any]] = {"barrier": {"parties": 2}, "queue": {"maxsize": 2}}


@st.composite
def histories(draw: st.DrawFn, kind: str) -> list[Event]:
    """Calls of a few runs of two parties, and all that may happen to these."""
    events: list[Event] = []
    for moment in range(draw(st.integers(1, 25))):
        what = draw(st.sampled_from([Call, Call, Call, Took, Withdraw, Forget, Close]))
        party, run = draw(st.sampled_from(["p", "q"])), draw(st.sampled_from(["", "r", "s"]))
        earlier = ("session", draw(st.integers(0, moment)))
        if what is Call:
            operation = draw(st.sampled_from(sorted(ARGUMENTS[kind])))
            arguments = tuple(draw(each) for each in ARGUMENTS[kind][operation])
            events.append(Call(("session", moment), Caller(party, run), operation, arguments, at=moment))
        elif what is Took:
            events.append(Took(earlier, at=moment))
        elif what is Withdraw:
            events.append(Withdraw(earlier, draw(st.booleans()), at=moment))
        elif what is Forget:
            events.append(Forget(party, draw(st.sampled_from([None, run])), at=moment))
        elif moment > 20:
            events.append(Close("ended", at=moment))
    return events


def plain(value: Any) -> Any:
    """All that an object is made of, in an order, so that two can be compared."""
    if isinstance(value, dict):
        return [(plain(key), plain(each)) for key, each in value.items()]
    if isinstance(value, list | tuple | deque):
        return [plain(each) for each in value]
    if isinstance(value, Exception):
        return type(value), plain(value.args), plain(vars(value))
    if is_dataclass(value):
        return type(value), [plain(getattr(value, each.name)) for each in fields(value)]
    if hasattr(value, "__dict__") and not isinstance(value, type):
        return type(value), plain(vars(value))
    assert isinstance(value, str | bytes | int | float | None), f"{value!r} is no plain data"
    return value


def test_every_operation_is_tried() -> None:
    """Of every kind."""
    assert {kind: set(known) for kind, known in ARGUMENTS.items()} == {
        name: set(operations(kind.state)) for name, kind in KINDS.items()
    }


@pytest.mark.parametrize("kind", sorted(KINDS))
@given(data=st.data())
def test_a_history_replayed_is_the_same_home(kind: str, data: st.DataObject) -> None:
    """By a fresh home, and by a copy that was pickled on the way; each call is answered once."""
    played, events = Played(kind, OPTIONS.get(kind, {})), data.draw(histories(kind))
    other, copied = Home(kind, OPTIONS.get(kind, {})), data.draw(st.integers(0, len(events)))
    for number, event in enumerate(events):
        if number == copied:
            other = pickle.loads(pickle.dumps(other))
        played.apply(event)
        applied = other.apply(pickle.loads(pickle.dumps(event)))
        assert plain(applied) == plain(played.history[-1][1])
        assert plain(other) == plain(played.home)


@pytest.mark.parametrize(
    ("kind", "begun"),
    [
        ("lock", [("acquire", ()), ("acquire", ())]),
        ("dict", [("claim", ("a",)), ("claim", ("a",))]),
        ("queue", [("get", (1,)), ("put", ([b"x"],)), ("get", (1,))]),
    ],
)
def test_an_ended_home_gives_nothing_to_who_has_waited(kind: str, begun: list[tuple[str, Any]]) -> None:
    """What is given back after the end would have gone to the next, who has been told of the end."""
    played = Played(kind, {})
    for number, (operation, arguments) in enumerate(begun):
        caller = Caller("p", str(number))
        played.apply(Call(("session", number), caller, operation, arguments, at=number))
    assert len(played.home.waiting()) == 1
    played.apply(Close("ended", at=8))
    for event in (Withdraw(("session", 0), at=9), Forget("p", "0", at=10), Forget("p", at=11)):
        played.apply(event)

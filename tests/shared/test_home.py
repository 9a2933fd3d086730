"""Homes alone: no processes, no cluster."""

from __future__ import annotations

import pickle
import queue
import threading
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from functools import reduce
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyward_dask.errors import CollectionConflict, CollectionLost
from skyward_dask.extension.collections.homes import Homes
from skyward_dask.shared.events import (
    Answer,
    Call,
    Caller,
    Close,
    Forget,
    Forgotten,
    Took,
    Withdraw,
    Withdrawn,
)
from skyward_dask.shared.home import Home
from skyward_dask.shared.keys import pack, pack_key, place, unpack_key
from skyward_dask.shared.kinds import KINDS
from skyward_dask.shared.pages import Pages
from skyward_dask.shared.state import operations
from tests.shared.played import Played


class Party:
    """A caller, and the answers that it got."""

    def __init__(self, home: Played, run: str, party: str = "tcp://a") -> None:
        self.home = home
        self.caller = Caller(party, run)
        self.count = 0

    @property
    def answers(self) -> dict[int, Answer]:
        run = self.caller.run
        return {number: answer for (who, number), answer in self.home.answers.items() if who == run}

    def ask(self, operation: str, *arguments: Any) -> int:
        self.count += 1
        self.home.apply(Call((self.caller.run, self.count), self.caller, operation, arguments))
        return self.count

    def value(self, operation: str, *arguments: Any) -> Any:
        number = self.ask(operation, *arguments)
        went_well, value = self.answers[number]
        if not went_well:
            raise value
        return value

    def withdraw(self, number: int, expired: bool = False) -> None:
        self.home.apply(Withdraw((self.caller.run, number), expired))


def test_a_table_lists_what_can_be_asked() -> None:
    """And nothing else can."""
    assert set(operations(KINDS["lock"].state)) == {"acquire", "acquire_nowait", "release", "holder", "fence"}
    for operation in ("forget", "withdraw", "undo", "took", "_give", "__len__", "nothing"):
        with pytest.raises(CollectionConflict):
            Party(Played("lock", {}), "x").value(operation)


def test_each_call_is_answered_once() -> None:
    """By what it waited for, by its withdrawal, by its caller's end, or by the home's."""
    home = Played("queue", {"maxsize": None})
    a, b = Party(home, "a"), Party(home, "b")
    first, second, third = a.ask("get", 1), a.ask("get", 1), b.ask("get", 1)
    assert home.statistics()["waiting"] == 3
    a.withdraw(first)
    b.ask("put", [b"x"])
    assert a.answers[second] == (True, [b"x"])
    a.withdraw(second, expired=True)  # too late: nothing happens
    home.apply(Forget("tcp://a", "b"))
    assert isinstance(a.answers[first][1], Withdrawn) and isinstance(b.answers[third][1], CancelledError)
    last = a.ask("get", 1)
    home.apply(Close("ended"))
    assert isinstance(a.answers[last][1], CollectionLost)
    with pytest.raises(CollectionLost):
        a.value("qsize")
    assert home.statistics()["waiting"] == 0


def test_putters_wait_in_line() -> None:
    """Who waits for room is let in first."""
    home = Played("queue", {"maxsize": 2})
    a, b, c = Party(home, "a"), Party(home, "b"), Party(home, "c")
    waiting = a.ask("put", [b"1", b"2", b"3"])
    with pytest.raises(queue.Full):
        b.value("put_nowait", [b"4"])
    behind = b.ask("put", [b"4"])
    assert c.value("get", 2) == [b"1", b"2"]
    assert waiting in a.answers and behind in b.answers
    assert c.value("get_nowait", 5) == [b"3", b"4"]


def test_what_is_put_back_is_first() -> None:
    """Even if the queue is full."""
    home = Played("queue", {"maxsize": 1})
    a = Party(home, "a")
    a.ask("put", [b"2"])
    a.ask("put_back", [b"0", b"1"])
    assert a.value("get", 5) == [b"0", b"1", b"2"]


def test_what_was_not_taken_is_taken_back() -> None:
    """When its party is gone, in order; what was taken is not."""
    home = Played("queue", {})
    here, there = Party(home, "here", "tcp://here"), Party(home, "there", "tcp://there")
    here.ask("put", [b"a", b"b", b"c", b"d", b"e"])
    first, *_ = (there.ask("get", 1) for _ in range(3))
    here.ask("get_nowait", 1)
    home.apply(Took(("there", first)))
    home.apply(Forget("tcp://there"))
    home.apply(Forget("tcp://there"))
    assert here.value("get", 9) == [b"b", b"c", b"e"]


def test_an_ended_run_may_still_have_its_answer() -> None:
    """Its worker lives, and says whether it came; until then nobody else is given the item."""
    home = Played("queue", {})
    a, b = Party(home, "a"), Party(home, "b")
    b.ask("put", [b"0", b"1"])
    came, lost = a.ask("get", 1), a.ask("get", 1)
    home.apply(Forget("tcp://a", "a"))
    with pytest.raises(queue.Empty):
        b.value("get_nowait", 1)
    home.apply(Took(("a", came)))
    a.withdraw(lost)
    assert b.value("get_nowait", 9) == [b"1"]


@pytest.mark.parametrize(
    ("kind", "operation", "arguments", "next_answer"),
    [
        ("queue", "get", [1], [b"a"]),
        ("queue", "get_nowait", [1], [b"a"]),
        ("lock", "acquire", [], 2),
        ("lock", "acquire_nowait", [], 2),
        ("dict", "claim", ["k"], (2, None)),
    ],
)
def test_what_is_given_up_is_taken_back_at_once(
    kind: str, operation: str, arguments: list[Any], next_answer: object
) -> None:
    """So that the same caller's next call finds an item where it was, a lock free, a value unclaimed."""
    home = Played(kind, {})
    a = Party(home, "a")
    if kind == "queue":
        a.ask("put", [b"a", b"b"])
    given = a.ask(operation, *arguments)
    a.withdraw(given)
    again = a.ask(operation, *arguments)
    assert a.answers[again] == (True, next_answer)
    a.withdraw(given)  # what went back once is not given back again
    a.withdraw(again, expired=True)  # and who takes an answer has it
    third = a.ask(operation, *arguments)
    assert a.answers.get(third) != (True, next_answer)


def test_who_comes_again_asks_anew() -> None:
    """A client may have lost its connection only: what it waited for had no effect, if the answer says so."""
    home = Played("queue", {"maxsize": 2})
    a, b = Party(home, "a"), Party(home, "b", "tcp://b")
    getting = a.ask("get", 1)
    home.apply(Forget("tcp://a"))
    assert isinstance(a.answers[getting][1], Forgotten)
    b.ask("put", [b"1"])
    whole, part = a.ask("put", [b"2", b"3"]), b.ask("put", [b"4"])
    home.apply(Forget("tcp://a"))
    assert isinstance(a.answers[whole][1], CancelledError), "one of two is in the queue"
    home.apply(Forget("tcp://b"))
    assert isinstance(b.answers[part][1], Forgotten)
    assert b.value("get", 9) == [b"1", b"2"]


def test_a_claim_passes_on() -> None:
    """To the next one that waits, when its owner gives up or is gone."""
    home = Played("dict", {})
    a, b, c = Party(home, "a"), Party(home, "b"), Party(home, "c")
    number, _ = a.value("claim", "k")
    second, third = b.ask("claim", "k"), c.ask("claim", "k")
    a.ask("abandon", "k", number)
    again, _ = b.answers[second][1]
    assert again > number and third not in c.answers
    home.apply(Forget("tcp://a", "b"))
    assert c.answers[third][1][0] > again
    c.ask("setdefault", "k", b"value")
    assert a.value("claim", "k") == (0, b"value")


def test_a_late_stop_breaks_nobodys_barrier() -> None:
    """One that is gone leaves; one whose time is over breaks it."""
    home = Played("barrier", {"parties": 2})
    a, b = Party(home, "a"), Party(home, "b")
    gone = a.ask("wait")
    a.withdraw(gone)
    assert a.value("n_waiting") == 0 and not a.value("broken")
    other = b.ask("wait")
    late = a.ask("wait")
    a.withdraw(late, expired=True)  # it has passed already
    assert b.answers[other] == (True, 0) and not a.value("broken")
    late = a.ask("wait")
    a.withdraw(late, expired=True)
    assert a.value("broken")


@given(st.lists(st.tuples(st.sampled_from(["acquire", "release", "withdraw", "gone"]), st.integers(0, 3))))
def test_a_lock_has_one_holder(steps: list[tuple[str, int]]) -> None:
    """Whatever happens, in whatever order; its numbers grow."""
    home = Played("lock", {})
    parties = [Party(home, str(number)) for number in range(4)]
    asked: dict[int, int] = {}
    fences = []
    for what, who in steps:
        party = parties[who]
        if what == "acquire" and who not in asked:
            asked[who] = party.ask("acquire")
        elif what == "release" and who in asked and asked[who] in party.answers:
            party.ask("release")
            del asked[who]
        elif what == "withdraw" and who in asked and asked[who] not in party.answers:
            party.withdraw(asked.pop(who))
        elif what == "gone":
            asked.pop(who, None)
            home.apply(Forget("tcp://a", str(who)))
        holders = [w for w, number in asked.items() if parties[w].answers.get(number, (False,))[0]]
        assert len(holders) <= 1 and bool(asked) == bool(holders)
        if holders:
            fences.append(parties[holders[0]].answers[asked[holders[0]]][1])
    assert fences == sorted(fences)


@given(st.lists(st.tuples(st.sampled_from(["put", "pop", "page"]), st.integers(0, 20))))
def test_pages_are_a_dict(steps: list[tuple[str, int]]) -> None:
    """In the order of insertion."""
    pages, model = Pages[int](), dict[int, int]()
    for what, key in steps:
        if what == "put":
            assert pages.put(key, key) == (key not in model)
            model[key] = key
        elif what == "pop":
            assert pages.pop(key) == model.pop(key, None)
        else:
            assert [k for _, k, _ in pages.after(0)] == list(model)


KEYS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3),
    max_leaves=5,
)


@given(KEYS, KEYS)
def test_equal_keys_are_one(a: Any, b: Any) -> None:
    """In a home and among shards; others come back as they were."""
    if a == b:
        assert pack_key(a) == pack_key(b) and place(a) == place(b)
    assert unpack_key(pickle.loads(pickle.dumps(pack_key(a)))) == a


class Shade(IntEnum):
    """Equal to a number."""

    DARK = 1


class Pair(NamedTuple):
    """Equal to a tuple."""

    a: object
    b: object


@dataclass(frozen=True)
class Tagged:
    """Compared by one of its fields."""

    tags: object
    note: str = field(default="", compare=False)


class Text(str):
    """Equal to a text."""


NOON = datetime(2020, 1, 1, 12)
#: In rows of equals; what is in two rows isn't equal.
EQUALS: list[list[Any]] = [
    [1, True, 1.0, Decimal(1), Fraction(1), Shade.DARK, np.int64(1), np.bool_(True), 1 + 0j],
    [0.5, Decimal("0.50"), Fraction(1, 2), np.float32(0.5)],
    [Decimal("0.1"), Decimal("0.10"), Fraction(1, 10)],
    [float("inf"), Decimal("inf"), np.float64("inf")],
    ["1", Text("1"), np.str_("1")],
    [(1, "b"), Pair(Shade.DARK, Text("b")), Pair(True, "b")],
    [Tagged(frozenset("abc")), Tagged(frozenset("cab"), note="n")],
    [(NOON, frozenset([NOON, "a"])), Pair(NOON, frozenset(["a", NOON]))],
    [NOON.replace(tzinfo=UTC), NOON.replace(hour=14, tzinfo=timezone(timedelta(hours=2)))],
    [NOON, NOON.replace(fold=1)],
    [range(0, 4, 2), range(0, 3, 2)],
    [Tagged],
    [Tagged(1)],
    [Tagged(Text("1")), Tagged("1")],
    [len],
    [UUID(int=1)],
]


def test_keys_are_equal_where_python_says_so() -> None:
    """Whatever their types; and they come back as what they were."""
    keys = [(row, key) for row, equals in enumerate(EQUALS) for key in equals]
    packed = [(row, pack_key(key)) for row, key in keys]
    for row, key in packed:
        for other_row, other in packed:
            assert (key == other) is (row == other_row)
            assert row != other_row or (hash(key) == hash(other) and place(key) == place(other))
    for (_, key), (_, found) in zip(keys, packed, strict=True):
        assert unpack_key(found) == key and type(unpack_key(found)) is type(key)


class ByIdentity:
    """Equal to itself only."""


@pytest.mark.parametrize(
    ("key", "says"),
    [
        (ByIdentity(), "no __eq__"),
        (object(), "no __eq__"),
        ((1, frozenset([ByIdentity()])), "no __eq__"),
        (lambda: 1, "function"),
        (float("nan"), "never be found"),
        ((1, Decimal("nan")), "never be found"),
        ([], "unhashable"),
        (reduce(lambda inner, _: (inner,), range(2000), ()), "deeply"),
    ],
)
def test_what_would_not_be_equal_elsewhere_is_no_key(key: object, says: str) -> None:
    """The error says what to take instead, and is a TypeError, as for what can't be hashed."""
    with pytest.raises(TypeError, match=says):
        pack_key(key)


def test_places_do_not_depend_on_the_process() -> None:
    """As hashes of text do."""
    assert [place(key) for key in ("a", b"a", 1, 2.5, None, ("a", 1))] == [
        3904355907,
        3904355907,
        place(1.0),
        place(2.5),
        0,
        place(("a", True)),
    ]


def test_many_threads_at_one_home() -> None:
    """Nothing is lost, and each hears of its own."""
    homes, values = Homes(), list[Answer]()
    homes.add("home", Home("counter", {}))

    def work(run: str) -> None:
        for number in range(500):
            call = Call((run, number), Caller("tcp://a", run), "increment", (1,))
            assert homes.apply("home", call, values.append)

    threads = [threading.Thread(target=work, args=(str(number),)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(values) == [(True, value) for value in range(1, 4001)]


def test_memory_is_that_of_what_is_there() -> None:
    """Nothing is left of what was replaced, taken, put back or removed, nor of an answer that has come."""
    d, q, s = Played("dict", {}), Played("queue", {"maxsize": 3}), Played("set", {})
    a, b, c = Party(d, "a"), Party(q, "b"), Party(s, "c")
    for key in ("x", "y", "x"):
        a.ask("put", key, b"v" * 1000)
    assert 2000 < d.home.nbytes < 4000
    a.ask("pop", "x")
    a.ask("pop_last")
    b.ask("put", [b"v" * 1000] * 4)
    b.ask("get", 1)
    b.ask("put_back", [b"v" * 1000])
    assert 4000 < q.home.nbytes < 7000
    b.ask("get", 9)
    c.ask("add_many", ["x", "y"])
    c.ask("discard", "x")
    c.ask("clear")
    for party in (a, b, c):
        for number in range(1, party.count + 1):
            party.home.apply(Took((party.caller.run, number)))
        assert party.home.home.nbytes == 0


def test_packing_is_by_value_where_it_must() -> None:
    """What lives in `__main__` can't be imported elsewhere."""
    assert pickle.loads(pack(lambda: 5))() == 5

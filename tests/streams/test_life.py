"""The decisions of streams, without a cluster: credit, a reader's inbox, and a stream's life."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyward_dask.extension.streams.references import Neighbour, References, has_references
from skyward_dask.slots.memory.segments import Segments, is_supported
from skyward_dask.streams.credit import Credit, Window
from skyward_dask.streams.inbox import Inbox
from skyward_dask.streams.life import (
    Allow,
    Attach,
    Close,
    End,
    Event,
    Granted,
    Leave,
    Life,
    Produced,
    Start,
    State,
    Stop,
    Tell,
)
from skyward_dask.streams.messages import (
    Broken,
    Grant,
    Items,
    Message,
    Packed,
    Raised,
    Reference,
    Returned,
    Shared,
    Taken,
)

WINDOW = Window(4, 100)


@given(
    sizes=st.lists(st.integers(1, 250), max_size=60),
    window=st.builds(Window, st.integers(1, 9), st.integers(1, 200)),
    choices=st.randoms(use_true_random=False),
)
def test_a_window_is_never_exceeded_and_never_blocks(
    sizes: list[int], window: Window, choices: object
) -> None:
    """Producer and reader, in any order: an item that is larger than the window is alone on its way."""
    credit = Credit(window.nbytes, window.items, window.nbytes)
    inbox = Inbox(window)
    left, arrived, taken = list(sizes), [], []
    held: int | None = None
    while len(taken) < len(sizes):
        may_take = bool(len(inbox))
        may_compute = held is None and bool(left) and credit.may_produce
        may_send = held is not None and credit.fits(held)
        assert may_take or may_compute or may_send, "nobody can go on"
        grant = None
        if may_take and (not (may_compute or may_send) or choices.random() < 0.5):  # type: ignore[attr-defined]
            item, grant = inbox.take()
            taken.append(len(item[0]))
        elif may_compute:
            held = left.pop(0)
            if not credit.fits(held):
                grant = inbox.hold()
        else:
            assert held is not None
            credit.send(held)
            inbox.put(Items([[bytes(held)]]))
            arrived.append(held)
            held = None
            under_way = arrived[len(taken) :]
            assert len(under_way) <= window.items
            assert sum(under_way) <= window.nbytes or len(under_way) == 1
        if grant is not None:
            credit.grant(grant.items, grant.nbytes)
    assert taken == sizes


def test_grants_come_in_halves() -> None:
    """A message for each item would cost more than the item."""
    inbox = Inbox(Window(8, 1000))
    inbox.put(Items([[b"x"]] * 8))
    grants = [inbox.take()[1] for _ in range(8)]
    assert grants == [None, None, None, Grant(4, 4), None, None, None, Grant(4, 4)]


def test_a_huge_demand_is_just_a_number() -> None:
    """Credits add up, however large."""
    credit = Credit(2**62, 2**62, 2**62)
    credit.grant(2**62, 2**62)
    assert credit.may_produce and credit.fits(2**62)


def test_what_the_host_may_use_again_is_dropped() -> None:
    """When the connection has ended: the first item that is a reference, and all after it."""
    inbox = Inbox(WINDOW)
    inbox.put(Items([[b"1"], [b"2", Reference(0, 0, 9)], [b"3"]]))
    inbox.drop(has_references)
    assert inbox.take() == ([b"1"], None)
    assert len(inbox) == 0


def shared_item(pages: Segments, value: bytes) -> list[bytes | memoryview]:
    taken = pages.copy(memoryview(value * 4096))
    return [b"", taken.view(taken.start, 4096)]


@pytest.mark.skipif(not is_supported(), reason="shared memory needs Linux")
def test_references_are_kept_until_they_are_granted() -> None:
    """Bytes are sent until the reader has opened the memory; then references, in use until granted."""
    pages, told = Segments(share_from=4096), list[Message]()
    references, neighbour = References(told.append), Neighbour()
    references.tell(Items([shared_item(pages, b"a")]))
    shared, first = told
    assert isinstance(shared, Shared) and isinstance(first, Items)
    assert not has_references(first.items[0])
    opened = neighbour.open(shared)
    assert opened is not None
    references.hear(opened)
    references.tell(Packed(2, b""))
    references.tell(Items([shared_item(pages, b"b"), [b"small"]]))
    sent = told[-1]
    assert isinstance(sent, Items) and list(map(has_references, sent.items)) == [True, False]
    del first, told[:]
    references.hear(Grant(3, 0))  # all but the last two
    others = [shared_item(pages, b"c") for _ in range(10)]  # they don't take the place of what isn't granted
    assert neighbour.copied(sent.items[0])[1] == b"b" * 4096
    references.hear(Grant(1, 4096))
    others += [shared_item(pages, b"c") for _ in range(10)]
    assert neighbour.copied(sent.items[0])[1] == b"c" * 4096
    neighbour.close()
    del others
    pages.close()


class Reader:
    """Stands for a connection."""


ONE, OTHER = Reader(), Reader()
OVER = Returned([b""])


def read_by_one() -> Life:
    life = Life()
    assert life.apply(Attach(ONE, WINDOW)) == (Start(WINDOW),)
    return life


def closing() -> Life:
    life = read_by_one()
    assert life.apply(Leave(ONE)) == (Stop(),)
    return life


@pytest.mark.parametrize(
    ("made", "event", "state", "commands"),
    [
        (Life, Close("x"), State.CLOSING, (Stop(),)),
        (Life, Leave(ONE), State.OPEN, ()),
        (read_by_one, Attach(OTHER, WINDOW), State.READ, (Tell(OTHER, Taken()),)),
        (read_by_one, Leave(OTHER), State.READ, ()),
        (read_by_one, Granted(ONE, Grant(1, 1)), State.READ, (Allow(Grant(1, 1)),)),
        (read_by_one, Granted(OTHER, Grant(1, 1)), State.READ, ()),
        (read_by_one, Produced(Items([[b"x"]])), State.READ, (Tell(ONE, Items([[b"x"]])),)),
        (read_by_one, End(OVER), State.OVER, (Tell(ONE, OVER),)),
        (read_by_one, Close("x"), State.CLOSING, (Tell(ONE, Broken("x")), Stop())),
        (closing, Produced(Items([[b"x"]])), State.CLOSING, ()),
        (closing, Granted(ONE, Grant(1, 1)), State.CLOSING, ()),
        (closing, End(OVER), State.OVER, ()),
        (closing, Close("x"), State.CLOSING, ()),
        (closing, Attach(OTHER, WINDOW), State.CLOSING, (Tell(OTHER, Taken()),)),
    ],
)
def test_what_follows(
    made: Callable[[], Life], event: Event, state: State, commands: tuple[object, ...]
) -> None:
    """The table of a stream's life."""
    life = made()
    assert life.apply(event) == commands
    assert life.state is state


def test_who_comes_too_late_learns_why() -> None:
    """A stream that ended before it had a reader tells its first reader how."""
    life = Life()
    life.apply(End(Raised([b"its process died"])))
    assert life.apply(Attach(ONE, WINDOW)) == (Tell(ONE, Raised([b"its process died"])),)
    assert life.apply(Attach(OTHER, WINDOW)) == (Tell(OTHER, Taken()),)
    closed = Life()
    closed.apply(Close("nobody wants it"))
    assert closed.apply(Attach(ONE, WINDOW)) == (Tell(ONE, Broken("nobody wants it")),)


_EVENTS = st.one_of(
    st.sampled_from(
        [Attach(ONE, WINDOW), Attach(OTHER, WINDOW), Leave(ONE), Leave(OTHER), Close("x"), End(OVER)]
    ),
    st.builds(Produced, st.just(Items([[b"x"]]))),
    st.sampled_from([Granted(ONE, Grant(1, 1)), Granted(OTHER, Grant(1, 1))]),
)


@given(st.lists(_EVENTS, max_size=30))
def test_one_reader_one_end_and_nothing_after_it(events: list[Event]) -> None:
    """Whatever happens in whatever order: one reader gets items, then at most one end."""
    life, commands = Life(), list[object]()
    for event in events:
        commands += life.apply(event)
    tells = [command for command in commands if isinstance(command, Tell)]
    told = [[tell.message for tell in tells if tell.reader is reader] for reader in (ONE, OTHER)]
    assert sum(any(isinstance(m, Items) for m in messages) for messages in told) <= 1
    for messages in told:
        ends = [n for n, m in enumerate(messages) if isinstance(m, Returned | Raised | Broken)]
        items = [n for n, m in enumerate(messages) if isinstance(m, Items)]
        assert len(ends) <= 1
        assert not ends or all(n < ends[0] for n in items)
    assert sum(isinstance(c, Start) for c in commands) <= 1
    assert sum(isinstance(c, Stop) for c in commands) <= 1

"""Two copies of a home: what anybody was told is in both, each call takes effect once, whoever is lost."""

from __future__ import annotations

import pickle
import random
from collections import defaultdict, deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyward_dask.shared import copying, lane
from skyward_dask.shared.copying import Begin
from skyward_dask.shared.events import Answer, Call, Caller, CallId, Deposed, Took
from skyward_dask.shared.home import Home
from skyward_dask.shared.host import Host, Role
from skyward_dask.shared.kinds import KINDS
from skyward_dask.shared.standby import Standby
from tests.shared.test_replay import OPTIONS, histories, plain

#: Whether the call was answered, and what it was told.
Told = tuple[CallId, Answer]


class Pair:
    """A host and its standbys, by the epochs in which they were chosen, and what is under way between them.

    Parameters
    ----------
    standby : Standby, optional
        One that has all of the home.

    Attributes
    ----------
    epoch : int
        Of the last standby that was chosen.
    in_step : int
        The epoch of the one that takes over if the host is lost; 0 if there is none.
    """

    def __init__(self, home: Home, epoch: int = 1, standby: Standby | None = None) -> None:
        self.epoch, self.in_step = epoch, 0 if standby is None else standby.epoch
        self.host: Host[Told] = Host(home, epoch, "standby" if standby else "", self.in_step)
        self.standbys = {} if standby is None else {standby.epoch: standby}
        self.wires: defaultdict[int, deque[bytes]] = defaultdict(deque)
        self.back: deque[tuple[int, bool]] = deque()

    def fill(self, kept: int = 0) -> None:
        """The directory has chosen a standby, to replace the one of the epoch `kept`."""
        self.epoch, self.in_step = self.epoch + 1, kept
        assert self.host.fill(self.epoch, "standby", kept)
        for epoch in self.wires.keys() - {kept}:
            del self.wires[epoch]
        self.back = deque(each for each in self.back if each[0] == kept)

    def send(self) -> None:
        while (found := self.host.next()) is not None:
            self.wires[found[1].epoch].append(pickle.dumps(found[1]))

    @property
    def under_way(self) -> list[int]:
        """The epochs of the standbys to which something is under way."""
        return [epoch for epoch, wire in self.wires.items() if wire]

    def arrive(self, epoch: int) -> None:
        """A standby takes a message."""
        message = pickle.loads(self.wires[epoch].popleft())
        if isinstance(message, Begin):
            self.standbys[epoch] = Standby.begin(message)
            self.back.append((epoch, True))
        else:
            self.back.append((epoch, self.standbys[epoch].take(message)))

    def confirm(self) -> None:
        """The host hears of it."""
        epoch, was_taken = self.back.popleft()
        assert was_taken
        if self.host.confirmed(epoch) and epoch == self.epoch:
            self.in_step = epoch
            self.host.granted(epoch)

    def settle(self) -> None:
        """All that is under way arrives."""
        while self.under_way or self.back or self.send() or self.under_way:
            self.arrive(self.under_way[0]) if self.under_way else self.confirm()


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that there are many."""
    monkeypatch.setattr(copying, "PIECE", 50)
    monkeypatch.setattr(lane, "PIECE", 300)


@pytest.mark.parametrize("kind", sorted(KINDS))
@given(data=st.data())
def test_copies_are_equal(kind: str, data: st.DataObject) -> None:
    """Wherever in a history the standby comes, and however late its messages are."""
    pair, events = Pair(Home(kind, OPTIONS.get(kind, {}))), data.draw(histories(kind))
    filled, chance = data.draw(st.integers(0, len(events))), data.draw(st.randoms(use_true_random=False))
    for number, event in enumerate(events):
        if number == filled:
            pair.fill()
        if not (isinstance(event, Call) and pair.host.home.reads(event.operation)):
            pair.host.apply(event)
        pair.send()
        while (under_way := pair.under_way) or pair.back:
            if chance.random() < 0.4:
                break
            if (under_way and chance.random() < 0.5) or not pair.back:
                pair.arrive(under_way[0])
            else:
                pair.confirm()
    if filled == len(events):
        pair.fill()
    pair.settle()
    assert pair.host.role is Role.IN_STEP and not pair.host.holds() and pair.in_step == pair.epoch
    copied = pair.standbys[pair.epoch].promote(pair.epoch + 1)
    assert copied is not None and copied.nbytes == pair.host.home.nbytes
    assert plain(without_lists(copied)) == plain(without_lists(pair.host.home))


def without_lists(home: Any) -> Any:
    """A home without what is made of its entries for reading them in pages."""
    for name in ("_values", "_members"):
        if hasattr(home._state, name):
            getattr(home._state, name)._listed = None
    return home


class Counting:
    """Callers of a counter, who send again what has no answer; a host and a standby that are lost at random.

    Attributes
    ----------
    seen : int
        The greatest value that anybody was told.
    """

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.pair = Pair(Home("counter", {}))
        self.pair.fill()
        self.open: dict[CallId, Call] = {}
        self.numbers = dict.fromkeys("abc", 0)
        self.attempts = dict.fromkeys("abc", 0)
        self.done: dict[str, list[int]] = {name: [] for name in "abc"}
        self.returned: list[int] = []
        self.old: list[Call] = []
        self.last: dict[CallId, Call] = {}
        self.seen = 0
        self.failovers = self.swaps = 0

    def run(self) -> None:
        for _ in range(400):
            self.chance.choices(
                (self.ask, self.read, self.move, self.come_late)
                + (self.lose_host, self.lose_standby, self.replace_standby, self.change_places),
                (5, 3, 20, 1, 0.5, 0.5, 0.5, 2),
            )[0]()
        self.pair.settle()
        self.tell(self.pair.host.released())
        assert not self.open
        assert sorted(self.returned) == list(range(1, sum(self.numbers.values()) + 1))

    def ask(self) -> None:
        session = self.chance.choice("abc")
        self.numbers[session] += 1
        done, self.done[session] = tuple(self.done[session]), []
        call = Call((session, self.numbers[session]), Caller(session), "increment", (1,), done=done)
        self.open[call.id] = call
        self.send_anew(call)

    def send_anew(self, call: Call) -> None:
        self.last[call.id] = call = call._replace(attempt=self.attempts[call.id[0]])
        self.old.append(call)
        self.send(call)

    def send(self, call: Call) -> None:
        answers = self.pair.host.apply(call).answers
        for told in answers.items():
            self.pair.host.hold(told)
        self.tell(self.pair.host.released())

    def tell(self, answers: list[Told]) -> None:
        for call_id, (went_well, value) in answers:
            assert went_well
            if self.open.pop(call_id, None) is not None:
                self.returned.append(value)
                self.seen = max(self.seen, value)
                self.done[call_id[0]].append(call_id[1])

    def read(self) -> None:
        value = self.pair.host.home.read(Call(("r", 0), Caller("r"), "value"))[1]
        if not self.pair.host.holds():
            assert value >= self.seen
            self.seen = value

    def move(self) -> None:
        self.pair.send()
        if (under_way := self.pair.under_way) and self.chance.random() < 0.5:
            self.pair.arrive(self.chance.choice(under_way))
        elif self.pair.back:
            self.pair.confirm()
            self.tell(self.pair.host.released())

    def lose_host(self) -> None:
        """Its standby takes over, if it is in step; otherwise the collection would be lost."""
        if not self.pair.in_step:
            return
        while self.pair.under_way and self.chance.random() < 0.5:
            self.pair.arrive(self.pair.under_way[0])  # some of what was sent comes before the news
        old, standby = self.pair, self.pair.standbys[self.pair.in_step]
        home = standby.promote(old.epoch + 1)
        assert home is not None
        self.failovers += 1
        self.pair = Pair(home)
        for message in old.wires[old.in_step]:  # too late
            assert not standby.take(pickle.loads(message))
        self.pair.fill()
        self.ask_again()

    def ask_again(self) -> None:
        """All calls that have no answer are sent to the new host."""
        for session in self.attempts:
            self.attempts[session] += 1
        for call in sorted(self.open.values(), key=lambda call: call.id[1]):
            self.send_anew(call)

    def change_places(self) -> None:
        """The host becomes the standby of its standby, when that has all, unless one of them is lost."""
        old, chosen = self.pair, self.pair.in_step
        if not chosen or (old.epoch != chosen and old.host.lane(old.epoch)):  # a successor is filled
            return
        old.epoch += 1
        assert old.host.give_way(old.epoch, chosen) and old.host.role is Role.GIVING_WAY
        while old.host.holds():
            if self.chance.random() < 0.02:
                self.chance.choice((self.lose_host, self.lose_standby))()
                assert self.pair is not old or not old.host.finish_giving_way(old.epoch)
                return
            self.move()
        assert old.host.finish_giving_way(old.epoch)
        home = old.standbys[chosen].promote(old.epoch + 1)
        assert home is not None and plain(home) == plain(old.host.home)
        self.pair = Pair(home, old.epoch + 1, Standby(old.host.home, old.epoch))
        self.swaps += 1
        self.ask_again()

    def lose_standby(self) -> None:
        """The standby that would take over, or its successor: that one is chosen again, the other kept."""
        lost = self.chance.choice((self.pair.in_step or self.pair.epoch, self.pair.epoch))
        self.pair.host.part(lost)
        self.pair.fill(kept=0 if lost == self.pair.in_step else self.pair.in_step)
        self.tell(self.pair.host.released())

    def replace_standby(self) -> None:
        """Its worker is to leave."""
        if self.pair.in_step:
            self.pair.fill(kept=self.pair.in_step)

    def come_late(self) -> None:
        """A copy of a call comes though its session has sent the call again since."""
        late = [call for call in self.old if self.last[call.id] is not call]
        if not late:
            return
        call = self.chance.choice(late)
        if call.id not in self.open:
            assert self.pair.host.home.is_late(call)
        elif not self.pair.host.home.is_late(call):
            self.send(call)


@pytest.mark.parametrize("seed", range(20))
def test_each_call_counts_once(seed: int) -> None:
    """No increment is lost or counted twice, and nobody reads less than somebody has read before."""
    counting = Counting(seed)
    counting.run()
    assert counting.failovers and counting.swaps


def test_a_record_goes_when_its_answer_has_come() -> None:
    """With the session's next call, or by its own word; so records don't grow with the number of calls."""
    home = Home("queue", {})
    home.apply(Call(("s", 1), Caller("p"), "get", (1,)))
    for number in range(2, 500):
        home.apply(Call(("s", number), Caller("p"), "put", ([b"x"],), done=(number - 1,)))
    assert home.statistics()["records"] == 2  # what waited was answered, and isn't done
    again = home.apply(Call(("s", 1), Caller("p"), "get", (1,), attempt=1))
    assert again.answers == {("s", 1): (True, [b"x"])}
    home.apply(Took(("s", 1)))
    assert home.is_late(Call(("s", 1), Caller("p"), "get", (1,)))
    assert home.statistics()["records"] == 1


def test_a_standby_that_is_lost_holds_answers_until_that_is_decided() -> None:
    """The host doesn't go on alone by itself, and a deposed one tells nobody anything."""
    pair = Pair(Home("counter", {}))
    pair.fill()
    pair.settle()
    pair.host.apply(Call(("s", 1), Caller("p"), "increment", (1,)))
    assert pair.host.holds()
    pair.host.hold((("s", 1), (True, 1)))
    pair.host.part(pair.epoch)
    assert pair.host.released() == [] and pair.host.role is Role.PARTING
    assert not pair.host.fill(pair.epoch, "") and pair.host.fill(pair.epoch + 1, "")
    assert pair.host.released() == [(("s", 1), (True, 1))] and not pair.host.holds()
    pair.host.fill(pair.epoch + 2, "another")
    while (found := pair.host.next()) is not None:
        pair.host.confirmed(found[1].epoch)
    pair.host.apply(Call(("s", 2), Caller("p"), "increment", (1,)))
    pair.host.hold((("s", 2), (False, Deposed())))
    assert len(pair.host.depose()) == 1 and not pair.host.fill(pair.epoch + 3, "")
    assert pair.host.released() == []


def test_events_faster_than_they_can_be_sent_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a standby comes in step however fast it is."""
    monkeypatch.setattr(lane, "_BEHIND", 1000)
    pair = Pair(Home("dict", {}))
    pair.fill()
    for number in range(20):
        pair.host.apply(Call(("s", number), Caller("p"), "put", ("k", b"x" * 100)))
        pair.host.hold((("s", number), (True, None)))
    told = len(pair.host.released())
    assert pair.host.holds() and told < 20
    pair.settle()
    assert told + len(pair.host.released()) == 20 and pair.host.role is Role.IN_STEP


def test_a_standby_stays_until_its_successor_is_in_step() -> None:
    """What is told meanwhile, the old one has confirmed."""
    pair = Pair(Home("counter", {}))
    pair.fill()
    pair.settle()
    pair.fill(kept=2)
    pair.host.apply(Call(("s", 1), Caller("p"), "increment", (1,)))
    pair.send()
    while pair.wires[3]:
        pair.arrive(3)
    while pair.back:
        pair.host.confirmed(pair.back.popleft()[0])
    assert pair.host.holds() and pair.host.role is Role.IN_STEP
    pair.host.granted(3)
    assert not pair.host.holds() and pair.host.lane(2) is None
    pair.fill(kept=3)
    assert pair.host.part(4) and not pair.host.holds()  # the successor; the standby is in step
    assert pair.host.part(3) and pair.host.role is Role.PARTING
    assert pair.host.fill(5, "another", kept=3) and pair.host.role is Role.PARTING  # not known there yet
    assert pair.host.fill(6, "another") and pair.host.role is Role.FILLING

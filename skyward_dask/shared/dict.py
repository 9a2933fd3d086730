"""A dict's state: values with versions, and claims of those who compute one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from skyward_dask.shared.calls import WAITS, Ticket, Waits
from skyward_dask.shared.pages import MOST_BYTES, MOST_ENTRIES, Pages
from skyward_dask.shared.state import Gone, State


@dataclass(slots=True)
class _Claim:
    """Somebody computes a value; others wait for it."""

    number: int
    ticket: Ticket
    waiting: OrderedDict[Ticket, None] = field(default_factory=OrderedDict)


class DictState(State):
    """Values by key; each value is opaque, and has a version of its own."""

    def __init__(self) -> None:
        self._values: Pages[tuple[int, bytes]] = Pages()
        self._claims: dict[Any, _Claim] = {}
        self._claimed: dict[Ticket, Any] = {}
        self._numbers = count(1)

    def get(self, ticket: Ticket, key: Any) -> bytes | None:
        found = self._values.get(key)
        return None if found is None else found[1]

    def look(self, ticket: Ticket, key: Any) -> tuple[int, bytes] | None:
        """A value with its version."""
        return self._values.get(key)

    def put(self, ticket: Ticket, key: Any, value: bytes) -> None:
        self._store(key, value)

    def put_many(self, ticket: Ticket, items: Iterable[tuple[Any, bytes]]) -> None:
        for key, value in items:
            self._store(key, value)

    def setdefault(self, ticket: Ticket, key: Any, value: bytes) -> bytes:
        """The value that is there now."""
        found = self._values.get(key)
        if found is not None:
            return found[1]
        self._store(key, value)
        return value

    def replace(self, ticket: Ticket, key: Any, version: int, value: bytes) -> bool:
        """Put the value if the one that is there has this version."""
        found = self._values.get(key)
        if found is None or found[0] != version:
            return False
        self._store(key, value)
        return True

    def pop(self, ticket: Ticket, key: Any) -> bytes | None:
        found = self._values.pop(key)
        return None if found is None else found[1]

    def pop_last(self, ticket: Ticket) -> tuple[Any, bytes] | None:
        last = self._values.pop_last()
        return None if last is None else (last[0], last[1][1])

    def contains(self, ticket: Ticket, key: Any) -> bool:
        return key in self._values

    def size(self, ticket: Ticket) -> int:
        return len(self._values)

    def clear(self, ticket: Ticket) -> None:
        self._values.clear()

    def page(
        self, ticket: Ticket, after: int, with_values: bool
    ) -> tuple[list[tuple[Any, bytes]], int | None]:
        """Keys with their values (or nothing), and where to go on; None at the end."""
        found: list[tuple[Any, bytes]] = []
        size, last = 0, None
        for number, key, (_, value) in self._values.after(after):
            found.append((key, value if with_values else b""))
            size, last = size + len(value), number
            if len(found) >= MOST_ENTRIES or (with_values and size >= MOST_BYTES):
                break
        return found, last

    # --- computed once -------------------------------------------------------------------------------

    def claim(self, ticket: Ticket, key: Any) -> Waits:
        """Answers (0, value); or (number, None) to the one who is to compute it."""
        claim = self._claims.get(key)
        if (found := self._values.get(key)) is not None:
            ticket.answer((0, found[1]))
        elif claim is None:
            self._let_compute(ticket, key, OrderedDict())
        else:
            claim.waiting[ticket] = None
            self._claimed[ticket] = key
        return WAITS

    def abandon(self, ticket: Ticket, key: Any, number: int) -> None:
        """It can't be computed: the next one tries."""
        claim = self._claims.get(key)
        if claim is not None and claim.number == number:
            self._pass_on(key, claim)

    def _let_compute(self, ticket: Ticket, key: Any, waiting: OrderedDict[Ticket, None]) -> None:
        number = next(self._numbers)
        self._claims[key] = _Claim(number, ticket, waiting)
        ticket.answer((number, None))

    def _pass_on(self, key: Any, claim: _Claim) -> None:
        del self._claims[key]
        if claim.waiting:
            ticket, _ = claim.waiting.popitem(last=False)
            del self._claimed[ticket]
            self._let_compute(ticket, key, claim.waiting)

    def _store(self, key: Any, value: bytes) -> None:
        self._values.put(key, (next(self._numbers), value))
        if (claim := self._claims.pop(key, None)) is not None:
            for ticket in claim.waiting:
                del self._claimed[ticket]
                ticket.answer((0, value))

    def withdraw(self, ticket: Ticket, expired: bool) -> None:
        if (key := self._claimed.pop(ticket, None)) is not None:
            del self._claims[key].waiting[ticket]

    def undo(self, call_id: tuple[str, int]) -> None:
        for key, claim in self._claims.items():
            if claim.ticket.call.id == call_id:
                self._pass_on(key, claim)
                return

    def forget(self, gone: Gone) -> Iterator[str]:
        for key, claim in list(self._claims.items()):
            if gone(claim.ticket.caller.owner):
                self._pass_on(key, claim)
        yield from ()

    def __len__(self) -> int:
        return len(self._values)

"""A dict's state: values with versions, and the claims of callers that compute a value."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import dataclass, field
from typing import Any

from skyward_dask.shared.events import Call, CallId, Forget
from skyward_dask.shared.pages import MOST_BYTES, MOST_ENTRIES, Pages
from skyward_dask.shared.state import WAITS, State, Waits


@dataclass(frozen=True, slots=True)
class _Claim:
    """One caller computes a value; others wait for it."""

    number: int
    call: Call
    waiting: OrderedDict[CallId, Call] = field(default_factory=OrderedDict)


class DictState(State):
    """Values by key; each value is opaque, and has a version of its own."""

    reads = frozenset({"get", "look", "contains", "size", "page"})

    def __init__(self) -> None:
        super().__init__()
        self._values: Pages[tuple[int, bytes]] = Pages()
        self._claims: dict[Any, _Claim] = {}
        self._claimed: dict[CallId, Any] = {}
        self._number = 0

    def get(self, call: Call, key: Any) -> bytes | None:
        found = self._values.get(key)
        return None if found is None else found[1]

    def look(self, call: Call, key: Any) -> tuple[int, bytes] | None:
        """A value with its version."""
        return self._values.get(key)

    def put(self, call: Call, key: Any, value: bytes) -> None:
        self._store(key, value)

    def put_many(self, call: Call, items: Iterable[tuple[Any, bytes]]) -> None:
        for key, value in items:
            self._store(key, value)

    def setdefault(self, call: Call, key: Any, value: bytes) -> bytes:
        """Returns the value that the key has afterwards."""
        found = self._values.get(key)
        if found is not None:
            return found[1]
        self._store(key, value)
        return value

    def replace(self, call: Call, key: Any, version: int, value: bytes) -> bool:
        """Store the value if the current one has this version."""
        found = self._values.get(key)
        if found is None or found[0] != version:
            return False
        self._store(key, value)
        return True

    def pop(self, call: Call, key: Any) -> bytes | None:
        found = self._values.pop(key)
        return None if found is None else found[1]

    def pop_last(self, call: Call) -> tuple[Any, bytes] | None:
        last = self._values.pop_last()
        return None if last is None else (last[0], last[1][1])

    def contains(self, call: Call, key: Any) -> bool:
        return key in self._values

    def size(self, call: Call) -> int:
        return len(self._values)

    def clear(self, call: Call) -> None:
        self._values.clear()

    def page(self, call: Call, after: int, with_values: bool) -> tuple[list[tuple[Any, bytes]], int | None]:
        """Keys with their values (or empty bytes), and the number to continue after; None at the end."""
        found: list[tuple[Any, bytes]] = []
        size, last = 0, None
        for number, key, (_, value) in self._values.after(after):
            found.append((key, value if with_values else b""))
            size, last = size + len(value), number
            if len(found) >= MOST_ENTRIES or (with_values and size >= MOST_BYTES):
                break
        return found, last

    # --- computed once -------------------------------------------------------------------------------

    def claim(self, call: Call, key: Any) -> Waits:
        """Answers (0, value); or (number, None) to the caller that must compute the value."""
        claim = self._claims.get(key)
        if (found := self._values.get(key)) is not None:
            self.answer(call, (0, found[1]))
        elif claim is None:
            self._let_compute(call, key, OrderedDict())
        else:
            claim.waiting[call.id] = call
            self._claimed[call.id] = key
        return WAITS

    def abandon(self, call: Call, key: Any, number: int) -> None:
        """The caller can't compute the value: the next one in line tries."""
        claim = self._claims.get(key)
        if claim is not None and claim.number == number:
            self._pass_on(key, claim)

    def _let_compute(self, call: Call, key: Any, waiting: OrderedDict[CallId, Call]) -> None:
        number = self._next_number()
        self._claims[key] = _Claim(number, call, waiting)
        self.answer(call, (number, None))

    def _pass_on(self, key: Any, claim: _Claim) -> None:
        del self._claims[key]
        if claim.waiting:
            call_id, call = claim.waiting.popitem(last=False)
            del self._claimed[call_id]
            self._let_compute(call, key, claim.waiting)

    def _store(self, key: Any, value: bytes) -> None:
        self._values.put(key, (self._next_number(), value))
        if (claim := self._claims.pop(key, None)) is not None:
            for call_id, call in claim.waiting.items():
                del self._claimed[call_id]
                self.answer(call, (0, value))

    def _next_number(self) -> int:
        """The next number, for a value's version or for a claim."""
        self._number += 1
        return self._number

    def withdraw(self, call: Call, expired: bool) -> None:
        if (key := self._claimed.pop(call.id, None)) is not None:
            del self._claims[key].waiting[call.id]

    def undo(self, call_id: CallId) -> None:
        for key, claim in self._claims.items():
            if claim.call.id == call_id:
                self._pass_on(key, claim)
                return

    def forget(self, gone: Forget) -> Iterator[str]:
        for key, claim in list(self._claims.items()):
            if gone.concerns(claim.call.caller.owner):
                self._pass_on(key, claim)
        yield from ()

    def owners(self) -> Iterator[tuple[str, str]]:
        for claim in self._claims.values():
            yield claim.call.caller.owner

    def split(self) -> tuple[DictState, Iterable[Any]]:
        light, (light._values, entries) = copy(self), self._values.split()
        return light, entries

    def add_entries(self, entries: Iterable[Any]) -> None:
        self._values.add_entries(entries)

    @property
    def nbytes(self) -> int:
        return self._values.nbytes

    def __len__(self) -> int:
        return len(self._values)

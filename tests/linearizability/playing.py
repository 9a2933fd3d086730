"""A caller: operations at random on a dict's key, a counter, a queue and a lock, all of them written down."""

from __future__ import annotations

import queue
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import skyward_dask as sky
from tests.linearizability.journal import Journal

#: Seconds that a call waits for an item or for the lock: as long as some operations of others.
_A_MOMENT = 0.05
#: Seconds for what must come, and comes at once.
_LONG = 60.0


@dataclass
class Caller:
    """One caller.

    Parameters
    ----------
    name : str
        Its own.
    collections : str
        What the names of the collections begin with.
    folder : Path
    client : distributed.Client, optional
    """

    name: str
    collections: str
    folder: Path
    client: Any = None
    count: int = 0
    seen: Any = None
    journal: Journal = field(init=False)

    def __post_init__(self) -> None:
        self.journal = Journal(self.folder, self.name)
        self.random = random.Random(self.name)
        self.dict = sky.dict(f"{self.collections}-dict", client=self.client)
        self.counter = sky.counter(f"{self.collections}-counter", client=self.client)
        self.queue = sky.queue(f"{self.collections}-queue", client=self.client)
        self.lock = sky.lock(f"{self.collections}-lock", client=self.client)

    def play(self, operations: int) -> None:
        """Call so many."""
        for _ in range(operations):
            self.random.choice((self._use_dict, self._count, self._put, self._get, self._lock))()
        self.journal.close()

    def _call(self, kind: str, name: str, arguments: tuple[Any, ...], function: Callable[[], Any]) -> Any:
        self.journal.begins(kind, name, *arguments)
        result = function()
        self.journal.ends(result)
        return result

    def _new(self) -> str:
        """A value that nobody else has."""
        self.count += 1
        return f"{self.name}.{self.count}"

    def _use_dict(self) -> None:
        name, arguments = self.random.choice(
            [
                ("get", ()),
                ("set", (self._new(),)),
                ("pop", ()),
                ("setdefault", (self._new(),)),
                ("compare_and_set", (self.seen, self._new())),
            ]
        )
        found = self._call("dict", name, arguments, lambda: _DICT[name](self.dict, *arguments))
        self.seen = found if isinstance(found, str) else self.seen

    def _count(self) -> None:
        if self.random.random() < 0.3:
            self._call("counter", "value", (), lambda: self.counter.value)
        else:
            n = self.random.randint(1, 3)
            self._call("counter", "increment", (n,), lambda: self.counter.increment(n))

    def _put(self) -> None:
        items = [self._new() for _ in range(self.random.randint(1, 3))]
        self._call("queue", "put", tuple(items), lambda: self.queue.put_many(items))

    def _get(self) -> None:
        most, block = self.random.randint(1, 3), self.random.random() < 0.7
        self._call("queue", "get", (most,), lambda: self._got(most, block))

    def _got(self, most: int, block: bool) -> list[str]:
        try:
            return self.queue.get_many(most, block, _A_MOMENT if block else None)
        except queue.Empty:
            return []

    def _lock(self) -> None:
        if not self._call("lock", "acquire", (), lambda: self.lock.acquire(timeout=_A_MOMENT)):
            return
        self._call("lock", "fence", (), lambda: self.lock.fence)
        self._count()
        self._call("lock", "release", (), self.lock.release)

    def judge(self) -> bool:
        """Take what is left, when all others have ended; returns whether the lock could be had."""
        self._call("dict", "get", (), lambda: self.dict.get("key"))
        self._call("counter", "value", (), lambda: self.counter.value)
        while self._call("queue", "get", (1000,), lambda: self._got(1000, False)):
            pass
        is_free: bool = self._call("lock", "acquire", (), lambda: self.lock.acquire(timeout=_LONG))
        if is_free:
            self._call("lock", "fence", (), lambda: self.lock.fence)
            self._call("lock", "release", (), self.lock.release)
        self.journal.close()
        return is_free


_DICT: dict[str, Callable[..., Any]] = {
    "get": lambda shared: shared.get("key"),
    "set": lambda shared, value: shared.__setitem__("key", value),
    "pop": lambda shared: shared.pop("key", None),
    "setdefault": lambda shared, value: shared.setdefault("key", value),
    "compare_and_set": lambda shared, expected, value: shared.compare_and_set("key", expected, value),
}


def play(name: str, collections: str, folder: Path, operations: int) -> None:
    """A task that is a caller."""
    Caller(name, collections, folder).play(operations)

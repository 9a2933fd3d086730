"""What tasks print, from nodes to the clients that watch: at a bounded rate, however many nodes there are."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any

from distributed import Scheduler

from skyward_dask.extension.line_rate import MOST, LineRate

#: Seconds that a client which ends its watch waits for the last lines of nodes that don't answer.
_PATIENCE = 5.0

Place = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class _Watcher:
    """A client that watches, and where it shows lines."""

    client: str
    places: Sequence[Place]


class OutputRelay:
    """The scheduler's part of `skyward_dask.output`.

    Parameters
    ----------
    scheduler : distributed.Scheduler
    nodes : set of str
        The addresses of the nodes of each moment.
    """

    def __init__(self, scheduler: Scheduler, nodes: set[str]) -> None:
        self._scheduler, self._nodes = scheduler, nodes
        self._watchers: dict[str, _Watcher] = {}
        self._rate = LineRate()
        self._senders: dict[str, float] = {}
        scheduler.handlers["skyward_watch"] = self.watch
        scheduler.handlers["skyward_unwatch"] = self.unwatch
        scheduler.handlers["skyward_watchers"] = self.watchers
        scheduler.handlers["skyward_output"] = self.take

    async def watch(self, watch: str, client: str, places: Sequence[Place]) -> None:
        """A client watches from now on; nodes learn it before they get any later task."""
        self._watchers[watch] = _Watcher(client, places)
        for node in self._nodes:
            self.introduce(node)

    async def unwatch(self, watch: str) -> None:
        """A client watches no more; it gets what nodes still have for it, and then a last message."""
        if (watcher := self._watchers.get(watch)) is None:
            return
        if nodes := list(self._nodes):  # Dask would take an empty list for all workers
            answers = self._scheduler.broadcast(msg={"op": "skyward_flush"}, workers=nodes, on_error="return")
            with suppress(TimeoutError):
                await asyncio.wait_for(answers, _PATIENCE)
        self._watchers.pop(watch, None)
        for node in self._nodes:
            self._tell(node)
        self._send(watch, watcher, worker="", lines=[], left_out=0, is_last=True)

    async def watchers(self) -> list[Place] | None:
        """Where clients that watch show lines; None if there is none."""
        return _places(self._watchers)

    def introduce(self, node: str) -> None:
        """Tell a node that it is watched, if it is: since the node has asked, a client may have come."""
        if self._watchers:
            self._tell(node)

    def _tell(self, node: str) -> None:
        comm = self._scheduler.stream_comms.get(node)
        if comm is not None:
            comm.send({"op": "skyward_watch", "places": _places(self._watchers)})

    def remove_client(self, client: str) -> None:
        """A client has left, and doesn't watch any more."""
        gone = [watch for watch, watcher in self._watchers.items() if watcher.client == client]
        for watch in gone:
            del self._watchers[watch]
        for node in self._nodes if gone else ():
            self._tell(node)

    async def take(self, worker: str, lines: list[tuple[str, str, str]], left_out: int) -> int:
        """Pass a node's lines on; returns how many it may send in a second, as others do too."""
        passed = [line for line in lines if self._rate.lets_through(line[2])]
        left_out += len(lines) - len(passed)
        for watch, watcher in self._watchers.items():
            self._send(watch, watcher, worker=worker, lines=passed, left_out=left_out, is_last=False)
        now = monotonic()
        self._senders = {sender: at for sender, at in self._senders.items() if at > now - 1} | {worker: now}
        return max(1, MOST // len(self._senders))

    def _send(self, watch: str, watcher: _Watcher, **message: Any) -> None:
        comm = self._scheduler.client_comms.get(watcher.client)
        if comm is not None and not comm.closed():
            comm.send({"op": watch, **message})


def _places(watchers: dict[str, _Watcher]) -> list[Place] | None:
    """Where any of them shows lines; None if there is none."""
    return [place for watcher in watchers.values() for place in watcher.places] if watchers else None

"""What a worker's tasks print, on its way to the clients that watch it."""

from __future__ import annotations

import asyncio
import sys
import threading
from contextlib import ExitStack
from time import monotonic
from typing import Any, NamedTuple

from distributed import Worker as DaskWorker

from skyward_dask.extension.line_rate import LineRate
from skyward_dask.extension.patches import Patches
from skyward_dask.extension.printing import STREAMS, place_of, stand_ins
from skyward_dask.slots.output import LONGEST_LINE, PATIENCE, shown

#: Seconds between two batches: soon enough for somebody who watches.
_INTERVAL = 0.1


class _Begun(NamedTuple):
    """A line without an end yet."""

    text: str
    since: float


class WatchedOutput:
    """Takes what tasks print while clients watch, and sends it to the scheduler in batches.

    Notes
    -----
    `line`, `hear` and `is_held_back` are thread-safe; everything else is for the worker's loop.
    """

    def __init__(self, worker: DaskWorker) -> None:
        self._worker = worker
        self._lock = threading.Lock()
        self._open = ExitStack()
        self._is_open = False
        self._held_back: frozenset[str] = frozenset()
        self._rate = LineRate()
        self._lines: list[tuple[str, str, str]] = []
        self._left_out = 0
        self._begun: dict[tuple[str, str], _Begun] = {}
        self._one_at_a_time = asyncio.Lock()

    def begin(self, patches: Patches) -> None:
        """Do as the scheduler says from now on."""
        patches.entry(self._worker.stream_handlers, "skyward_watch", self.watch)
        patches.entry(self._worker.handlers, "skyward_flush", self.flush)

    # --- who watches --------------------------------------------------------------------------------------

    def watch(self, places: list[tuple[object, ...]] | None) -> None:
        """Clients watch from now on, which show lines in these places; with None, nobody does.

        A stream that leads to such a place is held back: its lines come there with their keys.
        """
        if places is None:
            return self.close()
        self._held_back = frozenset(name for name in STREAMS if place_of(name) in places)
        if not self._is_open:
            self._is_open = True
            self._open.enter_context(stand_ins)
            self._open.callback(asyncio.create_task(self._keep_sending()).cancel)
        return None

    async def flush(self) -> str:
        """A client is about to stop watching: send all that it has to see."""
        with self._lock:
            self._end_lines(monotonic())
        await self._send()
        return "OK"

    def close(self) -> None:
        """Nobody watches any more; what was held back, and is shown nowhere else, appears here after all."""
        with self._lock:
            self._end_lines(monotonic())
            lines, self._lines, self._is_open = self._lines, [], False
            held_back, self._held_back = self._held_back, frozenset()
        self._open.close()
        for _, stream, line in lines:
            if stream in held_back:
                print(line, file=getattr(sys, stream))

    # --- what tasks print ---------------------------------------------------------------------------------

    def is_held_back(self, stream: str) -> bool:
        """Whether what is written to a stream must not appear there."""
        return stream in self._held_back

    def line(self, key: str, stream: str, line: str) -> None:
        """Take a line, if anybody watches."""
        if self._is_open:
            with self._lock:
                self._add(key, stream, line)

    def hear(self, key: str, stream: str, text: str) -> bool:
        """Take what a task in this process writes; returns whether its stream is held back."""
        if not self._is_open:
            return False
        with self._lock:
            begun = self._begun.pop((key, stream), None) or _Begun("", monotonic())
            *lines, rest = (begun.text + text).split("\n")
            for line in lines:
                self._add(key, stream, shown(line))
            if len(rest) > LONGEST_LINE:
                self._add(key, stream, shown(rest))
            elif rest:
                self._begun[key, stream] = _Begun(rest, monotonic() if lines else begun.since)
        return self.is_held_back(stream)

    def _add(self, key: str, stream: str, line: str) -> None:
        if self._rate.lets_through(line):
            self._lines.append((key, stream, line))
        else:
            self._left_out += 1

    def _end_lines(self, before: float) -> None:
        """Take lines that were begun before that time as if they had ended."""
        for (key, stream), begun in list(self._begun.items()):
            if begun.since <= before:
                del self._begun[key, stream]
                self._add(key, stream, shown(begun.text))

    # --- the scheduler ------------------------------------------------------------------------------------

    async def _keep_sending(self) -> None:
        while True:
            await asyncio.sleep(_INTERVAL)
            with self._lock:
                self._end_lines(monotonic() - PATIENCE)
            await self._send()

    async def _send(self) -> None:
        async with self._one_at_a_time:
            with self._lock:
                batch: dict[str, Any] = {"lines": self._lines, "left_out": self._left_out}
                self._lines, self._left_out = [], 0
            if batch["lines"] or batch["left_out"]:
                try:
                    self._rate.most = await self._worker.scheduler.skyward_output(
                        worker=self._worker.address, **batch
                    )
                except OSError:  # the scheduler is gone, and those who watch with it
                    return

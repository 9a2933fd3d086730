"""Dask's profile and call stacks, with the frames of slots' processes in place of waiting threads'."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from dask.utils import key_split
from distributed import Worker as DaskWorker
from distributed import profile

from skyward_dask.extension.running import TaskRun
from skyward_dask.extension.standing import frames
from skyward_dask.extension.tracebacks import is_our_line


class Profiling:
    """Replaces a worker's profiler and its answer to ``client.call_stack()``.

    Parameters
    ----------
    worker : distributed.Worker

    Notes
    -----
    `away` is called in slots' threads, the rest on the worker's loop.
    """

    def __init__(self, worker: DaskWorker) -> None:
        self._worker = worker
        self._away: dict[int, tuple[Any, TaskRun]] = {}
        # held for a sample: a thread that went away between the two looks of it would be shown to wait
        self._sampling = threading.Lock()
        worker.handlers["call_stack"] = self.call_stack
        self._periodic = worker.periodic_callbacks.get("profile")
        if self._periodic is not None:
            self._periodic.callback = self._trigger

    def close(self) -> None:
        """Give the worker its own back, unless another node has taken over."""
        if self._worker.handlers["call_stack"] == self.call_stack:
            self._worker.handlers["call_stack"] = self._worker.get_call_stack
        if self._periodic is not None and self._periodic.callback == self._trigger:
            self._periodic.callback = self._worker.trigger_profile

    @contextmanager
    def away(self, key: Any, run: TaskRun) -> Iterator[None]:
        """The calling thread waits for a child in the block."""
        thread = threading.get_ident()
        with self._sampling:
            self._away[thread] = key, run
        try:
            yield
        finally:
            del self._away[thread]

    def add(self, key: Any, samples: dict[str, Any]) -> None:
        """Take what a child has sampled of a task; from any thread."""
        self._worker.loop.add_callback(self._merge, key_split(key), samples)

    def _merge(self, prefix: str, samples: dict[str, Any]) -> None:
        worker = self._worker
        worker.profile_recent = profile.merge(worker.profile_recent, samples)
        worker.profile_keys[prefix] = profile.merge(worker.profile_keys[prefix], samples)

    def _trigger(self) -> None:
        with self._sampling:
            active = self._worker.active_threads.copy()
            here = {thread: key for thread, key in active.items() if thread not in self._away}
            DaskWorker.trigger_profile(cast(DaskWorker, _View(self._worker, here)))

    async def call_stack(self, keys: Collection[Any] | None = None) -> dict[Any, list[str]]:
        """Where running tasks stand."""
        away = {key: run for key, run in list(self._away.values()) if keys is None or key in keys}
        stacks = self._worker.get_call_stack(keys)
        texts = await asyncio.gather(*(asyncio.to_thread(run.stack) for run in away.values()))
        # what has no stack in a process keeps that of its thread in the worker, which shows that it waits
        found = {key: frames(text) for key, text in zip(away, texts, strict=True)}
        stacks |= {key: stack for key, stack in found.items() if stack}
        return {key: [frame for frame in stack if not is_our_line(frame)] for key, stack in stacks.items()}


class _View:
    """A worker with only some of its active threads, for Dask's own profiler."""

    def __init__(self, worker: DaskWorker, active_threads: Mapping[int, Any]) -> None:
        self._worker = worker
        self.active_threads = dict(active_threads)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._worker, name)

"""The child's profiler: it samples the task's stack, as Dask samples the threads of a worker.

```
 main thread     begin ── runs the task ── end: what was sampled travels with the result
 sampler thread  every interval, a look at the main thread; every cycle, a message to the worker
```
"""

from __future__ import annotations

import sys
import threading
from contextlib import suppress
from time import monotonic, sleep
from types import CodeType, FrameType
from typing import Any

import dask
from dask.utils import parse_timedelta
from distributed import profile

from skyward_dask.errors import WorkerUnreachable
from skyward_dask.slots.child.link import Link

#: Seconds without a run after which the sampler sleeps until the next one: arbitrary, many intervals.
_DROWSY = 1.0
#: The most intervals between two looks, in a child that hardly ever runs a task: with many slots and tiny
#: tasks, looking takes longer than the tasks do. Arbitrary.
_LONGEST = 32


def find_frame(root: CodeType) -> FrameType | None:
    """The main thread's current frame; None if it isn't in a call of the function whose code is `root`."""
    innermost = frame = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame is not None and frame.f_code is not root:
        frame = frame.f_back
    return None if frame is None else innermost


class Sampler:
    """Samples the main thread while it runs a task.

    Parameters
    ----------
    link : Link
    root : CodeType
        The code of the function that runs tasks: only the frames that it has called are shown.
    """

    def __init__(self, link: Link, root: CodeType) -> None:
        self._link = link
        self._root = root
        self._interval = parse_timedelta(dask.config.get("distributed.worker.profile.interval"), default="ms")
        self._cycle = parse_timedelta(dask.config.get("distributed.worker.profile.cycle"), default="ms")
        self._lock = threading.Lock()
        self._awake = threading.Event()
        self._samples = profile.create()
        self._begun = self._told = 0.0
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """A task begins."""
        self._begun = self._told = monotonic()
        if not self._awake.is_set():
            self._awake.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="Profile-task", daemon=True)
            self._thread.start()

    def end(self) -> dict[str, Any] | None:
        """The task has ended: what was sampled since the last message, if anything."""
        with self._lock:
            if not self._samples["count"]:
                return None
            samples, self._samples = self._samples, profile.create()
        return samples

    def _watch(self) -> None:
        pause = 1
        while self._awake.wait():
            sleep(pause * self._interval)
            now = monotonic()
            if self._link.run:
                self._sample(pause)
                pause = 1
                if now > self._told + self._cycle:
                    self._tell()
            elif now > self._begun + _DROWSY:
                pause = 1
                self._awake.clear()  # `begin` sets it again, before or after
            else:
                pause = min(2 * pause, _LONGEST)

    def _sample(self, count: int) -> None:
        """Take a sample, which stands for as many intervals."""
        with self._lock:
            if (frame := find_frame(self._root)) is not None and frame.f_code is not self._root:
                for _ in range(count):
                    profile.process(frame, None, self._samples, stop=self._root.co_filename)

    def _tell(self) -> None:
        self._told = monotonic()
        with suppress(WorkerUnreachable):  # the task has just ended; only a fraction of its samples is lost
            self._link.tell("profile", self.end())

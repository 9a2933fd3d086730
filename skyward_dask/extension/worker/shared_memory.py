"""A worker's shared memory, and what Dask has to do with it: configuration, measurement, memory pressure."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import dask.config
from dask.utils import parse_bytes
from distributed import Worker as DaskWorker

from skyward_dask.extension.worker.pickled_values import Shelf
from skyward_dask.settings import number
from skyward_dask.slots.memory import segments as shared_memory
from skyward_dask.slots.memory.forms import Form
from skyward_dask.slots.memory.lending import PrivateViews
from skyward_dask.slots.memory.segments import SHARE_FROM

_STATUS = Path("/proc/self/status")
#: Fraction of the worker's memory limit that forms of values from elsewhere may take, including those in
#: shared memory: arbitrary, and enough for the values that the slots compute with at one time.
_FORMS = 0.25
#: Bytes that such forms may take if the worker has no memory limit.
_FORMS_UNLIMITED = 2 << 30
#: Seconds for which an answer to "is memory short?" holds: Dask's own spilling asks a fifth as often.
_HOLDS = 0.02


class SharedMemory:
    """What a node shares with its slots' processes.

    Notes
    -----
    `pages` is None where the platform has no shared memory, or the configuration disables it.
    """

    def __init__(self, worker: DaskWorker) -> None:
        self._worker = worker
        threshold = share_from()
        self.pages = shared_memory.create(threshold, is_pressed=self.is_pressed)
        self._large = SHARE_FROM if threshold is None else threshold
        limit = worker.memory_manager.memory_limit
        self.shelf = Shelf(self.pages, int(limit * _FORMS) if limit else _FORMS_UNLIMITED)
        self._views = PrivateViews()
        self._pressed, self._asked = False, 0.0

    def unseen(self) -> int:
        """Bytes to add to the worker's resident memory, so that shared pages count once, mapped or not."""
        if self.pages is None:
            return 0
        mapped = re.search(r"RssShmem:\s+(\d+) kB", _STATUS.read_text())
        return self.pages.resident() - (int(mapped[1]) * 1024 if mapped else 0)

    def is_pressed(self) -> bool:
        """Whether the worker is above the fraction of its memory limit from which it spills.

        If so, forms that can be made again are dropped.
        """
        now = time.monotonic()
        if now - self._asked > _HOLDS:
            self._asked = now
            manager = self._worker.memory_manager
            target = (manager.memory_limit or 0) * (manager.memory_target_fraction or 0)
            self._pressed = bool(target) and self._worker.monitor.get_process_memory() > target
            if self._pressed:
                self.shelf.clear()
        return self._pressed

    def is_large(self, key: Any) -> bool:
        """Whether a value that the worker holds is so large that its pickled form is worth keeping."""
        task = self._worker.state.tasks.get(key)
        return task is not None and task.get_nbytes() >= self._large

    def own_view(self, form: Form) -> Any:
        """The value of a form for a thread of the worker: nobody else sees what the thread writes to it."""
        return self._views.load(form)

    def close(self) -> None:
        """Allocate nothing from now on."""
        if self.pages is not None:
            self.pages.close()


def share_from() -> int | None:
    """The configured size, in bytes, from which buffers are shared; None for never."""
    value = dask.config.get("skyward.shared-memory.threshold", default=SHARE_FROM)
    if value is None:
        return None
    name, valid = "skyward.shared-memory.threshold", "a size such as '256 KiB', or null for never"
    return int(number(name, value, parse_bytes, lambda nbytes: nbytes >= 0, valid))

"""Leaks are failures: after each test, or each module whose cluster its tests share, nothing is left."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path

import psutil
import pytest

pytest_plugins = ["tests.last_resort"]

# Dask, which reads it when it is imported, gives up a worker that its nanny hasn't brought back after 15 s.
os.environ.setdefault("DASK_DISTRIBUTED__DEPLOY__LOST_WORKER_TIMEOUT", "1h")

#: Fixtures that live as long as a module: then the module is judged, not each of its tests.
SHARED = {"shared_client", "shared_pool", "shared_runs", "shared_workers", "module_compute"}
#: Threads that distributed and tornado keep for the life of the process.
_KEPT_THREADS = (
    "Dask-Offload",
    "Dask-Callback",
    "TCP-Executor",
    "asyncio_",
    "Profile",
    "ThreadPoolExecutor-",
    "IO loop",
)
#: Seconds that what is ending may take to be gone, on a loaded machine.
_PATIENCE = 60.0


@dataclass(frozen=True)
class Holdings:
    """What a process holds: descendants with their parents, descriptors, threads."""

    descendants: Mapping[int, int]
    descriptors: frozenset[str]
    threads: frozenset[int]

    @classmethod
    def now(cls) -> Holdings:
        children = psutil.Process().children(recursive=True)
        return cls(
            dict(_lineage(children)),
            frozenset(_descriptors()),
            frozenset(
                thread.ident or 0
                for thread in threading.enumerate()
                if not thread.name.startswith(_KEPT_THREADS)
            ),
        )

    def beyond(self, other: Holdings) -> Holdings:
        return Holdings(
            {pid: self.descendants[pid] for pid in self.descendants if not self._belongs_to(pid, other)},
            self.descriptors - other.descriptors,
            self.threads - other.threads,
        )

    def _belongs_to(self, pid: int, other: Holdings) -> bool:
        """Whether a process was there, or descends from one that was: a shared pool replaces its children."""
        while pid in self.descendants:
            if pid in other.descendants:
                return True
            pid = self.descendants[pid]
        return False

    def __bool__(self) -> bool:
        return bool(self.descendants or self.descriptors or self.threads)

    def __str__(self) -> str:
        names = [thread.name for thread in threading.enumerate() if thread.ident in self.threads]
        return (
            f"processes {sorted(self.descendants)}, descriptors {sorted(self.descriptors)}, threads {names}"
        )


def _lineage(processes: list[psutil.Process]) -> Iterator[tuple[int, int]]:
    """Processes with their parents, but for what multiprocessing keeps."""
    for process in processes:
        with suppress(psutil.Error):
            if not _is_resource_tracker(process):
                yield process.pid, process.ppid()


def _is_resource_tracker(process: psutil.Process) -> bool:
    """multiprocessing starts one tracker for the life of the process."""
    try:
        return any("resource_tracker" in word for word in process.cmdline())
    except psutil.Error:
        return False


def _unix_sockets() -> set[str]:
    """The inodes of Unix sockets, as ours are; distributed pools its TCP, and closes it in its time."""
    table = Path("/proc/net/unix")
    return {line.split()[6] for line in table.read_text().splitlines()[1:]} if table.exists() else set()


def _descriptors() -> Iterator[str]:
    """Descriptors of the kinds that we make, as what they point to."""
    folder = Path("/proc/self/fd")
    unix = _unix_sockets()
    tracker = str(resource_tracker._resource_tracker._fd)
    for fd in set(os.listdir(folder) if folder.exists() else ()) - {tracker}:
        try:
            target = os.readlink(folder / fd)
        except OSError:
            continue
        ours = target.startswith(("pipe:", "/memfd:skyward")) or "pidfd" in target
        if ours or (target.startswith("socket:") and target[8:-1] in unix):
            yield f"{fd} {target}"


def _check(before: Holdings, what: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while (left := Holdings.now().beyond(before)) and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.02)  # nothing announces that a process of somebody else's is gone
    assert not left, f"{what} left behind: {left}"


@pytest.fixture(autouse=True, scope="module")
def nothing_left_by_module(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a module's clusters held is given back."""
    before = Holdings.now()
    yield
    _check(before, request.node.name)


@pytest.fixture(autouse=True)
def nothing_left_by_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test held is given back, unless its cluster outlives it."""
    if SHARED & set(request.fixturenames):
        yield
        return
    before = Holdings.now()
    yield
    _check(before, request.node.name)

"""What the calling task prints: hidden, or heard by whoever watches it.

In a process slot a task is alone, and its descriptors can be led elsewhere. Tasks that share their worker's
process share `sys.stdout`: while some of them are hidden or heard, a stand-in for it tells them apart.
"""

from __future__ import annotations

import os
import platform
import sys
import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from skyward_dask.extension.child.task import worker_of_this_process
from skyward_dask.extension.task_run import current

#: The names of the streams, and their descriptors.
STREAMS = {"stdout": 1, "stderr": 2}
#: The streams on which what is printed in this context is dropped.
_hidden: ContextVar[frozenset[str]] = ContextVar("skyward_hidden", default=frozenset())


class _StandIn:
    """Stands in for a stream of `sys`."""

    def __init__(self, name: str, stream: Any) -> None:
        self.name, self.stream = name, stream

    def write(self, text: str) -> int:
        if self.name in _hidden.get():
            return len(text)
        run = current.get()
        if run is not None and run.hear is not None and run.hear(str(run.key), self.name, text):
            return len(text)
        written: int = self.stream.write(text)
        return written

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class StandIns:
    """Puts stand-ins in place for as long as anybody needs them.

    Notes
    -----
    Thread-safe. Where somebody else has replaced a stream meanwhile, it is theirs; a stand-in that they put
    back passes everything on.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0

    def __enter__(self) -> None:
        with self._lock:
            self._users += 1
            for name in STREAMS:
                stream = getattr(sys, name)
                if stream is not None and not isinstance(stream, _StandIn):
                    setattr(sys, name, _StandIn(name, stream))

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            for name in STREAMS:
                stream = getattr(sys, name)
                if not self._users and isinstance(stream, _StandIn):
                    setattr(sys, name, stream.stream)


#: The streams of `sys` are the process's, too.
stand_ins = StandIns()


@contextmanager
def hidden(streams: Collection[str]) -> Iterator[None]:
    """In the block, drop what the calling task writes to these streams."""
    with ExitStack() as stack:
        if worker_of_this_process() is not None:  # with what its C code and its processes write
            for name in streams:
                stack.enter_context(_led_nowhere(name))
        elif streams:
            stack.enter_context(stand_ins)
            stack.callback(_hidden.reset, _hidden.set(_hidden.get().union(streams)))
        yield


@contextmanager
def _led_nowhere(name: str) -> Iterator[None]:
    stream, fd = getattr(sys, name), STREAMS[name]
    stream.flush()
    kept, nowhere = os.dup(fd), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, fd)
    os.close(nowhere)
    try:
        yield
    finally:
        stream.flush()
        os.dup2(kept, fd)
        os.close(kept)


def place_of(name: str) -> tuple[object, ...]:
    """Where a stream of this process leads: equal in two processes if it is the same file or terminal."""
    stream: Any = getattr(sys, name)
    stream = stream.stream if isinstance(stream, _StandIn) else stream
    try:
        return _place_of(stream.fileno())
    except (OSError, ValueError, AttributeError):  # it has no descriptor
        return (_machine(), os.getpid(), id(stream))


def places_of_this_process() -> list[tuple[object, ...]]:
    """Where its streams lead, and its descriptors, which workers may have inherited."""
    found = [place_of(name) for name in STREAMS]
    for fd in STREAMS.values():
        try:
            found.append(_place_of(fd))
        except OSError:  # it is closed
            continue
    return found


def _place_of(fd: int) -> tuple[object, ...]:
    status = os.fstat(fd)
    return (_machine(), status.st_dev, status.st_ino)


def _machine() -> str:
    """Devices and inodes are those of one kernel."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return platform.node()

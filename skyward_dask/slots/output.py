"""A child's stdout and stderr: pipes in, lines out, each with the task that was running."""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable

#: Called with the task's key (empty between tasks), the stream's name and one line without its end.
Sink = Callable[[str, str, str], None]

_READ = 64 * 1024
#: Bytes taken from one pipe at a time, so that a child that floods its pipe doesn't keep its reader.
_TURN = 16 * _READ
#: A line without an end is passed on when it has grown to so many bytes: arbitrary, well above a log line.
_LONGEST_LINE = 64 * 1024
#: Lines of stderr that a crash is reported with: about a traceback's worth.
_TAIL = 30


class Output:
    """The reading ends of a child's two pipes.

    Notes
    -----
    The pool drains whenever a pipe has something, and at the end of each run, so that what a
    task printed carries its key; the lock makes one of them do it at a time.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._lock = threading.Lock()
        self._key = ""
        self._pipes: dict[int, str] = {}
        self._poll = select.poll()  # one system call for both pipes, as most tasks write nothing
        self._partial = {"stdout": b"", "stderr": b""}
        self._tail: deque[str] = deque(maxlen=_TAIL)
        self.writers: dict[str, int] = {}
        for stream in ("stdout", "stderr"):
            reader, self.writers[stream] = os.pipe()
            os.set_blocking(reader, False)
            self._pipes[reader] = stream
            self._poll.register(reader, select.POLLIN)

    @property
    def readers(self) -> list[int]:
        return list(self._pipes)

    def close_writers(self) -> None:
        """Close the worker's copies of the child's ends, once the child has its own."""
        for fd in self.writers.values():
            os.close(fd)
        self.writers.clear()

    def begin(self, key: str) -> None:
        """Lines from here on belong to the task."""
        with self._lock:
            self._key = key
            self._tail.clear()

    def end(self) -> None:
        """Take what the task has written, to its last word; the next lines belong to no task."""
        with self._lock:
            for fd, _ in self._poll.poll(0):
                self._drain(fd)
            self._flush()
            self._key = ""

    def drain(self, fd: int) -> bool:
        """Take what one pipe has; returns whether it may have more some time."""
        with self._lock:
            return self._drain(fd)

    def tail(self) -> str:
        with self._lock:
            return "\n".join(self._tail)

    def close(self) -> None:
        """Take what is there and close; a pipe may be held open by others, so its end is not waited for."""
        self.end()
        with self._lock:
            for fd in self._pipes:
                self._poll.unregister(fd)
                os.close(fd)
            self._pipes.clear()

    def _drain(self, fd: int) -> bool:
        for _ in range(_TURN // _READ):
            try:
                data = os.read(fd, _READ)
            except BlockingIOError:
                return True
            except OSError:  # closed by the other reader of the two
                return False
            if not data:
                return False
            self._feed(self._pipes[fd], data)
        return True

    def _feed(self, stream: str, data: bytes) -> None:
        *lines, rest = (self._partial[stream] + data).split(b"\n")
        if len(rest) > _LONGEST_LINE:
            lines, rest = [*lines, rest], b""
        self._partial[stream] = rest
        for line in lines:
            self._emit(stream, line)

    def _flush(self) -> None:
        for stream, rest in self._partial.items():
            if rest:
                self._partial[stream] = b""
                self._emit(stream, rest)

    def _emit(self, stream: str, line: bytes) -> None:
        text = line.decode(errors="backslashreplace")
        if stream == "stderr":
            self._tail.append(text)
        self._sink(self._key, stream, text)

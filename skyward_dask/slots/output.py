"""A child's stdout and stderr: pipes in, text out at once, and lines, each with the task that was running."""

from __future__ import annotations

import codecs
import os
import select
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

_READ = 64 * 1024
#: Bytes taken from one pipe at a time, so that a child that floods its pipe doesn't keep its reader.
_TURN = 16 * _READ
#: A line without an end is passed on when it has grown to so many characters (arbitrary, well above a log
#: line), or after so many seconds: soon, for who watches a progress bar, and no record for each of its steps.
_LONGEST_LINE = 64 * 1024
PATIENCE = 0.5
#: Lines of stderr that a crash is reported with: about a traceback's worth.
_TAIL = 30


@dataclass(frozen=True, slots=True)
class Sink:
    """Who takes what children write.

    Attributes
    ----------
    line : callable
        Called with the task's key (empty between tasks), the stream's name and one line without its end. Of a
        line that was drawn over, as progress bars are, what was drawn last.
    text : callable
        Called with the stream's name and text as it comes.
    """

    line: Callable[[str, str, str], None]
    text: Callable[[str, str], None]


class Output:
    """The reading ends of a child's two pipes.

    Notes
    -----
    The supervisor drains whenever a pipe has something, the caller at the end of its run, so that what a
    task printed carries its key; the lock makes one of them do it at a time.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._lock = threading.Lock()
        self._key = ""
        self._pipes: dict[int, str] = {}
        self._poll = select.poll()  # one system call for both pipes, as most tasks write nothing
        self._partial = {"stdout": "", "stderr": ""}
        decoder = codecs.getincrementaldecoder("utf-8")
        self._decoders = {stream: decoder("backslashreplace") for stream in self._partial}
        self._is_waiting = False
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
            for stream in self._partial:
                self._feed(stream, b"", final=True)
            self._flush()
            self._key = ""

    def drain(self, fd: int) -> bool:
        """Take what one pipe has; returns whether it may have more some time."""
        with self._lock:
            return self._drain(fd)

    def waits(self) -> bool:
        """Whether a line without an end has begun, for which nobody has set a timer yet to `pass_on`."""
        with self._lock:
            if self._is_waiting or not any(self._partial.values()):
                return False
            self._is_waiting = True
            return True

    def pass_on(self) -> None:
        """Take what there is of lines without an end for lines."""
        with self._lock:
            self._is_waiting = False
            self._flush()

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

    def _feed(self, stream: str, data: bytes, final: bool = False) -> None:
        text = self._decoders[stream].decode(data, final)
        if text:
            self._sink.text(stream, text)
        *lines, rest = (self._partial[stream] + text).split("\n")
        if len(rest) > _LONGEST_LINE:
            lines, rest = [*lines, rest], ""
        self._partial[stream] = rest
        for line in lines:
            self._emit(stream, line)

    def _flush(self) -> None:
        for stream, rest in self._partial.items():
            self._partial[stream] = ""
            if rest.strip("\r"):
                self._emit(stream, rest)

    def _emit(self, stream: str, line: str) -> None:
        shown = line.rstrip("\r").rpartition("\r")[2]
        if stream == "stderr":
            self._tail.append(shown)
        self._sink.line(self._key, stream, shown)

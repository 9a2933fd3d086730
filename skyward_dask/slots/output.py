"""A child's stdout and stderr, read from pipes: text at once, and lines with the task that was running."""

from __future__ import annotations

import asyncio
import codecs
import os
import select
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from skyward_dask.slots.aside import TURN

#: Bytes taken from a pipe in one turn of the loop, so that a child that floods its pipe leaves others time.
_READ = 16 * 1024
#: Reads at the end of a run: as much as a pipe holds, and some of what other processes write meanwhile.
_READS = 16
#: A line without an end is passed on when it has grown to this many characters (arbitrary, well above a log
#: line), or after `PATIENCE` seconds: soon enough for someone who watches a progress bar, and without a
#: record for each of its steps.
LONGEST_LINE = 64 * 1024
#: The most lines that wait to be passed on, when many runs print without end. Arbitrary, about 10 MB.
_MOST_WAITING = 100_000
PATIENCE = 0.5
#: Lines of stderr that a crash is reported with: about a traceback's worth.
_TAIL = 30


@dataclass(frozen=True, slots=True)
class Sink:
    """The receiver of what children write.

    Attributes
    ----------
    line : callable
        Called with the task's key (empty between tasks), the stream's name and one line without its end. If
        the line was overwritten, as progress bars are, only what was written last.
        If many runs print without end, lines wait for the loop.
    text : callable
        Called with the stream's name and text as it arrives.
    line_at_once : callable
        Called as `line` is, when the line arrives; it must take no time.
    """

    line: Callable[[str, str, str], None]
    text: Callable[[str, str], None]
    line_at_once: Callable[[str, str, str], None] = lambda key, stream, line: None


def shown(line: str) -> str:
    """What can be seen of a line that was overwritten, as progress bars are."""
    return line.rstrip("\r").rpartition("\r")[2]


class Output:
    """The reading ends of a process's two pipes. For the pool's loop.

    Notes
    -----
    A pipe is read whenever it has something, and at the end of each run: so what a task printed carries its
    key.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, sink: Sink) -> None:
        self._loop, self._sink = loop, sink
        self._key = ""
        self._pipes: dict[int, str] = {}
        self._poll = select.poll()  # one system call for both pipes, as most tasks write nothing
        self._partial = {"stdout": "", "stderr": ""}
        decoder = codecs.getincrementaldecoder("utf-8")
        self._decoders = {stream: decoder("backslashreplace") for stream in self._partial}
        self._passing_on: asyncio.TimerHandle | None = None
        self._waiting: deque[tuple[str, str, str]] = deque()  # lines that wait for the loop's next turn
        self._is_emitting = self._has_read = False
        self._tail: deque[str] = deque(maxlen=_TAIL)
        self.writers: dict[str, int] = {}
        for stream in ("stdout", "stderr"):
            reader, self.writers[stream] = os.pipe()
            os.set_blocking(reader, False)
            self._pipes[reader] = stream
            self._poll.register(reader, select.POLLIN)

    def listen(self) -> None:
        """Read what is written from now on."""
        for fd in self._pipes:
            self._loop.add_reader(fd, self._readable, fd)

    def close_writers(self) -> None:
        """Close the worker's copies of the child's ends, once the child has its own."""
        for fd in self.writers.values():
            os.close(fd)
        self.writers.clear()

    def begin(self, key: str) -> None:
        """Lines from here on belong to the task."""
        self._key = key
        self._tail.clear()

    def end(self) -> None:
        """Read everything that the task has written; the next lines belong to no task."""
        for fd, _ in self._poll.poll(0):
            for _ in range(_READS):
                if not self._read(fd):
                    break
        if self._has_read:
            self._has_read = False
            for stream in self._partial:
                self._feed(stream, b"", final=True)
            self._pass_on()
            self._emit_some(_MOST_WAITING)
        self._key = ""

    def tail(self) -> str:
        return "\n".join(self._tail)

    def close(self) -> None:
        """Read what is there and close; others may hold a pipe open, so we don't wait for its end."""
        self.close_writers()
        self.end()
        self._emit_some(0)
        for fd in self._pipes:
            self._loop.remove_reader(fd)
            self._poll.unregister(fd)
            os.close(fd)
        self._pipes.clear()

    def _readable(self, fd: int) -> None:
        if self._waiting:
            return  # a child that writes faster than its lines are passed on has to wait, and nobody else
        self._read(fd)
        self._emit_some(_MOST_WAITING)
        if self._passing_on is None and any(self._partial.values()):
            self._passing_on = self._loop.call_later(PATIENCE, self._pass_on_late)

    def _read(self, fd: int) -> bool:
        """Read once; returns whether there may be more."""
        try:
            data = os.read(fd, _READ)
        except BlockingIOError:
            return False
        if not data:
            self._loop.remove_reader(fd)
        self._has_read = True
        self._feed(self._pipes[fd], data)
        return len(data) == _READ

    def _feed(self, stream: str, data: bytes, final: bool = False) -> None:
        text = self._decoders[stream].decode(data, final)
        if text:
            self._sink.text(stream, text)
        *lines, rest = (self._partial[stream] + text).split("\n")
        if len(rest) > LONGEST_LINE:
            lines, rest = [*lines, rest], ""
        self._partial[stream] = rest
        for line in lines:
            self._add(stream, line)

    def _pass_on(self) -> None:
        """Treat unfinished lines as if they were complete."""
        if self._passing_on is not None:
            self._passing_on.cancel()
            self._passing_on = None
        for stream, rest in self._partial.items():
            self._partial[stream] = ""
            if rest.strip("\r"):
                self._add(stream, rest)

    def _pass_on_late(self) -> None:
        self._pass_on()
        self._emit_some(_MOST_WAITING)

    def _add(self, stream: str, line: str) -> None:
        line = shown(line)
        if stream == "stderr":
            self._tail.append(line)
        self._sink.line_at_once(self._key, stream, line)
        self._waiting.append((self._key, stream, line))

    def _emit_some(self, most: int) -> None:
        """Pass lines on, for as long as others can wait, and until no more than `most` are left."""
        end = self._loop.time() + TURN
        while self._waiting and (self._loop.time() < end or len(self._waiting) > most):
            self._sink.line(*self._waiting.popleft())
        if self._waiting and not self._is_emitting:
            self._is_emitting = True
            self._loop.call_soon(self._emit_more)

    def _emit_more(self) -> None:
        self._is_emitting = False
        self._emit_some(_MOST_WAITING)

"""Writes what tasks print to stdout and stderr of the worker's process, as if they ran in its threads."""

from __future__ import annotations

import sys
import threading
from collections import deque
from contextlib import suppress

#: Maximum number of characters that wait to be written to the worker's stdout or stderr: arbitrary. Text
#: beyond that goes to the worker's log only.
_MOST = 1 << 24
#: Seconds for which a task that has printed, or a worker that closes, waits until the text is written; not
#: longer, because the terminal may be stopped.
PATIENCE = 1.0


class Console:
    """Writes in a thread of its own: a terminal, or a pipe that nobody reads, may block indefinitely.

    Notes
    -----
    Thread-safe.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._texts: deque[tuple[str, str]] = deque()
        self._size = 0
        self._writing = self._ended = False
        self._thread: threading.Thread | None = None

    def write(self, stream: str, text: str) -> None:
        """Queue text that is to be written to a stream of `sys`."""
        with self._changed:
            if self._size + len(text) > _MOST or self._ended:
                return
            self._texts.append((stream, text))
            self._size += len(text)
            if self._thread is None:
                self._thread = threading.Thread(target=self._write_all, name="skyward-console", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def wait_written(self) -> None:
        """Wait until everything has been written, but at most `PATIENCE` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: not self.is_behind, PATIENCE)

    @property
    def is_behind(self) -> bool:
        """Whether there is text that hasn't been written yet."""
        return bool(self._texts) or self._writing

    def close(self) -> None:
        """Write what is left, and end the thread."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(PATIENCE)

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._texts or self._ended)
                if not self._texts:
                    return
                stream, text = self._texts.popleft()
                self._size -= len(text)
                self._writing = True
            _write(stream, text)


def _write(name: str, text: str) -> None:
    # the stream may be closed, None, or the user's own: if writing fails, the worker's log has the text
    with suppress(Exception):
        stream = getattr(sys, name)
        try:
            stream.write(text)
        except UnicodeEncodeError:
            stream.write(text.encode("ascii", "backslashreplace").decode())
        stream.flush()

"""The worker's end of a template: start it, have it fork, hear from it who has died."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from skyward_dask.errors import SlotStartFailed
from skyward_dask.slots.output import Output, Sink
from skyward_dask.slots.preparation import Preparation
from skyward_dask.slots.template import Disconnected, close, receive, send
from skyward_dask.slots.trees import end_marked, end_tree, is_stopped

if TYPE_CHECKING:
    from skyward_dask.slots.process import ChildProcess

#: Where `skyward_dask` itself is found, before a process has the worker's `sys.path`.
_ROOT = str(Path(__file__).parents[2])
_PROGRAM = (
    f"import sys; sys.path.insert(0, {_ROOT!r}); from skyward_dask.slots.%s import main; main({{arguments}})"
)
#: Seconds that a template may take to fork or to bury: it takes milliseconds, unless it was stopped.
PATIENCE = 5.0
#: In the environment of a template and of all that descends from it.
_MARK = "SKYWARD_TEMPLATE"
#: Seconds for the tree of a lost template, or of a child whose template is gone, to go.
TREE_PATIENCE = 1.0


class GuardianLost(Exception):
    """The template is dead, or doesn't answer."""


class Guardian:
    """A template process, as its pool's supervisor sees it.

    Parameters
    ----------
    preparation : Preparation
        What the children need.
    sink : callable
        Takes the lines that the template writes.

    Attributes
    ----------
    children : dict
        Those that it has started and that live, by process id.

    Notes
    -----
    Used in the supervisor's thread only.
    """

    def __init__(self, preparation: Preparation, sink: Sink) -> None:
        self._preparation = preparation
        self._mark = uuid4().hex
        self._words: deque[tuple[Any, ...]] = deque()
        self.children: dict[int, ChildProcess] = {}
        self.ready = False
        self._forks = False
        self.output = Output(sink)
        self.control, theirs = socket.socketpair()
        try:
            with theirs:
                self._popen = self._start(theirs.fileno())
        except BaseException:
            self.control.close()
            self.output.close()
            raise
        finally:
            self.output.close_writers()
        self.pid = self._popen.pid
        with suppress(Disconnected):  # then its end is heard at once
            send(self.control, (preparation.path(), preparation.imports()))

    def _start(self, control: int) -> subprocess.Popen[bytes]:
        code = (_PROGRAM % "template").format(arguments=f"{control}, {os.getpid()}")
        return subprocess.Popen(
            [sys.executable, *_flags(), "-P", "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=self.output.writers["stdout"],
            stderr=self.output.writers["stderr"],
            pass_fds=(control,),
            env=self._environment(),
            process_group=0,
        )

    def _environment(self, slot: int | None = None) -> dict[str, str]:
        return self._preparation.environment(slot) | {_MARK: self._mark}

    def hear(self) -> Iterator[tuple[int, int]]:
        """Take what the template says; yields process ids of dead children with their exit codes.

        Raises
        ------
        GuardianLost
            It is gone.
        """
        while self._words or self._is_speaking(0):
            word, descriptors = (self._words.popleft(), []) if self._words else self._receive()
            kind, *rest = word
            if kind == "ready":
                self.ready, (self._forks,) = True, rest
            elif kind == "exited":
                pid, code = rest
                yield pid, code
            else:  # a fork that nobody has waited for to the end: it ends with its template
                close(descriptors)

    def fork(self, slot: int, descriptors: tuple[int, ...]) -> tuple[int, int | None]:
        """Have a child started on these descriptors; returns its process id and, if there is one, its pidfd.

        Raises
        ------
        GuardianLost
            The template is gone.
        OSError
            The system gives no process.
        """
        by_exec = (_PROGRAM % "child", _flags(), self._environment(slot))
        try:
            send(self.control, (None if self._forks else by_exec,), descriptors)
        except Disconnected:
            raise GuardianLost from None
        deadline = time.monotonic() + PATIENCE
        while self._is_speaking(max(0, deadline - time.monotonic())):
            word, pidfd = self._receive()
            if word[0] == "forked":
                return int(word[1]), pidfd[0] if pidfd else None
            if word[0] == "failed":
                raise OSError(word[1], os.strerror(word[1]))
            self._words.append(word)
        raise GuardianLost

    def _is_speaking(self, timeout: float) -> bool:
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        return bool(poll.poll(timeout * 1000))

    def _receive(self) -> tuple[tuple[Any, ...], list[int]]:
        try:
            return receive(self.control)
        except Disconnected:
            raise GuardianLost from None

    def kill(self) -> None:
        """Kill the template with all that descends from it, and reap it."""
        # what dead children have left would be nobody's once the template is gone
        end_tree(self.pid, TREE_PATIENCE, self._popen.send_signal)
        self._popen.wait()

    def end_strays(self) -> None:
        """Kill what has descended from it, wherever it is now.

        A child that ended after its template, and before anybody could see to it, has left the daemons of its
        tasks to the system.
        """
        end_marked(f"{_MARK}={self._mark}".encode(), TREE_PATIENCE)

    def is_stopped(self) -> bool:
        """Whether somebody has stopped it."""
        return is_stopped(self.pid)

    def ended_itself(self) -> bool:
        """Whether it has ended, not by a signal, before it could fork: another one would too."""
        code = self._popen.poll()
        return not self.ready and code is not None and code >= 0

    def failure(self) -> SlotStartFailed:
        """Why no child could be started with it."""
        return SlotStartFailed(
            f"the process that starts slots' processes ended with {_end(self._popen.returncode)}: "
            "a module of pre_import may end the process that imports it, somebody may kill it, or the "
            "machine may be short of memory.",
            self.output.tail(),
        )

    def close(self) -> None:
        """Have it kill what is left, and end."""
        with suppress(OSError):
            self.control.shutdown(socket.SHUT_RDWR)  # a fork of the worker may hold the socket too
        self.control.close()
        try:
            self._popen.wait(PATIENCE)
        except subprocess.TimeoutExpired:  # it was stopped
            self.kill()
        self.output.close()


def _flags() -> list[str]:
    """The options that this interpreter was started with, as multiprocessing passes them on."""
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return flags


def _end(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"

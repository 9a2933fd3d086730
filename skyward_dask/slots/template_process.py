"""The worker's end of a template: start it, have it fork, learn from it which children have died."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from skyward_dask.errors import SlotStartFailed
from skyward_dask.slots.framing import Frame
from skyward_dask.slots.loop_channel import LoopChannel
from skyward_dask.slots.output import Output, Sink
from skyward_dask.slots.preparation import Preparation
from skyward_dask.slots.template_messages import Fork, Guard, Import
from skyward_dask.slots.trees import end_marked, end_tree, is_stopped

if TYPE_CHECKING:
    from skyward_dask.slots.child_process import ChildProcess

#: Where `skyward_dask` itself is found, before a process has the worker's `sys.path`.
_ROOT = str(Path(__file__).parents[2])
_PROGRAM = (
    f"import sys; sys.path.insert(0, {_ROOT!r}); "
    "from skyward_dask.slots.child.%s import main; main({arguments})"
)
#: Seconds that a template may take to end when it is told to.
_END_PATIENCE = 5.0
#: In the environment of a template and of all its descendants.
_MARK = "SKYWARD_TEMPLATE"
#: Seconds to wait until the process tree of a lost template has ended.
_TREE_PATIENCE = 1.0


class TemplateProcess:
    """A template process. For the pool's loop, except for `kill` and `wait`.

    Parameters
    ----------
    loop : asyncio.AbstractEventLoop
    preparation : Preparation
        What the children need.
    sink : callable
        Takes the lines that the template writes.
    on_frame : callable
        Takes the template and each frame that it sends.
    on_end : callable
        Called with the template when it has ended.

    Attributes
    ----------
    children : dict
        The children that it has started and that are alive, by process id.
    forking : dict
        The children that it was told to start, by the number of that command.
    preparation : Preparation
    ready : bool
        It can start children.
    hangs : bool
        It has taken too long to be ready.
    heard : float
        When it sent its last frame, by the loop's clock.

    Raises
    ------
    OSError, ValueError
        The process can't be started.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        preparation: Preparation,
        sink: Sink,
        on_frame: Callable[[TemplateProcess, Frame], None],
        on_end: Callable[[TemplateProcess], None],
    ) -> None:
        self._loop = loop
        self.preparation = preparation
        self._mark = uuid4().hex
        self.children: dict[int, ChildProcess] = {}
        self.forking: dict[int, ChildProcess] = {}
        self._forks = self.ready = self.hangs = False
        self._numbers, self.heard = 0, loop.time()
        self.output = Output(loop, sink)
        control, theirs = socket.socketpair()
        try:
            with theirs:
                self._popen = self._start(theirs.fileno())
        except BaseException:
            control.close()
            self.output.close()
            raise
        finally:
            self.output.close_writers()
        self.pid = self._popen.pid
        self._control = LoopChannel(loop, control, lambda frame: on_frame(self, frame), lambda: on_end(self))
        self._control.listen()
        self.output.listen()
        wanted = Import(preparation.path(), preparation.imports(), preparation.backend)
        self._control.send(Frame(wanted, parts=[preparation.backend_argument]))

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
        return self.preparation.environment(slot) | {_MARK: self._mark}

    def is_ready(self, forks: bool) -> None:
        """It has imported what the children need; `forks` says whether they can share it."""
        self.ready, self._forks = True, forks

    def start(self, child: ChildProcess) -> int:
        """Have it start a child; returns the number under which it will report that it has."""
        by_exec = (_PROGRAM % "process", _flags(), self._environment(child.slot))
        self._numbers += 1
        self.forking[self._numbers] = child
        command = Fork(None if self._forks else by_exec)
        self._control.send(Frame(command, self._numbers, (), child.descriptors()))
        return self._numbers

    def guard_limits(self) -> None:
        """Have it look at the limits of its children's runs from now on."""
        self._control.send(Frame(Guard()))

    def hear_last_words(self) -> None:
        """Take what it sent before it was lost."""
        self._control.drain()

    # --- in a helper thread: it may take a while -------------------------------------------------

    def kill(self) -> None:
        """Kill it with all its descendants, wherever they are now, and reap it.

        If a child ended after its template, and before anybody could handle that, the daemons of its tasks
        are left to the system.
        """
        # once the template has ended, nobody would own what dead children have left behind
        end_tree(self.pid, _TREE_PATIENCE, self._popen.send_signal)
        self._popen.wait()
        for child in list(self.children.values()):
            child.kill_tree()
        end_marked(f"{_MARK}={self._mark}".encode(), _TREE_PATIENCE)

    def wait(self) -> None:
        """Wait until it has ended as it was told to; kill it if it was stopped, or is still importing."""
        try:
            self._popen.wait(_END_PATIENCE if self.ready else 0)
        except subprocess.TimeoutExpired:
            self.kill()

    # --- its end ---------------------------------------------------------------------------------

    def is_stopped(self) -> bool:
        """Whether somebody has stopped it."""
        return is_stopped(self.pid)

    def ended_itself(self) -> bool:
        """Whether it has ended, not by a signal, before it could fork: another template would do so too."""
        code = self._popen.poll()
        return not self.ready and code is not None and code >= 0

    def failure(self, limit: float) -> SlotStartFailed:
        """Why no child could be started with it; it had `limit` seconds for its imports."""
        if self.hangs:
            what = (
                f"was not ready after {limit:g} s, and was killed: a module of pre_import may hang when it "
                "is imported."
            )
        else:
            what = (
                f"ended with {_end(self._popen.returncode)}: a module of pre_import may end the process that "
                "imports it, somebody may kill it, or the machine may be short of memory."
            )
        return SlotStartFailed(f"the process that starts slots' processes {what}", self.output.tail())

    def dismiss(self) -> None:
        """Have it kill what is left, and end."""
        self._control.close()

    def close(self) -> None:
        """It has ended."""
        self._control.close()
        self.output.close()


def _flags() -> list[str]:
    """The options that this interpreter was started with, as multiprocessing passes them on."""
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return flags


def _end(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"

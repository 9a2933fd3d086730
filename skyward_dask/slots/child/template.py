"""The process that forks a pool's children, and ends every process that they leave behind.

```
 worker's loop ── Import, Fork + descriptors ───────▶ template ── fork ──▶ child, child, …
               ◀─ Imported, Forked + pidfd, Exited ─          ◀─ SIGCHLD, orphans
```

The template has imported what the children need, and has one thread: so a fork takes milliseconds and is
safe. It is also the *guardian*: a subreaper, which inherits the orphans of dead children, whatever sessions
they have created; and it enforces the limits of runs while the worker's loop is blocked. When the worker has
ended, it kills until nothing is left. Where forking is not safe, the same process starts children by exec,
and guards them just as well.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path

from skyward_dask.slots.channel import Channel, ChannelClosed
from skyward_dask.slots.child import process
from skyward_dask.slots.child.limit_guard import LimitGuard
from skyward_dask.slots.child.prompt import print_promptly
from skyward_dask.slots.child.randomness import Generators
from skyward_dask.slots.features import Feature, available
from skyward_dask.slots.framing import Frame
from skyward_dask.slots.template_messages import Exited, Fork, Forked, Guard, Import, Imported, NotForked
from skyward_dask.slots.trees import become_subreaper, end_descendants, has_tracker, wake_at_parents_death

#: Native threads that are safe across a fork: jemalloc (Arrow's allocator) stops its own before a fork, and
#: restarts it afterwards.
_HARMLESS = frozenset({"jemalloc_bg_thd"})
#: Seconds to wait until the processes that a dead child left behind have ended; what is stuck in the kernel
#: ends later.
_PATIENCE = 1.0
#: The same at the end, when there is nothing else to do.
_LAST_PATIENCE = 60.0


def main(control: int, worker: int) -> None:
    """Serve until the worker has ended; in a forked process, be a child until its work is done."""
    os.set_inheritable(control, False)
    process.reset_signals()
    print_promptly()
    become_subreaper()
    wake_at_parents_death()
    if os.getppid() != worker:  # the worker died before we asked
        return
    be_child = _Template(Channel(socket.socket(fileno=control)), worker).serve()
    be_child()


class _Template:
    """Reads from the worker, forks, reaps."""

    def __init__(self, control: Channel, worker: int) -> None:
        self._control = control
        self._generators = Generators()
        self._children: set[int] = set()
        self._guard = LimitGuard()
        self._woken, self._wake = os.pipe()
        for fd in (self._woken, self._wake):
            os.set_blocking(fd, False)
        signal.signal(signal.SIGCHLD, _do_nothing)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        self._poll = select.poll()
        self._watched = [control.socket.fileno(), self._woken]
        if available(Feature.PIDFD):  # there is no end of file while a fork of the worker lives
            self._watched.append(os.pidfd_open(worker))
        for fd in self._watched:
            self._poll.register(fd, select.POLLIN)

    def serve(self) -> Callable[[], None]:
        """Do what the worker says, until it ends; returns only in a child, with what the child must do."""
        with suppress(ChannelClosed):
            self._control.send(Imported(_prepare(self._control.receive(), self._generators)))
            while True:
                ready = {fd for fd, _ in self._poll.poll(self._guard.pause)}
                if self._woken in ready:
                    self._reap()
                if self._watched[0] in ready:
                    if (be_child := self._listen()) is not None:
                        return be_child
                elif len(ready - {self._woken}):
                    break  # the worker's pidfd
                self._guard.look()
        end_descendants(os.getpid(), _LAST_PATIENCE)
        os._exit(0)

    def _listen(self) -> Callable[[], None] | None:
        """Handle all frames that have come: `poll` doesn't wake for one that was read along with another."""
        while True:
            frame, be_child = self._control.receive(), None
            if isinstance(frame.message, Guard):
                self._guard.begin()
            else:
                be_child = self._fork(frame)
            if be_child is not None or not self._control.has_frame:
                return be_child

    def _fork(self, frame: Frame) -> Callable[[], None] | None:
        try:
            pid = os.fork()
        except OSError as error:
            self._control.send(NotForked(error.errno or 0), frame.number)
            pid = -1
        if pid == 0:
            assert isinstance(frame.message, Fork)
            return self._in_child(frame.message, list(frame.descriptors))
        runs, answers, page, *output = frame.descriptors
        for fd in (runs, answers, *output, *([page] if pid < 0 else [])):
            os.close(fd)
        if pid > 0:
            self._children.add(pid)
            self._guard.add(pid, page)
            self._report_fork(frame.number, pid)
        return None

    def _report_fork(self, number: int, pid: int) -> None:
        if not available(Feature.PIDFD):
            self._control.send(Forked(pid), number)
            return
        pidfd = os.pidfd_open(pid)  # it isn't reaped yet: the pid is its own
        self._control.send(Forked(pid), number, descriptors=(pidfd,))
        os.close(pidfd)

    def _in_child(self, command: Fork, descriptors: list[int]) -> Callable[[], None]:
        """Close what belongs to the template; called in the forked process."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._control.close()
        self._guard.close()
        for fd in (*self._watched[1:], self._wake):
            os.close(fd)
        *own, stdout, stderr = descriptors
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        os.close(stdout)
        os.close(stderr)
        os.setpgid(0, 0)  # Ctrl-C at the worker's terminal is for the worker to handle
        if command.program is None:
            runs, answers, page = own
            return partial(process.main, runs, answers, page, self._generators)
        return partial(_exec, own, *command.program)

    def _reap(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._woken, 4096)
        while (pid := _dead_child()) is not None:
            if pid in self._children:
                self._bury(pid)
            else:
                os.waitpid(pid, 0)

    def _bury(self, pid: int) -> None:
        """Kill what a dead child has left behind, then report how it died."""
        # what a living child has started is below that child: what is below us was the dead child's
        self._children.discard(pid)
        self._guard.remove(pid)
        if not has_tracker(os.getpid(), self._children):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)  # before it is reaped: until then no other group has its id
        end_descendants(os.getpid(), _PATIENCE, spared=self._children)
        _, status = os.waitpid(pid, 0)
        self._control.send(Exited(pid, os.waitstatus_to_exitcode(status)))


def _do_nothing(*_: object) -> None:
    """A handler, so that the signal wakes `poll` through the pipe."""


def _dead_child() -> int | None:
    """The process id of a dead child that hasn't been reaped yet."""
    with suppress(ChildProcessError):
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return None if found is None else found.si_pid
    return None


def _prepare(frame: Frame, generators: Generators) -> bool:
    """Import what future children can share; returns whether they can be forked."""
    wanted = frame.message
    assert isinstance(wanted, Import)
    if wanted.modules is None or not available(Feature.FORK):
        return False
    sys.path[:] = wanted.path
    gc.disable()  # the imports leave hardly any garbage, and take a fifth longer with the collector on
    with generators.noted():
        for module in wanted.modules:
            # a child imports it again, and then its slot reports what is wrong
            with suppress(Exception):
                import_module(module)
        if wanted.backend:
            with suppress(Exception):  # likewise
                import_module(wanted.backend.partition(":")[0]).prepare(bytes(frame.parts[0]))
    gc.freeze()  # what exists now stays shared: no collection in a child writes to it
    gc.enable()
    return not _native_threads() - _HARMLESS


def _native_threads() -> set[str]:
    """The names of this process's threads, except for the calling one."""
    own = os.getpid()
    return {
        Path(f"/proc/self/task/{thread}/comm").read_text().strip()
        for thread in os.listdir("/proc/self/task")
        if int(thread) != own
    }


def _exec(descriptors: list[int], program: str, flags: list[str], environment: dict[str, str]) -> None:
    for fd in descriptors:
        os.set_inheritable(fd, True)
    code = program.format(arguments=", ".join(map(str, descriptors)))
    os.execve(sys.executable, [sys.executable, *flags, "-P", "-c", code], environment)

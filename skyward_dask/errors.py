"""The package's exceptions: one tree under `SkywardError`, each of which can be pickled.

Every message says what happened, what the cause may be, and what to do.
"""

from __future__ import annotations

import threading
from typing import Any

__all__ = [
    "BroadcastError",
    "BrokenBarrierError",
    "CollectionConflict",
    "CollectionLost",
    "ConfigurationError",
    "InstallError",
    "LockError",
    "NoWorkers",
    "NodeLeft",
    "OperatorError",
    "SerializationError",
    "SharedMemoryError",
    "SkywardError",
    "SlotCrashed",
    "SlotOutOfMemory",
    "SlotStartFailed",
    "StreamBroken",
    "StreamTaken",
    "TaskTimeout",
    "WorkerUnreachable",
]


class SkywardError(Exception):
    """The base of all errors that skyward_dask raises."""

    def __repr__(self) -> str:
        # logs show it: the first line, without the stacks that may follow
        return f"{type(self).__name__}({next(iter(str(self).splitlines()), '')!r})"

    def __reduce__(self) -> tuple[type, tuple[Any, ...], dict[str, Any]]:
        # without it, tblib, which pickles errors for Dask, creates those that are MemoryErrors too with
        # `MemoryError.__new__`, which refuses them
        return type(self), self.args, vars(self)


class ConfigurationError(SkywardError, ValueError):
    """A setting has an invalid value; the message lists the valid ones."""


class InstallError(SkywardError, RuntimeError):
    """Slots couldn't be set up, changed or removed on some workers, or the scheduler lacks the package."""


class OperatorError(SkywardError, TypeError):
    """A call was combined with something that its operator doesn't accept."""


class SerializationError(SkywardError, TypeError):
    """A value can't be sent to another process; the message says which one, and why."""


class SharedMemoryError(SkywardError, MemoryError):
    """There isn't enough shared memory for a large argument or result. Other tasks are not affected."""


class CollectionConflict(SkywardError, ValueError):
    """The name belongs to a collection of another kind, or with other options."""


class CollectionLost(SkywardError, RuntimeError):
    """The contents of a collection are lost: its worker is gone, or it was destroyed."""


class NoWorkers(SkywardError, RuntimeError):
    """No worker can host a new collection: none is running, or all refuse it; the message says why."""


class LockError(SkywardError, RuntimeError):
    """A lock was released by a task, actor or client that doesn't hold it."""


class BrokenBarrierError(SkywardError, threading.BrokenBarrierError):
    """A barrier was broken before or while the caller waited."""


class StreamBroken(SkywardError, RuntimeError):
    """A stream has no further items, though it hasn't ended: its worker or its slot's process was lost."""


class StreamTaken(SkywardError, RuntimeError):
    """A stream has, or had, another reader."""


#: Why a forked process can't use collections.
FORKED = (
    "this process was forked from one that uses collections, and has no connection of its own: use them in "
    "that one, or create a dask.distributed.Client here and pass it as client=."
)


class WorkerUnreachable(SkywardError, RuntimeError):
    """A process that a task forked, or a thread that has outlived its task, needed the worker."""


class NodeLeft(SkywardError, RuntimeError):
    """The node that a call was sent to has left the cluster before it answered.

    Attributes
    ----------
    node : str
        The address of its worker.
    """

    def __init__(self, node: str) -> None:
        super().__init__(node)
        self.node = node

    def __str__(self) -> str:
        return (
            f"the node at {self.node} has left the cluster before it answered, and the call was for that "
            "node alone; it may have taken effect there. `compute.nodes` has the nodes that are there now."
        )


class BroadcastError(SkywardError, RuntimeError):
    """Some nodes of a broadcast failed, or left before they answered.

    Attributes
    ----------
    errors : dict
        Error by number of the node.
    results : dict
        The result of each other node, by its number.
    """

    def __init__(self, message: str, errors: dict[int, BaseException], results: dict[int, Any]) -> None:
        super().__init__(message, errors, results)
        self.errors, self.results = errors, results

    def __str__(self) -> str:
        return str(self.args[0])


class SlotStartFailed(SkywardError, RuntimeError):
    """A slot's process couldn't start, or died in `pre_import` or `initializer`.

    Attributes
    ----------
    stderr : str
        The last lines that the process wrote to its stderr.
    worker : str or None
        The address of the slot's worker; None for a pool without Dask.
    """

    worker: str | None = None

    def __init__(self, message: str, stderr: str = "") -> None:
        super().__init__(message, stderr)
        self.stderr = stderr

    def __str__(self) -> str:
        message = f"{self.worker}: {self.args[0]}" if self.worker else str(self.args[0])
        return f"{message}\nIts stderr ends with:\n{self.stderr}" if self.stderr else message


class SlotCrashed(SkywardError, RuntimeError):
    """The process of a slot died while it was running a task. Other tasks are not affected.

    Attributes
    ----------
    key : str
        The task.
    worker : str or None
        The address of the slot's worker; None for a pool without Dask.
    pid : int
        The process that died.
    exitcode : int or None
        Its exit code; None if a signal ended it.
    signal : str or None
        The signal that ended it, for example ``"SIGSEGV"``.
    stack : str
        The Python stack at the crash, if faulthandler could write one.
    stderr : str
        The last lines that the process wrote to its stderr.
    """

    worker: str | None = None

    def __init__(
        self,
        key: str,
        pid: int,
        exitcode: int | None = None,
        signal: str | None = None,
        stack: str = "",
        stderr: str = "",
    ) -> None:
        super().__init__(key, pid, exitcode, signal, stack, stderr)
        self.key = key
        self.pid = pid
        self.exitcode = exitcode
        self.signal = signal
        self.stack = stack
        self.stderr = stderr

    def __str__(self) -> str:
        if self.signal is not None:
            how = f"was ended by {self.signal}"
        elif self.exitcode is not None:
            how = f"ended with exit code {self.exitcode}"
        else:
            how = "ended with an unknown exit code"
        return (
            f"process {self.pid} of the slot that ran task {self.key!r}{_on(self.worker)} {how}. The task "
            "may have called sys.exit or os._exit, crashed in native code, or been killed. Other tasks are "
            "not affected. See this exception's .stderr and .stack; run it with executor='thread' to debug "
            "it in place."
        )


class SlotOutOfMemory(SlotCrashed, MemoryError):
    """A task allocated more memory than its `memory_limit` allows, and its process was killed.

    Attributes
    ----------
    limit, peak : int
        In bytes: the limit, and what the task had allocated.
    """

    def __init__(self, crash: SlotCrashed, limit: int, peak: int) -> None:
        super().__init__(*crash.args)
        self.args = crash, limit, peak
        self.limit = limit
        self.peak = peak

    def __str__(self) -> str:
        return (
            f"task {self.key!r} was ended{_on(self.worker)}: process {self.pid} of its slot, with all that "
            f"it started, had {self.peak:,} bytes of its own, and its memory_limit is {self.limit:,}. Other "
            "tasks are not affected. Give it a higher limit (Worker(memory_limit=...) or "
            "options(memory_limit=...)), or smaller pieces of work."
        )


class TaskTimeout(SkywardError, TimeoutError):
    """A task ran longer than its timeout, and was ended.

    Attributes
    ----------
    key : str
        The task.
    seconds : float
        The timeout.
    stack : str
        The stacks of its threads, as faulthandler writes them; empty if the process didn't answer.
    worker : str or None
        The address of the slot's worker; None for a pool without Dask.
    """

    worker: str | None = None

    def __init__(self, key: str, seconds: float, stack: str = "") -> None:
        super().__init__(f"task {key!r} ran longer than {seconds} s")
        self.args = key, seconds, stack  # not by __init__: of several, an OSError makes errno and strerror
        self.key = key
        self.seconds = seconds
        self.stack = stack

    def __str__(self) -> str:
        where = f"\nIts stack was:\n{self.stack.rstrip()}" if self.stack else ""
        return (
            f"task {self.key!r} ran longer than its timeout of {self.seconds:g} s and was ended"
            f"{_on(self.worker)}. Other tasks are not affected. Give it more time (Worker(timeout=...), "
            f"options(timeout=...) or .with_timeout()), or find out what it waits for.{where}"
        )


def _on(worker: str | None) -> str:
    return f" on {worker}" if worker else ""


# tracebacks show the public names, even if nobody has imported them from the package yet
for _name in __all__:
    globals()[_name].__module__ = "skyward_dask"

"""The outcome of a run that was ended by a verdict, or by the death of its child."""

from __future__ import annotations

from concurrent.futures import CancelledError

from skyward_dask.errors import SlotCrashed, SlotOutOfMemory, TaskTimeout
from skyward_dask.slots.child_process import ChildProcess
from skyward_dask.slots.exceptions import load_exception
from skyward_dask.slots.runs import Run, Verdict


class PoolClosed(RuntimeError):
    """The pool is shut down and takes no more calls."""


class RunEnded(CancelledError):
    """The run was stopped, or its pool was ended: it has no outcome of its own."""


def error_of(run: Run, child: ChildProcess) -> BaseException:
    """The error of a run that got a verdict, or whose child has died."""
    if run.verdict in (Verdict.STOPPED, Verdict.POOL_ENDED):
        return RunEnded(f"{run.key}: {run.verdict.value}")
    if run.raised is not None:  # whatever came then, came of the health check
        return load_exception(run.raised)
    if run.verdict is Verdict.TIMED_OUT:
        assert run.timeout is not None
        return TaskTimeout(run.key, run.timeout, run.stack)
    death = child.death
    assert death is not None
    crash = SlotCrashed(run.key, child.pid, death.exitcode, death.signal, death.stack, death.stderr)
    if run.verdict is Verdict.OUT_OF_MEMORY:
        assert run.memory_limit is not None
        return SlotOutOfMemory(crash, run.memory_limit, run.peak)
    return crash

"""Runs one task in each slot of a pool, to see whether each slot works.

No task of a probe ends before all of them have started, so no slot gets two of them.
"""

from __future__ import annotations

import asyncio
from typing import Any

from skyward_dask.extension.child.task import report_in
from skyward_dask.slots.memory.forms import Form
from skyward_dask.slots.outcomes import RunEnded
from skyward_dask.slots.pool import Pool
from skyward_dask.slots.runs import Request, Run
from skyward_dask.slots.statistics import SlotStatistics


class _Muster:
    """Answers the tasks that have reported in when the last one has done so, or when it is released."""

    def __init__(self, expected: int) -> None:
        self._missing = expected
        self._all_here: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def serve(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> asyncio.Future[None]:
        self._missing -= 1
        if not self._missing:
            self.release()
        return self._all_here

    def release(self) -> None:
        if not self._all_here.done():
            self._all_here.set_result(None)


async def probe(pool: Pool, slots: int, patience: float) -> list[tuple[int, str]]:
    """Say what is wrong with each slot of a pool, by its index; empty text for a slot that works.

    Parameters
    ----------
    pool : Pool
    slots : int
        The pool's size.
    patience : float
        Seconds to wait for a busy slot before it is left alone. After twice as long, tasks that haven't ended
        are stopped, and the processes of their slots are replaced.
    """
    loop = asyncio.get_running_loop()
    muster = _Muster(slots)
    runs = [Run(Request("skyward-check", report_in, serve=muster.serve)) for _ in range(slots)]
    over = [_over(run) for run in runs]

    def stop_waiting() -> None:
        for run in runs:
            if run.child is None:
                pool.stop(run)
        muster.release()

    def stop_all() -> None:
        for run in runs:
            pool.stop(run)

    timers = [loop.call_later(patience, stop_waiting), loop.call_later(2 * patience, stop_all)]
    for run in runs:
        pool.start(run)
    await asyncio.wait(over)
    for timer in timers:
        timer.cancel()
    outcomes = [run.outcome.load() if isinstance(run.outcome, Form) else run.outcome for run in runs]
    pids = {outcome for outcome in outcomes if isinstance(outcome, int)}
    errors = [o for o in outcomes if isinstance(o, Exception) and not isinstance(o, RunEnded)]
    return [(slot.index, _verdict(slot, pids, errors, patience)) for slot in pool.snapshots()]


def _over(run: Run) -> asyncio.Future[None]:
    over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    run.when_over(lambda _: over.set_result(None))
    return over


def _verdict(slot: SlotStatistics, pids: set[int], errors: list[Exception], patience: float) -> str:
    if slot.pid in pids:
        return ""
    if errors:
        return repr(errors[0])
    doing = (
        f"it is {slot.state} with {slot.task!r}" if slot.task else "its process was stuck, and is replaced"
    )
    return f"took no task within {patience:g} s: {doing}"

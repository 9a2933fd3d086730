"""What a task asks of its worker: a numbered frame from its child, and the answer to it.

What is asked is carried out on the pool's loop, by `Request.serve`; what takes its time is a future there,
and is answered later.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import Any

from skyward_dask.slots.child_process import ChildProcess
from skyward_dask.slots.framing import Frame
from skyward_dask.slots.pickling import dump_exception, dumps, loads, unpicklable


def serve(child: ChildProcess, frame: Frame) -> None:
    """Carry out a request, and answer it now or later."""
    try:
        value = _carry_out(child, frame)
    except Exception as error:  # it is the task's to see
        child.answer(frame.number, False, dump_exception(error))
        return
    if isinstance(value, Future) and not value.done():
        value = asyncio.wrap_future(value)
    if isinstance(value, Future):
        _answer_with_outcome(child, frame.number, value)
    elif isinstance(value, asyncio.Future):
        value.add_done_callback(partial(_answer_with_outcome, child, frame.number))
    else:
        _answer_with(child, frame.number, value)


def _carry_out(child: ChildProcess, frame: Frame) -> Any:
    number, name = frame.envelope
    request = child.run.request if child.run is not None else None
    if request is None or not child.is_asking(number):
        raise RuntimeError(f"{name} needs the worker, and the task that asked has ended")
    if request.serve is None:
        raise RuntimeError(f"{name} needs a worker, and nobody here serves it")
    args, kwargs = loads(frame.parts)
    return request.serve(name, args, kwargs)


def _answer_with(child: ChildProcess, number: int, value: object) -> None:
    try:
        done, parts = True, dumps(value)
    except Exception as error:
        done, parts = False, dump_exception(unpicklable([("the worker's answer", value)], error))
    child.answer(number, done, parts)


def _answer_with_outcome(
    child: ChildProcess, number: int, outcome: Future[Any] | asyncio.Future[Any]
) -> None:
    if outcome.cancelled():
        child.answer(number, False, dump_exception(CancelledError()))
    elif (error := outcome.exception()) is not None:
        child.answer(number, False, dump_exception(error))
    else:
        _answer_with(child, number, outcome.result())

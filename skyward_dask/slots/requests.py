"""A child's requests to its worker: a numbered frame, and the answer to it.

`Request.serve` carries out a task's request on the pool's loop; if that takes a while, it returns a future,
and the answer is sent later. Shared memory for a result is allocated in a helper thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Executor, Future
from contextlib import suppress
from functools import partial
from typing import Any

from skyward_dask.slots.aside import aside
from skyward_dask.slots.child_messages import Ask
from skyward_dask.slots.child_process import ChildProcess
from skyward_dask.slots.exceptions import dump_exception
from skyward_dask.slots.framing import Frame, Part
from skyward_dask.slots.pickling import dumps, loads, unloadable, unpicklable


def serve(child: ChildProcess, asked: Ask, frame: Frame) -> None:
    """Carry out a request, and answer it now or later."""
    try:
        value = _carry_out(child, asked, frame.parts)
    except BaseException as error:  # the task sees it, whatever it is
        _answer(child, frame.number, False, dump_exception(error))
        return
    answer = partial(_answer_with_outcome, child, frame.number)
    if isinstance(value, Future) and not value.done():
        # not through an asyncio future, which refuses StopIteration: the task would wait for ever
        value.add_done_callback(partial(_post, asyncio.get_running_loop(), answer))
    elif isinstance(value, Future):
        answer(value)
    elif isinstance(value, asyncio.Future):
        value.add_done_callback(answer)
    else:
        _answer_with(child, frame.number, value)


def _carry_out(child: ChildProcess, asked: Ask, parts: Sequence[Part]) -> Any:
    name = asked.name
    request = child.run.request if child.run is not None else None
    if request is None or not child.is_asking(asked.run):
        raise RuntimeError(f"{name} needs the worker, and the task that asked has ended")
    if request.serve is None:
        raise RuntimeError(f"{name} needs a worker, and there is none here")
    args, kwargs = _arguments(name, parts)
    return request.serve(name, args, kwargs)


def _answer(child: ChildProcess, number: int, done: bool, parts: Sequence[Part]) -> None:
    if number:  # otherwise nobody waits for an answer
        child.answering.answer(child.answers, number, done, parts)


def _post(loop: asyncio.AbstractEventLoop, answer: Callable[[Future[Any]], None], value: Future[Any]) -> None:
    """Answer at once if this is the loop's thread: to wake the loop takes longer than to answer."""
    if asyncio._get_running_loop() is loop:
        answer(value)
        return
    with suppress(RuntimeError):  # the loop has ended, and all children with it
        loop.call_soon_threadsafe(answer, value)


def _arguments(name: str, parts: Sequence[Part]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    try:
        args, kwargs = loads(parts)
    except BaseException as error:  # a user's `__setstate__` may raise anything
        raise unloadable(f"an argument of {name}", "in the worker", parts, error) from error
    return args, kwargs


def _answer_with(child: ChildProcess, number: int, value: object) -> None:
    try:
        done, parts = True, dumps(value)
    except BaseException as error:
        done, parts = False, dump_exception(unpicklable([("the worker's answer", value)], error))
    _answer(child, number, done, parts)


def _answer_with_outcome(
    child: ChildProcess, number: int, outcome: Future[Any] | asyncio.Future[Any]
) -> None:
    if outcome.cancelled():
        _answer(child, number, False, dump_exception(CancelledError()))
    elif (error := outcome.exception()) is not None:
        _answer(child, number, False, dump_exception(error))
    else:
        _answer_with(child, number, outcome.result())


async def grant(child: ChildProcess, run: int, sizes: Sequence[int], helpers: Executor) -> None:
    """Give a child the shared memory that its run's result needs."""
    # housekeeping may hold the lock of the shared memory for as long as it takes to free pages
    try:
        taken = await aside(helpers, child.lender.allocate, sizes)
    except Exception as error:  # the child raises it in its task
        child.lender.refuse(child.runs, run, error)
    else:
        child.lender.grant(child.runs, run, taken)

"""Users see their own frames: in tracebacks, in the worker's log and in stacks, as with Dask's threads."""

from __future__ import annotations

import asyncio
import os
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.config
import pytest
from distributed import Client

import skyward_dask as sky
from skyward_dask.extension.tracebacks import shortened

PACKAGE = str(Path(sky.__file__).parent)


def divide(x: int) -> float:
    return 1 / x


def chained(x: int) -> float:
    try:
        return divide(x)
    except ZeroDivisionError as error:
        raise ValueError("outer") from error


async def on_the_loop(x: int) -> float:
    return divide(x)


def look_up(key: object) -> object:
    return sky.dict("tracebacks")[key]


@sky.function
def op(x: int) -> float:
    return divide(x)


async def awaited(scheduler: str) -> None:
    async with Client(scheduler, asynchronous=True) as client:
        await client.submit(divide, 0)


def frames(run: Callable[[], object]) -> tuple[Exception, list[str]]:
    """What it raises, and the functions in its traceback behind Dask's own."""
    with pytest.raises((ArithmeticError, ValueError, LookupError)) as caught:
        run()
    found = traceback.extract_tb(caught.value.__traceback__)
    own = [frame for frame in found if frame.filename.startswith(PACKAGE)]
    names = [frame.name for frame in found]
    assert not own or own == found[-1:], names
    return caught.value, [name for name in names[2:] if name not in ("result", "_result")]


def test_results(shared_client: Client) -> None:
    """The frames of a task's own functions, of its chain too; of a collection's the last one at the most."""
    assert frames(shared_client.submit(divide, 0).result)[1] == ["divide"]
    address = shared_client.scheduler.address
    assert frames(lambda: asyncio.run(awaited(address)))[1][-1] == "divide"
    assert frames(shared_client.submit(on_the_loop, 0).result)[1] == ["on_the_loop", "divide"]
    error, shown = frames(shared_client.submit(chained, 0).result)
    assert error.__cause__ is not None and shown == ["chained"]
    causes = traceback.extract_tb(error.__cause__.__traceback__)
    assert [frame.name for frame in causes] == ["chained", "divide"]
    assert frames(shared_client.submit(look_up, 0).result)[1] == ["look_up", "_getitem"]


def test_results_of_operators(shared_client: Client) -> None:
    """The same, and nothing of what happened on the way there."""
    for run in (
        lambda: op(0) >> shared_client,
        lambda: (op(1) & op(0)) >> shared_client,
        (op(0) > shared_client).result,
        lambda: sky.gather(op(0)) >> shared_client,
        lambda: list(sky.gather(op(0), stream=True) >> shared_client),
    ):
        error, shown = frames(run)
        assert shown[-2:] == ["op", "divide"]
        assert error.__cause__ is None and error.__context__ is None
    with pytest.raises(sky.BroadcastError) as caught:
        op(0) @ shared_client
    cause = caught.value.__cause__
    assert isinstance(cause, ZeroDivisionError) and cause.__context__ is None


def test_the_log(shared_client: Client) -> None:
    """Of the worker: the same frames."""
    frames(shared_client.submit(divide, 0, key="logged").result)
    (log,) = shared_client.get_worker_logs().values()
    (text,) = (text for _, text in log if "Compute Failed" in text and "logged" in text)
    assert "in divide" in text and PACKAGE not in text


def wait_for_ever() -> None:
    threading.Event().wait()


def test_what_we_raise() -> None:
    """It says all in its message; a fault of ours keeps its last frame, or nobody would find it."""
    for error, left in ((sky.SkywardError("meant"), []), (AssertionError("not meant"), ["check_timeout"])):
        code = compile("def check_timeout(): raise error", f"{PACKAGE}/api/handles.py", "exec")
        scope: dict[str, Any] = {"error": error}
        exec(code, scope)
        with pytest.raises(type(error)) as caught, shortened():
            scope["check_timeout"]()
        found = traceback.extract_tb(caught.value.__traceback__)
        assert [frame.name for frame in found if frame.filename.startswith(PACKAGE)] == left


def test_dasks_switch_is_ours() -> None:
    """Who tells Dask to show all frames sees ours too."""
    code = compile("def deep(): raise ValueError('deep')", f"{PACKAGE}/slots/pool.py", "exec")
    scope: dict[str, Any] = {}
    exec(code, scope)
    for paths, shown in (([], ["lead", "deep"]), (["nothing"], ["deep"])):
        lead = compile("def lead(): deep()", f"{PACKAGE}/extension/node.py", "exec")
        exec(lead, scope)
        with (
            dask.config.set({"admin.traceback.shorten": paths}),
            pytest.raises(ValueError, match="deep") as caught,
            shortened(),
        ):
            scope["lead"]()
        names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        assert names[-len(shown) :] == shown and ("lead" in names) == ("lead" in shown)


@pytest.mark.crash
def test_stacks_of_what_was_ended(shared_client: Client, executor: str) -> None:
    """They are the task's."""
    if executor == "thread":
        return  # it has none to end
    with pytest.raises(sky.SlotCrashed) as crash:
        shared_client.submit(os.abort).result()
    assert "Fatal Python error: Aborted" in crash.value.stack and PACKAGE not in crash.value.stack
    with sky.options(timeout=0.2), pytest.raises(sky.TaskTimeout) as timeout:
        shared_client.submit(wait_for_ever).result()
    assert "in wait_for_ever" in timeout.value.stack and PACKAGE not in timeout.value.stack

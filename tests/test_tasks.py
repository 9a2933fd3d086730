"""What a Dask user calls in a task, in thread slots and in process slots: one suite over both."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import psutil
import pytest
from dask import delayed
from dask._task_spec import Alias, DataNode, Task, TaskRef
from distributed import Client, get_worker

import skyward_dask as sky


class Custom(Exception):
    """Has more than its text."""

    def __init__(self, text: str, number: int = 0) -> None:
        super().__init__(text)
        self.number = number


def worker_pid(client: Client) -> int:
    (pid,) = client.run(os.getpid).values()
    return int(pid)


def test_tasks_run_where_they_should(shared_client: Client, executor: str) -> None:
    """Threads share the worker's pid; processes descend from it."""
    pids = set(shared_client.gather(shared_client.map(lambda _: os.getpid(), range(20), pure=False)))
    if executor == "thread":
        assert pids == {worker_pid(shared_client)}
    else:
        assert worker_pid(shared_client) not in pids and len(pids) <= 2
        descendants = psutil.Process(worker_pid(shared_client)).children(recursive=True)
        assert pids <= {process.pid for process in descendants}


def test_a_task_is_known_by_its_key_in_the_graph(shared_client: Client) -> None:
    """Some graphs have tasks that call themselves otherwise (dask.dataframe's ``isin(range(3))``)."""

    async def later(number: int) -> int:
        return number + 1

    graph = {
        "renamed-1": DataNode("other", 1),
        "renamed-2": Task("other", lambda number: number + 1, TaskRef("renamed-1")),
        "renamed-3": Alias("other", "renamed-2"),
        "renamed-4": Task("other", later, TaskRef("renamed-3")),
    }
    assert shared_client.get(graph, list(graph)) == [1, 2, 2, 3]


def test_slots_are_truthful(shared_client: Client) -> None:
    """Client, scheduler and cluster object say two."""
    (address,) = shared_client.scheduler_info()["workers"]
    assert shared_client.nthreads() == {address: 2}
    assert shared_client.scheduler_info()["workers"][address]["nthreads"] == 2
    assert "threads=2" in repr(shared_client.cluster)
    totals = shared_client.run_on_scheduler(
        lambda dask_scheduler: (
            dask_scheduler.total_nthreads,
            [host["nthreads"] for host in dask_scheduler.host_info.values()],
        )
    )
    assert totals == (2, [2])


def test_dependencies_and_closures(shared_client: Client) -> None:
    """Results are arguments; functions travel by value where they must, in both directions."""
    factor = 7
    made = shared_client.submit(lambda: lambda x: x * factor)
    assert shared_client.submit(lambda f, x: f(x), made, 6).result() == 42
    assert made.result()(2) == 14


def test_classes_of_a_script_cross(shared_client: Client) -> None:
    """Classes that no module has, in both directions and from task to task."""

    class Point:
        def __init__(self, x: int) -> None:
            self.x = x

    moved = shared_client.submit(lambda p: type(p)(p.x + 1), Point(1), pure=False)
    assert shared_client.submit(lambda p: p.x, moved).result() == 2
    assert moved.result().x == 2


def test_exceptions_cross_as_themselves(shared_client: Client) -> None:
    """Type, attributes, cause, and the frames of the task."""

    def fails() -> None:
        try:
            {}["missing"]
        except KeyError as error:
            raise Custom("text", 5) from error

    future = shared_client.submit(fails)
    with pytest.raises(Custom, match="text") as caught:
        future.result()
    assert caught.value.number == 5
    assert isinstance(caught.value.__cause__, KeyError)
    assert "in fails" in "".join(traceback.format_tb(future.traceback()))


class Odd(BaseException):
    """Not an Exception."""


def recurse(n: int = 0) -> int:
    return recurse(n + 1)


def look_up_for_ever() -> None:
    class Endless:
        def __getattr__(self, name: str) -> Any:
            return getattr(self, name + "_")

    Endless().name


def chain() -> None:
    error: Exception | None = None
    for number in range(1000):
        try:
            raise ValueError(number) from error
        except ValueError as caught:
            error = caught
    raise KeyError("last") from error


def group() -> None:
    raise ExceptionGroup("several", [Custom("text", 5), ExceptionGroup("inner", [KeyError("a")])])


def fail(error: BaseException) -> None:
    raise error


async def fail_on_the_loop(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("call", [fail, fail_on_the_loop])
@pytest.mark.parametrize("error", [GeneratorExit("odd"), Odd("odd"), asyncio.CancelledError("odd")])
def test_what_is_no_exception_is_an_error(shared_client: Client, call: Any, error: BaseException) -> None:
    """Whoever waits for the result gets one; the slot runs on."""
    future = shared_client.submit(call, error, pure=False)
    with pytest.raises(sky.SkywardError, match=r"'odd'.*not an Exception") as caught:
        future.result(timeout=200)
    assert type(caught.value.__cause__) is type(error)
    assert shared_client.submit(abs, -1, pure=False).result() == 1


class Unshowable(Exception):
    """Its author has made a mistake."""

    def __str__(self) -> str:
        raise LookupError("no text")


def fail_without_text() -> None:
    raise Unshowable


async def fail_without_text_on_the_loop() -> None:
    raise Unshowable


@pytest.mark.parametrize("call", [fail_without_text, fail_without_text_on_the_loop])
def test_an_exception_that_cannot_be_shown(shared_client: Client, call: Any) -> None:
    """It arrives as the cause of an error that can; the slot runs on."""
    future = shared_client.submit(call, pure=False)
    with pytest.raises(sky.SkywardError, match=r"Unshowable, which can't be shown: .*LookupError") as caught:
        future.result(timeout=60)
    assert type(caught.value.__cause__) is Unshowable
    assert shared_client.submit(abs, -1, pure=False).result() == 1


class Unpicklable(Exception):
    """Whoever pickles it is interrupted."""

    def __reduce__(self) -> Any:
        raise KeyboardInterrupt


def fail_to_travel() -> None:
    raise Unpicklable("whoever pickles this")


async def fail_to_travel_on_the_loop() -> None:
    raise Unpicklable("whoever pickles this")


@pytest.mark.parametrize("call", [fail_to_travel, fail_to_travel_on_the_loop])
def test_an_exception_that_interrupts_who_pickles_it(shared_client: Client, call: Any) -> None:
    """Dask's worker would end with it."""
    pid, future = worker_pid(shared_client), shared_client.submit(call, pure=False)
    with pytest.raises(sky.SkywardError, match=r"Unpicklable.* raises KeyboardInterrupt"):
        future.result(timeout=60)
    assert worker_pid(shared_client) == pid


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_would_end_a_worker_is_an_error(shared_client: Client, kind: type[BaseException]) -> None:
    """In a thread too, where Dask's worker would end; in a group as well."""
    pid = worker_pid(shared_client)
    for make in (kind, lambda: BaseExceptionGroup("several", [kind()])):
        future = shared_client.submit(lambda make: fail(make()), make, pure=False)
        with pytest.raises(sky.SkywardError, match=r"not an Exception|ended with exit code"):
            future.result(timeout=200)
    assert worker_pid(shared_client) == pid


@pytest.mark.parametrize("call", [recurse, look_up_for_ever])
def test_recursion_without_end(shared_client: Client, call: Any) -> None:
    """Arrives, with the frames at both ends."""
    future = shared_client.submit(call, pure=False)
    with pytest.raises(RecursionError):
        future.result(timeout=200)
    assert 10 < len(traceback.extract_tb(future.traceback())) < 100


def test_long_chains_and_groups(shared_client: Client) -> None:
    """Arrive, with what came first and what came last; members as themselves."""
    error = shared_client.submit(chain).exception(timeout=200)
    links = [error]
    while links[-1].__cause__ is not None:
        links.append(links[-1].__cause__)
    assert isinstance(error, KeyError) and links[1].args == (999,) and links[-1].args == (0,)
    assert any("left out" in note for link in links for note in getattr(link, "__notes__", ()))
    several = shared_client.submit(group).exception(timeout=200)
    assert isinstance(several, ExceptionGroup) and several.exceptions[0].number == 5
    assert isinstance(several.exceptions[1].exceptions[0], KeyError)


def test_retries(shared_client: Client, tmp_path: Any) -> None:
    """They count as in Dask."""

    def third_time(folder: str) -> int:
        tries = len(os.listdir(folder))
        open(f"{folder}/{tries}", "w").close()
        if tries < 2:
            raise OSError("not yet")
        return tries

    assert shared_client.submit(third_time, str(tmp_path), retries=2).result() == 2


def test_async_tasks_run_on_the_loop(shared_client: Client) -> None:
    """As in Dask, whatever the slots are."""

    async def where() -> tuple[int, str]:
        return os.getpid(), threading.current_thread().name

    pid, _ = shared_client.submit(where, pure=False).result()
    assert pid == worker_pid(shared_client)


def meet(name: str, way: str, end: str) -> bytes:
    """Say that it runs, wait until it may end, and end in that way."""
    Path(name).write_text(str(os.getpid()))
    Path(way).read_text()
    return os._exit(7) if end == "dies" else bytes(3 << 20)


async def hold_the_loop(name: str, way: str) -> str:
    meet(name, way, "returns")
    return "held"


@pytest.mark.crash
@pytest.mark.parametrize("end", ["returns", "dies"])
def test_a_blocked_loop_loses_no_run(shared_client: Client, executor: str, tmp_path: Path, end: str) -> None:
    """While a coroutine doesn't await, a run ends, with a large result or with its process."""
    if executor == "thread":
        pytest.skip("nothing ends but a process")
    running, may_end, held, free = paths = [str(tmp_path / str(number)) for number in range(4)]
    for path in paths:
        os.mkfifo(path)
    run = shared_client.submit(meet, running, may_end, end, pure=False)
    pid = int(Path(running).read_text())
    holds = shared_client.submit(hold_the_loop, held, free, pure=False)
    Path(held).read_text()
    waiting = shared_client.map(abs, range(10), pure=False)
    Path(may_end).write_text("")
    while end == "dies" and psutil.pid_exists(pid):
        time.sleep(0.01)
    Path(free).write_text("")
    if end == "dies":
        with pytest.raises(sky.SlotCrashed) as caught:
            run.result()
        assert (caught.value.pid, caught.value.exitcode) == (pid, 7)
    else:
        assert run.result() == bytes(3 << 20)
    assert holds.result() == "held" and shared_client.gather(waiting) == list(range(10))


def test_actors_are_built_in_the_worker(shared_client: Client) -> None:
    """They live there."""

    class Counter:
        def __init__(self) -> None:
            self.n = 0

        def add(self, n: int) -> tuple[int, int]:
            self.n += n
            return self.n, os.getpid()

    actor = shared_client.submit(Counter, actor=True).result()
    assert actor.add(2).result() == (2, worker_pid(shared_client))
    assert actor.add(3).result()[0] == 5


def test_a_call_that_was_not_run_is_refused(shared_client: Client) -> None:
    """`client.submit` of a `sky.function` would return the call; the error says what to submit."""
    double = sky.function(lambda n: 2 * n)
    for executor in ("thread", "process"):
        with sky.options(executor=executor), pytest.raises(sky.OperatorError, match=r"Submit f\.local"):
            shared_client.submit(double, 2, pure=False).result()
    assert shared_client.submit(double.local, 2).result() == 4


def test_get_worker(shared_client: Client) -> None:
    """Its address, name and id are the worker's."""

    def facts() -> tuple[Any, ...]:
        worker = get_worker()
        return worker.address, worker.name, worker.id, worker.local_directory

    expected = shared_client.run(
        lambda dask_worker: (
            dask_worker.address,
            dask_worker.name,
            dask_worker.id,
            dask_worker.local_directory,
        )
    )
    assert [shared_client.submit(facts, pure=False).result()] == list(expected.values())


def test_what_lives_in_the_worker_says_so(shared_client: Client, executor: str) -> None:
    """A clear error in a process slot, and no surprise in a thread."""
    future = shared_client.submit(lambda: get_worker().state.nthreads, pure=False)
    if executor == "thread":
        assert future.result() == 2
    else:
        with pytest.raises(AttributeError, match="lives in the worker"):
            future.result()


def test_the_task_knows_its_key(shared_client: Client) -> None:
    """As in Dask's threads."""

    def key() -> Any:
        from distributed.worker import thread_state

        return thread_state.key

    assert shared_client.submit(key, key="my-key").result() == "my-key"


def test_dask_configuration_reaches_tasks(shared_client: Client) -> None:
    """A task sees the worker's configuration."""
    assert shared_client.submit(dask.config.get, "skyward.worker.executor", pure=False).result() == "auto"


def test_collections_of_dask(shared_client: Client) -> None:
    """Arrays, data frames and delayed give what they give anywhere."""
    with dask.config.set(scheduler=shared_client):
        x = da.arange(1000, chunks=100)
        assert (x + x.T).sum().compute() == 999_000
        frame = pd.DataFrame({"a": np.arange(100) % 7, "b": np.arange(100.0)})
        grouped = dd.from_pandas(frame, npartitions=4).groupby("a").b.sum().compute().sort_index()
        pd.testing.assert_series_equal(grouped, frame.groupby("a").b.sum(), check_names=False)
        assert delayed(sum)([delayed(abs)(-n) for n in range(10)]).compute() == 45


def test_p2p_shuffle_merge_and_rechunk(shared_client: Client) -> None:
    """The user's part runs in a slot; what it asks of the worker is done there."""
    frame = pd.DataFrame({"a": np.arange(500) % 7, "b": np.arange(500.0)})
    left = dd.from_pandas(frame, npartitions=4)
    right = dd.from_pandas(frame.drop_duplicates("a"), npartitions=2)
    x = da.random.random((100, 100), chunks=(10, 100))
    with dask.config.set(scheduler=shared_client):
        shuffled = left.shuffle("a", shuffle_method="p2p").compute()
        pd.testing.assert_frame_equal(shuffled.sort_values("b").reset_index(drop=True), frame)
        merged = left.merge(right, on="a", shuffle_method="p2p").compute()
        expected = frame.merge(frame.drop_duplicates("a"), on="a")
        assert (len(merged), merged.b_y.sum()) == (len(expected), expected.b_y.sum())
        before, after = dask.compute(x, x.rechunk((100, 10), method="p2p"))
        np.testing.assert_array_equal(before, after)


def test_options_move_a_task(shared_client: Client, executor: str) -> None:
    """An annotation sends a task to the other kind of slot."""
    pid = worker_pid(shared_client)
    with sky.options(executor="thread"):
        assert shared_client.submit(os.getpid, pure=False).result() == pid
    with sky.options(executor="process"):
        assert shared_client.submit(os.getpid, pure=False).result() != pid
        assert delayed(os.getpid, pure=False)().compute(scheduler=shared_client) != pid


def test_no_silent_threads(shared_client: Client, executor: str) -> None:
    """Of what is the slots' to run, all runs where it should; the rest has its reason."""
    place = {"thread": "thread", "process": "child"}[executor]
    tasks = sky.statistics(shared_client).tasks
    elsewhere = {
        (where, why): n for (where, why), n in tasks.items() if why in ("plain", "p2p") and where != place
    }
    assert elsewhere == {} and tasks[place, "plain"] > 50
    assert {why for _, why in tasks} <= {
        "plain",
        "p2p",
        "async",
        "actor",
        "alias",
        "data",
        "annotated",
        "other-executor",
    }
    if executor == "process":
        assert tasks["child", "p2p"] > 0


def test_prints_reach_the_workers_log(shared_client: Client, executor: str) -> None:
    """With the key of the task, from a process slot."""
    if executor == "thread":
        pytest.skip("a thread prints to the worker's own stdout")
    key = shared_client.submit(print, "one line", key="printing", pure=False)
    key.result()
    (logs,) = shared_client.get_worker_logs().values()
    assert any("skyward_dask.task - INFO - printing: one line" in text for _, text in logs)

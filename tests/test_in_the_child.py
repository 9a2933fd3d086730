"""Dask from inside a task, in thread slots and in process slots: one suite over both, with one worker."""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import pandas as pd
import psutil
import pytest
from dask import delayed
from distributed import (
    Client,
    Event,
    Lock,
    MultiLock,
    Queue,
    Reschedule,
    Semaphore,
    Variable,
    as_completed,
    fire_and_forget,
    get_client,
    get_worker,
    rejoin,
    secede,
    span,
    wait,
    worker_client,
)
from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.metrics import context_meter
from distributed.utils_test import captured_logger

import skyward_dask as sky

#: Seconds that a test waits for something that takes well under one; generous for a loaded machine.
PATIENCE = 200


def increment(x: int) -> int:
    return x + 1


def run(client: Client, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The result of one task."""
    return client.submit(function, *args, pure=False, **kwargs).result(timeout=PATIENCE)


# --- a client in a task ------------------------------------------------------------------------------


class _Talker(SchedulerPlugin):
    """Says something to all clients while the next one is greeted."""

    name = "talker"

    def add_client(self, scheduler: Any, client: str) -> None:
        scheduler.loop.add_callback(scheduler.report, {"op": "cancelled-keys", "keys": ["no-such-key"]})
        scheduler.loop.add_callback(scheduler.remove_plugin, self.name)


def test_a_client_is_made_while_the_scheduler_talks_to_all(shared_client: Client) -> None:
    """Dask's own client, a worker's too, takes that for a defect of the scheduler, and stays half made."""

    def outer() -> int:
        with worker_client() as client:
            return int(client.submit(increment, 1, pure=False).result())

    shared_client.restart()
    shared_client.register_plugin(_Talker())
    with sky.options(executor="process"):
        assert run(shared_client, outer) == run(shared_client, outer) == 2


def test_a_task_submits_tasks(shared_client: Client) -> None:
    """`worker_client` gives its slot away while it waits."""

    def outer(x: int) -> int:
        with worker_client() as client:
            first = client.submit(increment, x)
            second = client.submit(increment, first)
            return int(sum(client.gather([first, second])))

    assert run(shared_client, outer, 1) == 5


def test_three_levels_deep(shared_client: Client) -> None:
    """More tasks wait for each other than there are slots: each has seceded."""

    def down(level: int) -> int:
        if not level:
            return 0
        futures = get_client().map(down, [level - 1] * 3, pure=False)
        secede()
        return 1 + max(get_client().gather(futures))

    assert run(shared_client, down, 3) == 3


def test_secede_and_rejoin(shared_client: Client) -> None:
    """Twice over, and a second secede in a row is a KeyError, as in Dask."""

    def task() -> list[str]:
        from distributed.threadpoolexecutor import thread_state

        found = []
        for _ in range(2):
            secede()
            try:
                secede()
            except KeyError:
                found.append("seceded")
            rejoin()
            found.append(str(threading.current_thread() in thread_state.executor._threads))
        return found

    assert run(shared_client, task) == ["seceded", "True"] * 2


def test_as_completed_and_errors(shared_client: Client) -> None:
    """Results come as they finish; an inner error is the outer task's to handle."""

    def outer() -> tuple[list[int], str]:
        with worker_client() as client:
            results = sorted(f.result() for f in as_completed(client.map(increment, range(5), pure=False)))
            try:
                client.submit(increment, "a").result()
            except TypeError as error:
                return results, type(error).__name__
        return results, ""

    assert run(shared_client, outer) == ([1, 2, 3, 4, 5], "TypeError")


def test_fire_and_forget(shared_client: Client) -> None:
    """The task outlives the one that started it, and that one's futures."""

    def outer() -> None:
        fire_and_forget(get_client().submit(lambda: Variable("fired").set(7), pure=False))

    run(shared_client, outer)
    assert Variable("fired", client=shared_client).get(timeout=PATIENCE) == 7


def test_futures_are_results_and_arguments(shared_client: Client) -> None:
    """A future that a task returns lives as long as the result that holds it."""

    def make() -> dict[str, Any]:
        return {"inner": get_client().submit(increment, 41, pure=False)}

    made = shared_client.submit(make, pure=False)
    wait(made, timeout=PATIENCE)
    assert run(shared_client, lambda found: found["inner"].result(), made) == 42


def test_scatter(shared_client: Client) -> None:
    """Values that a task scatters are its worker's, and can be looked at."""

    def task() -> tuple[int, bool]:
        with worker_client() as client:
            futures = client.scatter([1, 2, 3])
            inside = all(f.key in get_worker().data for f in futures)
            return client.submit(sum, futures).result(), inside

    assert run(shared_client, task) == (6, True)


def test_the_clients_loop_is_the_workers(shared_client: Client) -> None:
    """As in Dask: what asks one of them finds the other."""

    def task() -> bool:
        with worker_client() as client:
            return client.loop is get_worker().loop and client is get_worker().client

    assert run(shared_client, task)


@pytest.mark.parametrize(
    "collection",
    [
        pytest.param(lambda: da.ones(100, chunks=10).sum().compute(), id="array"),
        pytest.param(lambda: db.range(10, npartitions=2).sum().compute() + 55, id="bag"),
        pytest.param(lambda: delayed(sum)([delayed(increment)(99), 0]).compute(), id="delayed"),
        pytest.param(
            lambda: dd.from_pandas(pd.DataFrame({"a": range(25)}), npartitions=3).a.count().compute() * 4,
            id="dataframe",
        ),
        pytest.param(lambda: dask.compute(delayed(increment)(99))[0], id="compute"),
    ],
)
def test_collections_compute_on_the_cluster(shared_client: Client, collection: Callable[[], Any]) -> None:
    """``compute()`` in a task goes to the scheduler that the task came from."""

    def task() -> tuple[Any, bool]:
        with dask.config.set(scheduler=None):
            return collection(), dask.base.get_scheduler() == get_client().get

    assert run(shared_client, task) == (100, True)


def test_persisted_collections_are_results(shared_client: Client) -> None:
    """The pieces are held by the result."""
    persisted = shared_client.submit(lambda: da.ones(20, chunks=5).persist(), pure=False)
    assert run(shared_client, lambda x: float(x.sum().compute()), persisted) == 20


# --- the worker ------------------------------------------------------------------------------------------


def test_the_worker_knows_the_task(shared_client: Client) -> None:
    """Its key, and the scheduler's address."""

    def task() -> tuple[Any, str]:
        return get_worker().get_current_task(), get_worker().scheduler.address

    future = shared_client.submit(task, key="known")
    assert future.result(timeout=PATIENCE) == ("known", shared_client.scheduler.address)


def test_what_is_set_on_the_worker_stays(shared_client: Client) -> None:
    """In its process, for the next task there."""

    def count() -> int:
        worker = get_worker()
        worker.my_count = getattr(worker, "my_count", 0) + 1
        return int(worker.my_count)

    assert max(shared_client.gather(shared_client.map(lambda _: count(), range(6), pure=False))) >= 3


def test_events_prints_and_warnings_reach_the_client(shared_client: Client) -> None:
    """`log_event`, `distributed.print` and `distributed.warn` are the worker's words."""
    from distributed import print as remote_print
    from distributed import warn as remote_warn

    def task() -> None:
        get_worker().log_event("mine", {"x": 1})
        remote_print("hello")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            remote_warn("careful", RuntimeWarning)

    run(shared_client, task)

    def seen(topic: str) -> list[Any]:
        return [event[1] for event in shared_client.get_events(topic)]

    assert {k: v for k, v in seen("mine")[0].items() if k == "x"} == {"x": 1}
    assert seen("print")[-1]["args"] == ("hello",)
    assert b"careful" in seen("warn")[-1]["message"]


def test_a_message_that_cannot_be_sent_is_the_tasks_error(shared_client: Client) -> None:
    """As it is in a thread."""
    with pytest.raises(TypeError, match="msgpack"):
        run(shared_client, lambda: get_worker().log_event("mine", object()))


def test_plugins_of_the_worker(shared_client: Client) -> None:
    """Their methods run in the worker."""
    from distributed.diagnostics.plugin import WorkerPlugin

    class Plugin(WorkerPlugin):
        name = "counting"
        pid = 0

        def setup(self, worker: Any) -> None:
            self.pid = os.getpid()

        def add(self, x: int, y: int = 0) -> tuple[int, int]:
            return x + y, os.getpid()

    shared_client.register_plugin(Plugin())
    try:

        def task() -> Any:
            plugin = get_worker().plugins["counting"]
            return plugin.add(1, y=2), plugin.pid, "nothing" in get_worker().plugins

        (sum_, pid), attribute, other = run(shared_client, task)
        assert (sum_, pid, other) == (3, attribute, False)
        assert [pid] == list(shared_client.run(os.getpid).values())
    finally:
        shared_client.unregister_worker_plugin("counting")


# --- coordination ------------------------------------------------------------------------------------------


def test_locks_queues_variables_and_events(shared_client: Client) -> None:
    """Each is the same thing in the client and in a task."""
    queue, variable, event = (kind("shared", client=shared_client) for kind in (Queue, Variable, Event))

    def task() -> Any:
        with Lock("lock"), MultiLock(["a", "b"]), Semaphore(max_leases=1, name="semaphore"):
            Queue("shared").put(Variable("shared").get(timeout=PATIENCE) + 1)
        return Event("shared").wait(timeout=PATIENCE)

    future = shared_client.submit(task, pure=False)
    variable.set(1)
    assert queue.get(timeout=PATIENCE) == 2
    event.set()
    assert future.result(timeout=PATIENCE)


def test_coordination_objects_are_arguments(shared_client: Client) -> None:
    """They find their scheduler where they arrive."""
    lock, queue = Lock("my lock"), Queue("mine", client=shared_client)
    semaphore = Semaphore(max_leases=2, name="my semaphore")

    def task(lock: Any, queue: Any, semaphore: Any) -> int:
        with lock, semaphore:
            queue.put("x")
            return int(semaphore.get_value())

    assert run(shared_client, task, lock, queue, semaphore) == 1
    assert queue.get(timeout=PATIENCE) == "x"


def test_a_lock_excludes(shared_client: Client, tmp_path: Any) -> None:
    """Of many tasks that read, add and write, none loses its addition."""
    path = tmp_path / "number"
    path.write_text("0")

    def add() -> None:
        with Lock("file"):
            path.write_text(str(int(path.read_text()) + 1))

    shared_client.gather(shared_client.map(lambda _: add(), range(20), pure=False))
    assert path.read_text() == "20"


class Counter:
    """An actor."""

    n = 0

    def add(self, n: int) -> int:
        self.n += n
        return self.n


def test_actors_are_called_from_tasks(shared_client: Client) -> None:
    """Given as arguments, or made there."""
    actor = shared_client.submit(Counter, actor=True).result(timeout=PATIENCE)

    def use(actor: Any) -> tuple[int, int]:
        return actor.add(2).result(), actor.n

    assert run(shared_client, use, actor) == (2, 2)

    def make() -> int:
        with worker_client() as client:
            own = client.submit(Counter, actor=True, pure=False).result()
            return int(own.add(5).result())

    assert run(shared_client, make) == 5


# --- what Dask knows of a task ---------------------------------------------------------------------------


def test_reschedule(shared_client: Client, tmp_path: Any) -> None:
    """The task runs again."""
    marker = tmp_path / "ran"

    def task() -> str:
        if not marker.exists():
            marker.write_text("")
            raise Reschedule
        return "done"

    assert run(shared_client, task) == "done"


def test_spans_reach_inner_tasks(shared_client: Client) -> None:
    """A task knows its span, and what it submits belongs to it."""

    # names of their own: Dask gives all tasks of one name that are there the first one's span
    def spanned_inside() -> Any:
        return dask.get_annotations().get("span")

    def spanned() -> tuple[Any, Any]:
        inner = get_client().submit(spanned_inside, pure=False)
        secede()
        return dask.get_annotations()["span"]["name"], inner.result()["name"]

    with span("outer"):
        future = shared_client.submit(spanned, pure=False)
    assert [tuple(names) for names in future.result(timeout=PATIENCE)] == [("outer",), ("outer",)]


def test_annotations_in_a_task(shared_client: Client) -> None:
    """`dask.annotate` in a task is for the tasks that it submits."""

    def task() -> bool:
        with worker_client() as client, dask.annotate(executor="thread"):
            return (
                client.submit(os.getpid, pure=False).result() == client.run(os.getpid)[get_worker().address]
            )

    assert run(shared_client, task)


def test_metrics_are_those_of_the_tasks_process(shared_client: Client) -> None:
    """CPU time is the task's own; what it measures itself arrives too."""

    def busy() -> None:
        import time

        end = time.thread_time() + 0.3
        while time.thread_time() < end:
            pass
        time.sleep(0.2)  # it waits for something
        context_meter.digest_metric("mine", 3, "things")

    run(shared_client, busy)
    (metrics,) = shared_client.run(lambda dask_worker: dict(dask_worker.digests_total)).values()
    mine = {name[-2]: value for name, value in metrics.items() if name[2:3] == ("busy",)}
    assert mine["thread-cpu"] >= 0.29 and mine["thread-noncpu"] >= 0.19 and mine["mine"] == 3
    assert type(mine["mine"]) is int  # as in plain Dask


def test_the_profile_has_the_tasks_frames(shared_client: Client) -> None:
    """Of the function, not of a thread that waits for it."""

    def profiled_for_a_while() -> None:
        import time

        end = time.time() + 0.5
        while time.time() < end:
            sum(range(10_000))

    while not shared_client.profile(key="profiled_for_a_while")["count"]:
        run(shared_client, profiled_for_a_while)  # Dask shows nothing before its first cycle is over
    its_own = str(shared_client.profile(key="profiled_for_a_while"))
    assert "profiled_for_a_while" in its_own and "receive" not in its_own
    assert "profiled_for_a_while" in str(shared_client.profile())


def test_call_stacks_are_the_tasks(shared_client: Client, tmp_path: Any) -> None:
    """`client.call_stack` and `stack` show where it stands."""

    def standing_here(folder: Any) -> None:
        folder.joinpath("started").write_text("")
        Event("go on").wait(timeout=PATIENCE)

    os.mkfifo(tmp_path / "started")
    future = shared_client.submit(standing_here, tmp_path, pure=False)
    (tmp_path / "started").read_text()
    ((stack,),) = (found.values() for found in shared_client.call_stack([future]).values())
    assert any("in standing_here" in frame for frame in stack)
    assert sky.stack(future).lstrip().splitlines()[0].endswith("in standing_here")
    Event("go on", client=shared_client).set()
    future.result(timeout=PATIENCE)
    assert sky.stack(future) == ""
    with captured_logger("distributed.core") as log:
        future.cancel()
        assert sky.stack(future) == "" and not log.getvalue()
    asleep = shared_client.submit(time.sleep, PATIENCE)  # in C, it has no frame of its own
    while not (shown := sky.stack(asleep)):
        pass
    assert "self.func(" in shown and shown.count("File") == 1
    asleep.cancel()


def test_log_records_keep_their_level_and_name(shared_client: Client) -> None:
    """A record of a task is the worker's, as if a thread had logged it."""

    def task() -> None:
        logging.getLogger("distributed.worker").warning("a %s from a task", "warning")
        logging.getLogger("distributed.worker").debug("not seen")

    run(shared_client, task)
    (logs,) = shared_client.get_worker_logs().values()
    assert [level for level, text in logs if "a warning from a task" in text] == ["WARNING"]
    assert any("distributed.worker - WARNING - a warning from a task" in text for _, text in logs)
    assert not any("not seen" in text for _, text in logs)


def test_a_task_chooses_the_level_of_its_logger(shared_client: Client) -> None:
    """As it can in a thread."""

    def choose() -> None:
        logger = logging.getLogger("distributed.worker.chosen")
        logger.setLevel(logging.DEBUG)
        logger.debug("a detail from a task")

    run(shared_client, choose)
    (logs,) = shared_client.get_worker_logs().values()
    assert any("a detail from a task" in text for _, text in logs)


def test_log_records_are_whole(shared_client: Client) -> None:
    """Handlers in the worker find all that a record has; one with a bad format is no error of its task."""

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            try:
                message = record.getMessage()
            except TypeError:
                return
            self.records = [*getattr(self, "records", ()), {**vars(record), "message": message}]

    def keep() -> None:
        logging.getLogger("whole").addHandler(Keeper())

    def kept() -> list[dict[str, Any]]:
        (keeper,) = logging.getLogger("whole").handlers
        return [
            {name: str(value) if name == "exc_info" else value for name, value in record.items()}
            for record in keeper.records  # type: ignore[attr-defined]
        ]

    def task() -> tuple[int, int, str]:
        logger = logging.getLogger("whole")
        logger.warning("%d items", "three")
        try:
            raise ValueError("reason")
        except ValueError:
            extra = {"user": "me", "sizes": [1, {"a": 2}], "where": Path("/here")}
            logger.warning("%d items", 3, extra=extra, exc_info=True, stack_info=True)
        return os.getpid(), threading.get_ident(), threading.current_thread().name

    shared_client.run(keep)
    pid, thread, name = run(shared_client, task)
    ((record,),) = shared_client.run(kept).values()
    assert (record["process"], record["thread"], record["threadName"]) == (pid, thread, name)
    assert (record["message"], record["user"], record["sizes"]) == ("3 items", "me", [1, {"a": 2}])
    assert str(record["where"]) == "/here" and "in task" in record["stack_info"]
    assert record["funcName"] == "task" and 0 <= record["created"] % 1 - record["msecs"] / 1000 < 0.001
    assert "reason" in (record["exc_text"] or record["exc_info"])


def _forked(function: Callable[[], Any]) -> tuple[str, int]:
    """What a call in a process that is forked here gives, and that process's exit code."""
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            text = repr(function())
        except BaseException as error:
            text = type(error).__name__
        os.write(writer, text.encode())
        os._exit(7)
    os.close(writer)
    with os.fdopen(reader) as file:
        text = file.read()
    return text, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _log_and_print() -> None:
    for name in ("library", "distributed.worker"):
        logging.getLogger(name).warning("logged in a fork")
    print("printed in a fork")


def _with_a_client_of_its_own() -> int:
    with Client(get_worker().scheduler.address, set_as_default=False) as client:
        return int(client.submit(abs, -1).result())


@pytest.mark.parametrize(
    ("call", "result"),
    [
        (_log_and_print, "None"),
        (lambda: get_worker().name, "0"),
        (lambda: get_worker().log_event("mine", 1), "WorkerUnreachable"),
        (lambda: list(get_worker().data), "WorkerUnreachable"),
        (lambda: get_client(), "WorkerUnreachable"),
        (lambda: sky.counter("n").increment(), "WorkerUnreachable"),
        (secede, "WorkerUnreachable"),
        (_with_a_client_of_its_own, "1"),
        (lambda: _forked(lambda: sky.counter("n").increment()), "('WorkerUnreachable', 7)"),
    ],
)
def test_a_forked_process_is_no_slot(
    shared_client: Client, executor: str, call: Callable[[], Any], result: str
) -> None:
    """It lives like any process, and what needs the worker says so there."""
    if executor == "thread":
        return  # a fork of the worker itself: Dask's affair

    def task() -> tuple[str, int]:
        return _forked(call)

    assert run(shared_client, task) == (result, 7)


def test_a_forked_process_waits_for_no_client(shared_client: Client, executor: str) -> None:
    """Its loop runs in the task's process; there it goes on."""
    if executor == "thread":
        return

    def task() -> tuple[Any, ...]:
        future = get_client().submit(increment, 1, pure=False)
        return _forked(future.result), _forked(_with_a_client_of_its_own), future.result()

    assert run(shared_client, task) == (("WorkerUnreachable", 7), ("1", 7), 2)


def test_a_pool_of_forked_processes(shared_client: Client, executor: str) -> None:
    """`multiprocessing` in a task, whose processes log."""
    if executor == "thread":
        return

    def task() -> list[None]:
        with multiprocessing.get_context("fork").Pool(2) as pool:
            return pool.map(logging.getLogger("library").warning, ["in a", "pool"], chunksize=1)

    assert run(shared_client, task) == [None, None]


def _lineage() -> list[int]:
    own = psutil.Process()
    return [own.pid, *(parent.pid for parent in own.parents())]


def test_client_run_stays_in_the_worker(shared_client: Client) -> None:
    """Whatever the slots are."""
    (pid,) = shared_client.run(os.getpid).values()
    assert pid in run(shared_client, _lineage)
    assert list(shared_client.run(lambda dask_worker: dask_worker.address)) == list(shared_client.nthreads())

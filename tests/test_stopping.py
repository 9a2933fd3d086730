"""Tasks that are cancelled, limited or stuck, through Dask: real workers under nannies."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import dask
import numpy as np
import psutil
import pytest
from distributed import Client, Future, secede
from distributed.client import FutureCancelledError

import skyward_dask as sky

pytestmark = pytest.mark.crash

MIB = 2**20


@pytest.fixture(scope="module")
def executor() -> Iterator[str]:
    """What ends here when it is interrupted has all the time that it needs."""
    with dask.config.set({"skyward.worker.grace": "60s"}):
        yield "process"


def spin(started: str) -> None:
    Path(started).write_text(str(os.getpid()))
    while True:
        pass


def hear(started: str) -> int:
    return int(Path(started).read_text())


def gone(pid: int) -> None:
    """Wait for the end of a process that isn't ours to reap."""
    with suppress(psutil.NoSuchProcess):
        psutil.Process(pid).wait(timeout=200)


def kills(client: Client) -> int:
    return sum(slot.kills for node in sky.statistics(client).workers.values() for slot in node.slots)


# --- cancel ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seceded", [False, True])
def test_a_running_task_is_cancelled(shared_client: Client, started: str, seceded: bool) -> None:
    """Its process ends, and it raises CancelledError, as ever."""
    before = kills(shared_client)
    future = shared_client.submit(_secede_and_spin if seceded else spin, started)
    pid = hear(started)
    future.cancel()
    gone(pid)
    with pytest.raises(FutureCancelledError):
        future.result()
    assert shared_client.submit(abs, -1, pure=False).result() == 1
    assert kills(shared_client) == before + 1


def _secede_and_spin(started: str) -> None:
    secede()  # type: ignore[no-untyped-call]
    spin(started)


def test_a_task_whose_last_future_is_dropped_is_stopped(shared_client: Client, started: str) -> None:
    """Nobody can ever ask for its result."""
    future = shared_client.submit(spin, started)
    pid = hear(started)
    del future
    gone(pid)


def test_the_tasks_of_a_client_that_leaves_are_stopped(shared_client: Client, started: str) -> None:
    """Unless somebody else wants them."""
    with Client(shared_client.scheduler.address, set_as_default=False) as other:
        future = other.submit(spin, started)
        pid = hear(started)
        assert future.status == "pending"
    gone(pid)


def test_a_task_that_another_client_wants_goes_on(
    shared_client: Client, tmp_path: Path, started: str
) -> None:
    """Then `cancel` is its client's own affair."""
    os.mkfifo(tmp_path / "release")

    def block(started: str, release: str) -> str:
        Path(started).write_text(str(os.getpid()))
        return Path(release).read_text()

    future = shared_client.submit(block, started, str(tmp_path / "release"), key="wanted")
    hear(started)
    with Client(shared_client.scheduler.address, set_as_default=False) as other:
        same = other.submit(block, started, str(tmp_path / "release"), key="wanted")
        same.cancel()
    (tmp_path / "release").write_text("done")
    assert future.result() == "done"


def test_drop_and_submit_again(shared_client: Client, started: str, tmp_path: Path) -> None:
    """No result and no error of a stopped run surfaces under its key, though it takes its time to end."""
    state = tmp_path / "state"

    def run(name: str) -> str:
        if state.exists():
            return "second"
        state.touch()
        with suppress(KeyboardInterrupt):
            spin(name)
        time.sleep(0.2)
        return "first"

    def is_forgotten(key: str, dask_scheduler: Any) -> bool:
        return key not in dask_scheduler.tasks

    for key in ("again-1", "again-2", "again-3"):
        state.unlink(missing_ok=True)
        future = shared_client.submit(run, started, key=key)
        hear(started)
        del future
        while not shared_client.run_on_scheduler(is_forgotten, key):
            pass
        assert shared_client.submit(run, started, key=key).result() == "second"


def test_tasks_that_are_cancelled_before_they_run_never_do(
    shared_client: Client, started: str, tmp_path: Path
) -> None:
    """They wait for a slot, or are on their way to one."""
    blockers = shared_client.map(spin, [started] * 2, pure=False)
    hear(started)
    hear(started)
    futures = [shared_client.submit(Path.touch, tmp_path / str(n)) for n in range(20)]
    shared_client.cancel([*futures, *blockers])
    assert shared_client.submit(abs, -1, pure=False).result() == 1
    assert not [path for path in tmp_path.iterdir() if path.name.isdigit()]


def test_the_flag_in_a_slot(shared_client: Client, started: str, tmp_path: Path) -> None:
    """Code that holds the interrupt off sees it."""
    note = tmp_path / "note"

    def run() -> None:
        before = sky.cancelled()
        try:
            spin(started)
        except KeyboardInterrupt:
            note.write_text(f"{before} {sky.cancelled()}")

    future = shared_client.submit(run)
    pid = hear(started)
    future.cancel()
    gone(pid)
    assert note.read_text() == "False True"


@pytest.mark.parametrize("kind", ["thread", "loop"])
def test_the_flag_elsewhere(shared_client: Client, started: str, tmp_path: Path, kind: str) -> None:
    """In a thread, or on the loop, nothing can end a task but itself."""
    os.mkfifo(tmp_path / "ended")
    ended = str(tmp_path / "ended")

    def in_thread() -> None:
        Path(started).write_text("1")
        while not sky.cancelled():
            time.sleep(0.01)
        Path(ended).write_text("it saw")

    async def on_loop() -> None:
        await asyncio.to_thread(Path(started).write_text, "1")
        while not sky.cancelled():
            await asyncio.sleep(0.01)
        await asyncio.to_thread(Path(ended).write_text, "it saw")

    with sky.options(executor="thread"):
        future = shared_client.submit(in_thread if kind == "thread" else on_loop)
    hear(started)
    future.cancel()
    assert Path(ended).read_text() == "it saw"
    assert not sky.cancelled()


# --- limits ------------------------------------------------------------------------------------------------


def _attempt(log: str, work: Callable[[], None]) -> None:
    with open(log, "a") as file:
        file.write("x")
    work()


def _forever() -> None:
    while True:
        pass


def _leak() -> None:
    leak = []
    while True:
        leak.append(os.urandom(MIB))


def test_a_task_that_takes_too_long(shared_client: Client, tmp_path: Path) -> None:
    """It gets `TaskTimeout`, after as many attempts as it had; the worker stays."""
    before = shared_client.run(os.getpid)
    with sky.options(timeout="300 ms"):
        future = shared_client.submit(_attempt, str(tmp_path / "log"), _forever, retries=2)
    error = future.exception()
    assert isinstance(error, sky.TaskTimeout) and error.worker in str(error)
    assert error.key == future.key and error.seconds == 0.3 and "_forever" in error.stack
    assert (tmp_path / "log").read_text() == "xxx"
    assert shared_client.run(os.getpid) == before


def test_a_task_that_takes_too_much_memory(shared_client: Client, tmp_path: Path) -> None:
    """It gets `SlotOutOfMemory`, after as many attempts as it had; the worker and its results stay."""
    before = shared_client.run(os.getpid)
    kept = shared_client.submit(list, range(1000))
    with sky.options(memory_limit="150 MiB"):
        future = shared_client.submit(_attempt, str(tmp_path / "log"), _leak, retries=1)
    error = future.exception()
    assert isinstance(error, sky.SlotOutOfMemory) and isinstance(error, sky.SlotCrashed)
    assert error.worker in str(error)
    assert error.limit == 150 * MIB < error.peak
    assert (tmp_path / "log").read_text() == "xx"
    assert kept.result() == list(range(1000)) and shared_client.run(os.getpid) == before


async def _block_the_loop(started: str, release: str) -> None:
    Path(started).write_text("blocked")
    Path(release).read_text()


def _work(started: str, go: str, work: Callable[[], Any]) -> Any:
    Path(started).write_text(str(os.getpid()))
    Path(go).read_text()
    return work()


@pytest.fixture
def fifos(tmp_path: Path) -> dict[str, str]:
    names = {name: str(tmp_path / name) for name in ("started", "go", "go too", "release")}
    for name in names.values():
        os.mkfifo(name)
    return names


@pytest.mark.parametrize("work", [_forever, _leak])
def test_limits_hold_while_the_loop_is_blocked(
    shared_client: Client, fifos: dict[str, str], work: Callable[[], None]
) -> None:
    """By a user's coroutine: a process is gone before the loop lives again, and its task gets its error.

    A task that ended in time has its result, though that waits for the loop until its time would be over.
    """
    before, started = kills(shared_client), fifos["started"]
    limits: dict[str, Any] = {"timeout": "2.5 s"} if work is _forever else {"memory_limit": "150 MiB"}

    def both(*works: Callable[[], Any]) -> Iterator[tuple[Future[Any], int]]:
        for go, each in zip(("go", "go too"), works, strict=True):
            yield shared_client.submit(_work, started, fifos[go], each, pure=False), hear(started)

    warm = list(both(int, int))  # both processes have imported this module then, which takes its time
    Path(fifos["go"]).write_text("")
    Path(fifos["go too"]).write_text("")
    shared_client.gather([future for future, _ in warm])
    with sky.options(**limits):
        (over, pid), (in_time, _) = both(work, partial(np.ones, MIB))
    shared_client.run(_block_the_loop, started, fifos["release"], wait=False)
    assert Path(started).read_text() == "blocked"
    Path(fifos["go"]).write_text("")
    Path(fifos["go too"]).write_text("")
    gone(pid)
    Path(fifos["release"]).write_text("")
    error = over.exception()
    if work is _forever:
        assert isinstance(error, sky.TaskTimeout) and "_forever" in error.stack
    else:
        assert isinstance(error, sky.SlotOutOfMemory) and error.limit == 150 * MIB < error.peak
    assert len(in_time.result()) == MIB
    assert kills(shared_client) == before + 1
    assert shared_client.submit(abs, -1, pure=False).result() == 1


def test_limits_for_threads_are_an_error(shared_client: Client) -> None:
    """A thread can't be ended: nothing pretends that it can."""
    with (
        pytest.raises(sky.ConfigurationError, match="process slot"),
        sky.options(executor="thread", timeout=1),
    ):
        pass
    with dask.annotate(executor="thread", skyward_timeout=1.0):
        future = shared_client.submit(abs, -1, pure=False)
    with pytest.raises(sky.ConfigurationError, match="thread"):
        future.result()


def test_limits_in_annotations_are_checked(shared_client: Client) -> None:
    """`dask.annotate` takes whatever it is given, as `sky.options` doesn't: text, too, and nonsense."""
    with dask.annotate(skyward_timeout="soon"):
        future = shared_client.submit(abs, -1, pure=False)
    with pytest.raises(sky.ConfigurationError, match="timeout must be") as caught:
        future.result()
    assert not any("skyward_dask" in str(frame.path) for frame in caught.traceback)
    with dask.annotate(skyward_timeout="30s", skyward_memory_limit="1GiB"):
        assert shared_client.submit(abs, -1, pure=False).result() == 1


def test_the_memory_of_slots_counts_as_the_workers(
    shared_client: Client, started: str, tmp_path: Path
) -> None:
    """Its pause and spill thresholds see it."""

    def measure(dask_worker: Any) -> int:
        return int(dask_worker.monitor.get_process_memory() - psutil.Process().memory_info().rss)

    def hold(started: str) -> None:
        held = os.urandom(300 * MIB)
        spin(started)
        del held

    future = shared_client.submit(hold, started)
    hear(started)
    deadline = time.monotonic() + 200
    while next(iter(shared_client.run(measure).values())) < 300 * MIB:
        assert time.monotonic() < deadline
    future.cancel()

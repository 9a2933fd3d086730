"""Who is gone holds nothing, waits for nothing and takes nothing."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from contextvars import copy_context
from pathlib import Path
from typing import Any

import psutil
import pytest
from distributed import Client, LocalCluster, get_client, worker_client

import skyward_dask as sky
from tests.shared.cancelling import put_and_cancel


def hold(name: str, forever: bool = True) -> Any:
    """Take a lock and don't release it."""
    lock = sky.lock(name)
    lock.acquire()
    sky.queue(f"{name}-held").put(os.getpid())
    while forever and not sky.cancelled():
        time.sleep(0.01)
    return lock.fence


def wait_until_held(name: str) -> int:
    """The process that has the lock."""
    pid: int = sky.queue(f"{name}-held").get(timeout=200)
    return pid


def take(name: str) -> int:
    """Acquire and release; returns the number of the acquisition."""
    lock = sky.lock(name)
    assert lock.acquire(timeout=200), f"still held by {lock.holder()}"
    fence: int = lock.fence
    lock.release()
    return fence


def test_a_task_that_ends_without_releasing(shared_client: Client, name: str) -> None:
    """Its lock is released, with a warning that names the task."""
    first = shared_client.submit(hold, name, forever=False, key=f"careless-{name}").result()
    assert take(name) > first
    lines = [line for lines in shared_client.get_worker_logs().values() for _, line in lines]
    assert any(f"careless-{name}" in line and "without releasing" in line for line in lines)


def test_a_task_that_fails(shared_client: Client, name: str) -> None:
    """Its lock is released."""

    def fail() -> None:
        sky.lock(name).acquire()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        shared_client.submit(fail, pure=False).result()
    take(name)


def test_a_task_that_is_cancelled(shared_client: Client, name: str) -> None:
    """Its lock is released at once."""
    future = shared_client.submit(hold, name, pure=False)
    wait_until_held(name)
    holder = sky.lock(name).holder()
    assert holder is not None and holder.task == future.key
    future.cancel()
    take(name)


def test_a_cancelled_task_that_goes_on_gets_nothing_more(
    shared_client: Client, executor: str, name: str, tmp_path: Path
) -> None:
    """In a thread nothing can end it; what it would hold, it would hold for ever."""
    if executor == "process":
        pytest.skip("it is killed")
    marker = tmp_path / "marker"

    def stubborn() -> None:
        sky.lock(name).acquire()
        sky.queue(f"{name}-held").put(os.getpid())
        while not sky.cancelled():
            time.sleep(0.01)
        try:
            sky.lock(name).acquire()
        finally:
            marker.touch()

    future = shared_client.submit(stubborn, pure=False)
    wait_until_held(name)
    future.cancel()
    take(name)
    until(marker.exists)
    take(name)


def test_a_slot_that_is_killed(shared_client: Client, executor: str, name: str) -> None:
    """Its lock is released; its place in the line too."""
    if executor == "thread":
        pytest.skip("a thread can't be killed")
    future = shared_client.submit(hold, name, pure=False)
    os.kill(wait_until_held(name), signal.SIGKILL)
    take(name)
    with pytest.raises(sky.SlotCrashed):
        future.result()


def test_a_task_over_its_timeout(shared_client: Client, executor: str, name: str) -> None:
    """Its lock is released."""
    if executor == "thread":
        pytest.skip("a thread can't be ended")
    with sky.options(timeout=5):
        future = shared_client.submit(hold, name, pure=False)
    wait_until_held(name)
    take(name)
    with pytest.raises(sky.TaskTimeout):
        future.result()


def test_a_lock_that_a_task_takes_with_a_client(shared_client: Client, name: str) -> None:
    """Is the task's: the client names the cluster, and owns nothing."""

    def take_with(make: Any) -> Any:
        with make() as own:
            sky.lock(name, client=own).acquire()
            return sky.lock(name).holder()

    for make in (worker_client, lambda: nullcontext(get_client())):
        future = shared_client.submit(take_with, make, pure=False)
        assert future.result().task == future.key
        take(name)


def test_a_lock_that_a_tasks_thread_takes(shared_client: Client, executor: str, name: str) -> None:
    """Is the task's in a process slot, elsewhere if the thread has its context; else it is nobody's."""

    def in_a_thread() -> list[Any]:
        lock, found = sky.lock(name), []
        with ThreadPoolExecutor(1) as pool:
            for run in (copy_context().run, lambda operation: operation()):
                try:
                    pool.submit(run, lock.acquire).result()
                except sky.SkywardError:
                    found.append(None)
                else:
                    found.append(pool.submit(run, lock.holder).result().task)
                    pool.submit(run, lock.release).result()
        lock.acquire()
        return found

    async def in_a_coroutines_thread() -> list[Any]:
        lock = sky.lock(name)
        await asyncio.to_thread(lock.acquire)
        found = (await lock.holder_async()).task  # type: ignore[union-attr]
        with pytest.raises(sky.SkywardError):
            await asyncio.get_running_loop().run_in_executor(None, sky.queue(name + "-q").get)
        return [found]

    own = shared_client.submit(in_a_thread, pure=False)
    assert own.result() == [own.key, own.key if executor == "process" else None]
    take(name)
    other = shared_client.submit(in_a_coroutines_thread, pure=False)
    assert other.result() == [other.key]
    take(name)


def test_a_process_that_a_task_forks(shared_client: Client, name: str) -> None:
    """Has no way to collections, and is told so; the task goes on."""

    def task() -> tuple[bytes, int]:
        counter, (reading, writing) = sky.counter(name), os.pipe()
        counter.increment()
        if not (pid := os.fork()):
            try:
                counter.increment()
            except Exception as error:
                os.write(writing, type(error).__name__.encode())
            os._exit(0)
        os.waitpid(pid, 0)
        os.close(writing)
        return os.read(reading, 100), counter.increment()

    assert shared_client.submit(task, pure=False).result() == (b"WorkerUnreachable", 2)


def waiting(name: str) -> int:
    return sky.collections(Client.current())[name].waiting


def until(condition: Any) -> None:
    """Look until it is so; what we look at tells nobody that it has changed."""
    deadline = time.monotonic() + 200
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_dead_waiter_takes_no_item(shared_client: Client, name: str) -> None:
    """The next one gets it."""
    dead = shared_client.submit(lambda: sky.queue(name).get(), pure=False)
    sky.queue(name).qsize()
    until(lambda: waiting(name) == 1)
    dead.cancel()
    until(lambda: waiting(name) == 0)
    sky.queue(name).put("item")
    assert shared_client.submit(lambda: sky.queue(name).get(timeout=200), pure=False).result() == "item"


def test_a_dead_waiter_takes_no_place_at_a_barrier(shared_client: Client, name: str) -> None:
    """Nor does it break it."""
    barrier = sky.barrier(name, 2)
    dead = shared_client.submit(lambda: sky.barrier(name, 2).wait(), pure=False)
    assert not barrier.broken
    until(lambda: barrier.n_waiting == 1)
    dead.cancel()
    until(lambda: barrier.n_waiting == 0)
    futures = shared_client.map(lambda _: sky.barrier(name, 2).wait(), range(2), pure=False)
    assert sorted(shared_client.gather(futures)) == [0, 1]


def test_a_dead_computers_claim_passes_on(shared_client: Client, name: str) -> None:
    """Who waits for the value computes it."""

    def never() -> None:
        sky.queue(f"{name}-held").put(os.getpid())
        while not sky.cancelled():
            time.sleep(0.01)

    dead = shared_client.submit(lambda: sky.dict(name).get_or_compute("k", never), pure=False)
    wait_until_held(name)
    with pytest.raises(TimeoutError, match="another caller is still computing 'k'"):
        sky.dict(name).get_or_compute("k", lambda: 4, timeout=0.01)
    other = shared_client.submit(lambda: sky.dict(name).get_or_compute("k", lambda: 5), pure=False)
    until(lambda: waiting(name) == 1)
    dead.cancel()
    assert other.result() == 5


@pytest.mark.parametrize("stays", [True, False])
def test_a_value_set_meanwhile_wins(shared_client: Client, name: str, stays: bool) -> None:
    """Over the one that is being computed; who waits gets it at once. Not if it is gone again."""

    def compute() -> str:
        sky.queue(f"{name}-held").put(os.getpid())
        sky.queue(f"{name}-go").get()
        return "computed"

    first = shared_client.submit(lambda: sky.dict(name).get_or_compute("k", compute), pure=False)
    wait_until_held(name)
    second = shared_client.submit(lambda: sky.dict(name).get_or_compute("k", compute), pure=False)
    until(lambda: waiting(name) == 1)
    sky.dict(name)["k"] = "set"
    assert second.result() == "set"
    if not stays:
        del sky.dict(name)["k"]
    sky.queue(f"{name}-go").put(None)
    assert first.result() == sky.dict(name)["k"] == ("set" if stays else "computed")


CLIENT = """
import sys
from distributed import Client
import skyward_dask as sky
client = Client(sys.argv[1])
sky.lock(sys.argv[2]).acquire()
print("held", flush=True)
sys.stdin.read()
if sys.argv[3] == "close":
    client.close()
"""


@pytest.fixture
def other_client(shared_client: Client, name: str) -> Iterator[Any]:
    """Starts a client in a process of its own, which holds the lock."""
    started: list[subprocess.Popen[bytes]] = []

    def start(how: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", CLIENT, shared_client.scheduler.address, name, how]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        return process

    yield start
    for process in started:
        process.kill()
        with process:
            pass


def test_a_client_that_closes(shared_client: Client, other_client: Any, name: str) -> None:
    """Its lock is released."""
    process = other_client("close")
    assert not sky.lock(name).acquire(blocking=False)
    process.stdin.close()
    take(name)
    process.wait()


@pytest.mark.crash
def test_a_client_that_is_killed(shared_client: Client, other_client: Any, name: str) -> None:
    """The same."""
    process = other_client("stay")
    assert not sky.lock(name).acquire(blocking=False)
    process.kill()
    take(name)


def test_a_lost_client_waits_no_longer(shared_client: Client, name: str) -> None:
    """What comes to the queue goes to others."""
    sky.queue(name).qsize()
    program = CLIENT.replace("sky.lock(sys.argv[2]).acquire()", "").replace(
        "sys.stdin.read()", "sky.queue(sys.argv[2]).get()"
    )
    command = [sys.executable, "-c", program, shared_client.scheduler.address, name, "stay"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        until(lambda: waiting(name) == 1)
        process.kill()
    until(lambda: waiting(name) == 0)
    sky.queue(name).put(1)
    assert sky.queue(name).get(timeout=200) == 1


@pytest.mark.crash
def test_a_lost_worker_holds_nothing(client: Client, name: str) -> None:
    """Neither locks nor places in lines."""

    def grab(_: int) -> None:
        with sky.lock(name):
            while not sky.cancelled():
                time.sleep(0.01)

    assert not sky.lock(name).locked()
    (host,) = sky.collections(client)[name].hosts
    (other,) = set(client.nthreads()) - {host}
    futures = client.map(grab, range(2), workers=[other], pure=False)
    until(lambda: waiting(name) == 1)
    client.run(os._exit, 1, workers=[other], on_error="ignore")
    until(lambda: waiting(name) == 0)
    take(name)
    client.cancel(futures)


@pytest.mark.crash
def test_a_template_that_is_killed(name: str) -> None:
    """Its task runs again in another child, and gets the lock that it held in the first."""
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        sky.install(client, sky.Worker(concurrency=1, executor="process"))
        marker = f"/tmp/{name}"

        def twice() -> int:
            sky.lock(name).acquire()
            if os.path.exists(marker):
                return os.getpid()
            open(marker, "w").close()
            sky.queue(f"{name}-held").put(os.getpid())
            time.sleep(100)
            return 0

        future = client.submit(twice, pure=False)
        first = wait_until_held(name)
        template = psutil.Process(first).ppid()
        os.kill(template, signal.SIGKILL)
        assert future.result(timeout=200) not in (0, first)
        os.unlink(marker)


def test_an_actor_that_is_released(shared_client: Client, name: str) -> None:
    """Its lock is released."""

    class Keeper:
        def keep(self) -> str:
            sky.lock(name).acquire()
            holder = sky.lock(name).holder()
            assert holder is not None
            return str(holder.task)

    future = shared_client.submit(Keeper, actor=True, pure=False)
    actor = future.result()
    actor.keep().result()
    assert sky.lock(name).locked()
    with pytest.raises(sky.LockError):
        sky.lock(name).release()
    del actor, future
    gc.collect()  # Dask's proxy is part of a cycle
    take(name)


def test_an_interrupted_wait_gives_the_item_back(shared_client: Client, name: str) -> None:
    """An awaiting `get` that is cancelled takes nothing, however late."""

    async def main() -> list[Any]:
        async with Client(shared_client.scheduler.address, asynchronous=True):
            q = sky.queue(name)
            got = await put_and_cancel(name, 200)
            while len(got) < 200:  # or the test's time is over
                got.append(await q.get_async())
            assert await q.empty_async()
            return got

    assert sorted(asyncio.run(main())) == list(range(200))

"""Everybody who keeps a number that others count up; a peer that isn't installed is left out.

Each is a context manager that yields `Counting`s by name: how one count is done, and where from.
"""

import multiprocessing
import multiprocessing.pool
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from multiprocessing.managers import BaseManager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from dask.distributed import Client

import skyward_dask as sky
from benchmarks.clusters import dask_workers

CALLERS = 8
THREAD = "skyward_dask, thread task on the host's worker"
SLOT = "skyward_dask, process slot there"
ELSEWHERE = "skyward_dask, thread task on another worker"
CLIENT = "skyward_dask, client"
ACTOR = "Dask actor, thread task on its worker"
ACTOR_ELSEWHERE = "Dask actor, thread task on another worker"
ACTOR_CLIENT = "Dask actor, client"
REDIS_UNIX, REDIS_TCP = "Redis, Unix socket", "Redis, TCP"
REDIS_WAIT = "Redis with a replica, INCR and WAIT 1, TCP"
MANAGER = "multiprocessing.Manager"
RAY = "Ray actor"

Count = Callable[[], object]
"""Counts one up."""
Connect = Callable[[], Count]
"""Makes a `Count` where the caller is; can be pickled."""


@dataclass(frozen=True, slots=True)
class Counting:
    """A way to count.

    Attributes
    ----------
    run : callable
        ``run(function)`` has ``function(connect)`` done once where the caller is to be.
    run_all : callable
        The same in eight callers at once; gives what each returned.
    """

    run: Callable[[Callable[[Connect], float]], float]
    run_all: Callable[[Callable[[Connect], float]], list[float]]


def milliseconds(connect: Connect, counts: int = 200) -> float:
    """The median of so many counts, one after the other."""
    count = connect()
    count()
    return 1e3 * median(_seconds(count) for _ in range(counts))


def _seconds(count: Count) -> float:
    started = time.perf_counter()
    count()
    return time.perf_counter() - started


def rate(connect: Connect, seconds: float = 1.5) -> float:
    """Counts in a second, once the caller is connected; measured for so long that callers mostly overlap."""
    count, done = connect(), 0
    count()
    started = time.perf_counter()
    while (lasted := time.perf_counter() - started) < seconds:
        for _ in range(10):  # so that the clock costs nothing
            count()
        done += 10
    return done / lasted


# --- clusters of Dask -------------------------------------------------------------------------------------


class Counter:
    """A number in a process of somebody's: an actor of Dask's or Ray's, or behind a manager."""

    def __init__(self) -> None:
        self.value = 0

    def increment(self) -> int:
        self.value += 1
        return self.value


@contextmanager
def cluster(replicas: int = 0) -> Iterator[dict[str, Counting]]:
    """Two workers with a collection and a plain actor of Dask's on the same one; and a client."""
    with dask_workers(workers=2, threads=1) as client:
        sky.install(client, sky.Worker(concurrency=CALLERS, executor="thread"))
        sky.counter("count", replicas=replicas).increment()
        while replicas and not sky.collections(client)["count"].in_step:
            time.sleep(0.01)
        (host,) = sky.collections(client)["count"].hosts
        (other,) = set(client.nthreads()) - {host}
        actor = client.submit(Counter, actor=True, workers=[host]).result()
        ours, plain = partial(_counter, "count"), partial(_actor, actor)
        yield {
            THREAD: _in_tasks(client, ours, host, "thread"),
            SLOT: _in_tasks(client, ours, host, "process"),
            ELSEWHERE: _in_tasks(client, ours, other, "thread"),
            CLIENT: _here(ours),
            ACTOR: _in_tasks(client, plain, host, "thread"),
            ACTOR_ELSEWHERE: _in_tasks(client, plain, other, "thread"),
            ACTOR_CLIENT: _here(plain),
        }


def _counter(name: str) -> Count:
    return sky.counter(name).increment


def _actor(actor: Any) -> Count:
    return lambda: actor.increment().result()


def _in_tasks(client: Client, connect: Connect, worker: str, executor: str) -> Counting:
    def futures(function: Callable[[Connect], float], callers: int) -> list[Any]:
        with sky.options(executor=executor):
            return [client.submit(function, connect, workers=[worker], pure=False) for _ in range(callers)]

    return Counting(
        lambda function: float(futures(function, 1)[0].result()),
        lambda function: list(client.gather(futures(function, CALLERS))),
    )


# --- others ------------------------------------------------------------------------------------------------


def _here(connect: Connect) -> Counting:
    """From this process; its eight callers are threads."""

    def run_all(function: Callable[[Connect], float]) -> list[float]:
        with multiprocessing.pool.ThreadPool(CALLERS) as pool:
            return pool.map(function, [connect] * CALLERS)

    return Counting(lambda function: function(connect), run_all)


def _in_processes(connect: Connect) -> Counting:
    """From this process; its eight callers are processes."""

    def run_all(function: Callable[[Connect], float]) -> list[float]:
        with multiprocessing.get_context("spawn").Pool(CALLERS) as pool:
            pool.map(abs, range(CALLERS))
            return pool.map(function, [connect] * CALLERS, chunksize=1)

    return Counting(lambda function: function(connect), run_all)


@contextmanager
def redis_with_replica() -> Iterator[dict[str, Counting]]:
    """Two servers of our own, of which one follows the other: each count waits for both."""
    if shutil.which("redis-server") is None or not find_spec("redis"):
        yield {}
        return
    with TemporaryDirectory() as folder, ExitStack() as stack:
        options = ["--save", "", "--appendonly", "no", "--dir", folder]
        for port, *follows in ((16380,), (16381, "--replicaof", "127.0.0.1 16380")):
            command = ["redis-server", *options, "--port", str(port), *follows]
            server = stack.enter_context(subprocess.Popen(command, stdout=subprocess.DEVNULL))
            stack.callback(server.terminate)
            _wait_for_redis(port=port)
        yield {REDIS_WAIT: _in_processes(_redis_and_wait)}


def _redis_and_wait() -> Count:
    import redis

    server = redis.Redis(port=16380)
    return lambda: (server.incr("count"), server.wait(1, 1000))


@contextmanager
def redis() -> Iterator[dict[str, Counting]]:
    """A server of our own, that keeps nothing on disk; none where it isn't installed."""
    if shutil.which("redis-server") is None or not find_spec("redis"):
        yield {}
        return
    with TemporaryDirectory() as folder:
        socket, port = str(Path(folder) / "redis"), 16379
        command = ["redis-server", "--save", "", "--appendonly", "no", "--dir", folder]
        server = subprocess.Popen(
            [*command, "--unixsocket", socket, "--port", str(port)], stdout=subprocess.DEVNULL
        )
        try:
            _wait_for_redis(unix_socket_path=socket)
            yield {
                REDIS_UNIX: _in_processes(partial(_redis, unix_socket_path=socket)),
                REDIS_TCP: _in_processes(partial(_redis, port=port)),
            }
        finally:
            server.terminate()
            server.wait()


def _redis(**where: Any) -> Count:
    import redis

    return partial(redis.Redis(**where).incr, "count")


def _wait_for_redis(**where: Any) -> None:
    import redis

    deadline = time.monotonic() + 10
    while True:
        try:
            redis.Redis(**where).ping()
            return
        except redis.ConnectionError:
            if time.monotonic() > deadline:
                raise


class Manager(BaseManager):
    """A process that keeps counters."""


_KEPT = Counter()


def _kept() -> Counter:
    return _KEPT


Manager.register("kept", _kept, exposed=("increment",))


@contextmanager
def manager() -> Iterator[dict[str, Counting]]:
    """The standard library's way to share an object."""
    with Manager(ctx=multiprocessing.get_context("spawn")) as server:
        yield {MANAGER: _in_processes(partial(_managed, server.address, bytes(server._authkey)))}


def _managed(address: Any, key: bytes) -> Count:
    client = Manager(address, key)
    client.connect()
    count: Count = client.kept().increment
    return count


@contextmanager
def ray() -> Iterator[dict[str, Counting]]:
    """An actor of Ray's, asked from this process."""
    if not find_spec("ray"):
        yield {}
        return
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        actor = ray.remote(Counter).remote()
        yield {RAY: _here(lambda: lambda: ray.get(actor.increment.remote()))}
    finally:
        ray.shutdown()


@contextmanager
def all_keepers() -> Iterator[dict[str, Counting]]:
    """All of them, at once."""
    with ExitStack() as stack:
        found: dict[str, Counting] = {}
        for each in (cluster, redis, manager, ray):
            found |= stack.enter_context(each())
        yield found

"""Everybody who runs calls, each set up in its own best way; a peer that isn't installed is left out.

A peer is a context manager that yields a `Peer`: how it is given one call, and many.
"""

import multiprocessing
import os
import pickle
import socket
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import dask
from dask.distributed import Client, WorkerPlugin, wait

from benchmarks.clusters import dask_workers, skyward_worker
from skyward_dask.slots.executor import SlotPool

POOL = "skyward_dask, the pool alone"
FORKSERVER = "ProcessPoolExecutor, forkserver"
SPAWN = "ProcessPoolExecutor, spawn"
LOKY = "loky"
PEBBLE = "pebble"
FLOOR = "floor: ping-pong over a socket pair"
DASK_THREADS = "Dask, 1 worker, threads"
DASK_PROCESSES = "Dask, a worker per core"
ANNOTATED = "Dask, ProcessPoolExecutor by annotation"
THREAD_SLOTS = "skyward_dask, thread slots"
PROCESS_SLOTS = "skyward_dask, process slots"
RAY = "Ray"


def _cannot_stop(future: object) -> None:
    raise NotImplementedError("this peer has no way to stop a call that runs")


@dataclass(frozen=True, slots=True)
class Peer:
    """One who runs calls.

    Attributes
    ----------
    submit : callable
        ``submit(function, *arguments)`` gives a future; futures among the arguments stand for their results.
    results : callable
        ``results(function, arguments)`` runs the function on each, and gives the list of what comes out.
    wait : callable
        Waits until a future's result is where the peer keeps results.
    stop : callable
        Stops a call that runs.
    client : Client or None
        Of those that are Dask clusters.
    """

    submit: Callable[..., Any]
    results: Callable[[Callable[[Any], Any], Iterable[Any]], list[Any]]
    wait: Callable[[Any], object]
    stop: Callable[[Any], object] = _cannot_stop
    client: Client | None = None


Manager = AbstractContextManager[Peer]


def pools(slots: int) -> dict[str, Manager]:
    """Pools of processes on this machine, without Dask."""
    found = {POOL: skyward_pool(slots)}
    for name, method in ((SPAWN, "spawn"), (FORKSERVER, "forkserver")):
        context = multiprocessing.get_context(method)
        found[name] = executor(partial(ProcessPoolExecutor, slots, mp_context=context))
    if find_spec("loky"):
        from loky import ProcessPoolExecutor as Loky

        found[LOKY] = executor(partial(Loky, slots))
    if find_spec("pebble"):
        found[PEBBLE] = pebble(slots)
    return found


def clusters(slots: int) -> dict[str, Manager]:
    """Everybody who is reached through a Dask client, and Ray if it is there."""
    found = {
        DASK_THREADS: cluster(partial(dask_workers, 1, slots), slots),
        DASK_PROCESSES: cluster(partial(dask_workers, slots, 1), slots),
        ANNOTATED: annotated(slots),
        THREAD_SLOTS: cluster(partial(skyward_worker, slots, "thread"), slots),
        PROCESS_SLOTS: process_slots(slots),
    }
    if find_spec("ray"):
        found[RAY] = ray(slots)
    return found


def process_slots(slots: int, **options: Any) -> Manager:
    return cluster(partial(skyward_worker, slots, "process", **options), slots)


@contextmanager
def skyward_pool(slots: int, **options: Any) -> Iterator[Peer]:
    with SlotPool(slots, **options) as pool:
        # it starts in a thread: a peer that forks at that moment would hold on to a pipe of `subprocess`
        pool.wait_ready()
        yield _local(pool.submit, pool.stop)


@contextmanager
def executor(start: Callable[[], Executor]) -> Iterator[Peer]:
    with start() as pool:
        yield _local(pool.submit)


@contextmanager
def pebble(slots: int, **options: Any) -> Iterator[Peer]:
    from pebble import ProcessPool

    context = multiprocessing.get_context("forkserver")
    with ProcessPool(max_workers=slots, context=context, **options) as pool:

        def submit(function: Callable[..., Any], *arguments: Any) -> Any:
            return pool.schedule(function, args=arguments)

        yield _local(submit, lambda future: future.cancel())


def _local(submit: Callable[..., Any], stop: Callable[[Any], object] = _cannot_stop) -> Peer:
    """A pool whose results come to the caller, and go from there to the next call."""

    def submit_values(function: Callable[..., Any], *arguments: Any) -> Any:
        return submit(function, *(each.result() if isinstance(each, Future) else each for each in arguments))

    def results(function: Callable[[Any], Any], arguments: Iterable[Any]) -> list[Any]:
        return [future.result() for future in [submit(function, each) for each in arguments]]

    return Peer(submit_values, results, lambda future: future.result(), stop)


@contextmanager
def cluster(start: Callable[[], AbstractContextManager[Client]], slots: int) -> Iterator[Peer]:
    with start() as client:
        _warm(client, slots)
        yield Peer(
            partial(client.submit, pure=False),
            lambda function, given: list(client.gather(client.map(function, list(given), pure=False))),
            wait,
            lambda future: future.cancel(),
            client,
        )


@contextmanager
def annotated(slots: int) -> Iterator[Peer]:
    """Dask's threads stay, each waiting for a process of an executor of the standard library."""
    # under a nanny that is a daemon, the executor could start no process
    with dask.config.set({"distributed.worker.daemon": False}), dask_workers(1, slots) as client:
        client.register_plugin(_Processes(slots))

        def submit(function: Callable[..., Any], *arguments: Any) -> Any:
            with dask.annotate(executor="processes"):
                return client.submit(function, *arguments, pure=False)

        def results(function: Callable[[Any], Any], arguments: Iterable[Any]) -> list[Any]:
            with dask.annotate(executor="processes"):
                return list(client.gather(client.map(function, list(arguments), pure=False)))

        results(abs, range(slots))
        yield Peer(submit, results, wait, client=client)


class _Processes(WorkerPlugin):
    name = "benchmark-processes"

    def __init__(self, slots: int) -> None:
        self.slots = slots

    def setup(self, worker: Any) -> None:
        context = multiprocessing.get_context("forkserver")
        worker.executors["processes"] = ProcessPoolExecutor(self.slots, mp_context=context)


@contextmanager
def ray(slots: int) -> Iterator[Peer]:
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it prints a warning
    import ray

    ray.init(num_cpus=slots, include_dashboard=False, log_to_driver=False, logging_level="error")
    run = ray.remote(max_retries=0)(lambda function, *arguments: function(*arguments))

    def submit(function: Callable[..., Any], *arguments: Any) -> _Reference:
        given = (each.reference if isinstance(each, _Reference) else each for each in arguments)
        return _Reference(run.remote(function, *given), ray.get)

    def results(function: Callable[[Any], Any], arguments: Iterable[Any]) -> list[Any]:
        return list(ray.get([run.remote(function, each) for each in arguments]))

    try:
        results(abs, range(slots))
        yield Peer(
            submit,
            results,
            lambda future: ray.wait([future.reference], fetch_local=False),
            lambda future: ray.cancel(future.reference),
        )
    finally:
        ray.shutdown()


@dataclass(frozen=True, slots=True)
class _Reference:
    reference: Any
    get: Callable[[Any], Any]

    def result(self) -> Any:
        return self.get(self.reference)


@contextmanager
def floor() -> Iterator[Peer]:
    """The same call, pickled, over a socket pair to one forked child that does nothing else."""
    ours, theirs = socket.socketpair()
    child = multiprocessing.get_context("fork").Process(target=_echo, args=(theirs, ours), daemon=True)
    child.start()
    theirs.close()
    with closing(ours):

        def submit(function: Callable[..., Any], *arguments: Any) -> _Given:
            return _Given(_exchange(ours, (function, arguments)))

        def results(function: Callable[[Any], Any], arguments: Iterable[Any]) -> list[Any]:
            return [_exchange(ours, (function, (each,))) for each in arguments]

        yield Peer(submit, results, lambda given: given)
    child.join()


@dataclass(frozen=True, slots=True)
class _Given:
    value: Any

    def result(self) -> Any:
        return self.value


def _exchange(channel: socket.socket, call: object) -> Any:
    channel.sendall(pickle.dumps(call))
    return pickle.loads(channel.recv(65536))  # a no-op's pickle comes whole


def _echo(channel: socket.socket, other_end: socket.socket) -> None:
    other_end.close()
    while call := channel.recv(65536):
        function, arguments = pickle.loads(call)
        channel.sendall(pickle.dumps(function(*arguments)))


def _warm(client: Client, slots: int) -> None:
    """All slots are there and have begun to work."""
    client.gather(client.map(abs, range(4 * slots), pure=False))
    if missing := slots - sum(client.nthreads().values()):
        raise RuntimeError(f"the cluster shows {client.nthreads()}: {missing} slots are missing")

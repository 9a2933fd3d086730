"""Who streams what a generator yields, each in its own way."""

import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from benchmarks import peers
from benchmarks.peers import PROCESS_SLOTS, RAY, THREAD_SLOTS, Peer
from benchmarks.timing import Enter, Work

FLOOR = "floor: a generator in a forked process, over a pipe"
Stream = Callable[..., Iterator[Any]]
"""``stream(generator, *arguments)`` gives an iterator of what the generator yields elsewhere."""


def contenders(enter: Enter, figure: Callable[[Stream], float]) -> dict[str, Work]:
    clusters = peers.clusters(2)
    found: dict[str, Stream] = {FLOOR: over_a_pipe}
    for name in (THREAD_SLOTS, PROCESS_SLOTS):
        found[name] = partial(of_ours, enter(clusters[name]))
    if find_spec("ray"):
        enter(clusters[RAY])
        found[RAY] = of_ray
    return {name: partial(figure, stream) for name, stream in found.items()}


def of_ours(peer: Peer, generator: Stream, *arguments: Any) -> Iterator[Any]:
    return peer.submit(generator, *arguments).result()


def of_ray(generator: Stream, *arguments: Any) -> Iterator[Any]:
    import ray

    remote = ray.remote(num_returns="streaming", max_retries=0)(generator).remote(*arguments)
    return map(ray.get, remote)


def over_a_pipe(generator: Stream, *arguments: Any) -> Iterator[Any]:
    ours, theirs = multiprocessing.Pipe(duplex=False)
    context = multiprocessing.get_context("fork")
    with forked(context.Process(target=_send, args=(theirs, generator, arguments))):
        theirs.close()
        while (item := ours.recv()) is not None:
            yield item
    ours.close()


def _send(connection: Connection, generator: Stream, arguments: tuple[Any, ...]) -> None:
    for item in generator(*arguments):
        connection.send(item)
    connection.send(None)


@contextmanager
def forked(process: Any) -> Iterator[None]:
    process.start()
    yield
    process.join()


def numbers(count: int) -> Iterator[int]:
    for number in range(count):  # Ray has no `yield from` an iterator  # noqa: UP028
        yield number


def arrays(count: int, elements: int) -> Iterator[np.ndarray]:
    for _ in range(count):
        yield np.ones(elements)


def moments() -> Iterator[float]:
    """When each item is yielded, by a clock that all processes share; the second one comes late."""
    yield time.monotonic()
    time.sleep(0.05)
    yield time.monotonic()

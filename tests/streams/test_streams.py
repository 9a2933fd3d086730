"""What a task that yields gives to its reader: in thread slots, in process slots, and on the event loop."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import queue
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client, get_worker, worker_client
from distributed.client import Future

import skyward_dask as sky
from skyward_dask.slots.memory.segments import is_supported
from tests.sizes import size, sized
from tests.streams.places import PATIENCE, Place, note, notes, until


def numbers(count: int) -> Iterator[int]:
    yield from range(count)


def endless(path: str) -> Iterator[int]:
    """Notes its begin, each step, and its end."""
    note(path, "begun")
    try:
        for number in range(10**9):
            note(path, "step")
            yield number
    finally:
        note(path, "closed")


# --- items ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 5, 300])
def test_all_items_in_order_then_the_end(place: Place, count: int) -> None:
    """Fewer than the window, and more; then the end, for ever."""
    stream = place.open(numbers, count)
    assert list(stream) == list(range(count))
    assert next(stream, "over") == next(stream, "over") == "over"
    assert list(stream) == []


def odd_values(count: int) -> Iterator[object]:
    yield None
    yield ValueError("a value")
    yield b"x" * count
    yield (n for n in "no")


def test_values_are_values(place: Place) -> None:
    """None, an exception that is yielded, large bytes; what can't be pickled is an error that names it."""
    stream = place.open(odd_values, 20 << 20)
    assert next(stream) is None
    assert isinstance(next(stream), ValueError)
    assert len(next(stream)) == 20 << 20  # type: ignore[arg-type]
    with pytest.raises(sky.SerializationError, match="item 4 of the stream"):
        next(stream)
    assert list(stream) == []


def reused(count: int) -> Iterator[Any]:
    array = np.zeros(100_000)
    for _ in range(count):
        array += 1
        yield array


def test_an_item_is_as_it_was_when_it_was_yielded(place: Place) -> None:
    """Though the generator reuses its memory; and the reader may write to it."""
    arrays = list(place.open(reused, 20))
    assert [array[0] for array in arrays] == list(range(1, 21))
    arrays[0][0] = 7


def larger_and_larger(largest: int) -> Iterator[bytes]:
    size = 1 << 20
    while size <= largest:
        yield bytes(size)
        size *= 2
    yield b"last"


def test_an_item_larger_than_the_window_passes_alone(place: Place) -> None:
    """The window has 8 MiB."""
    sizes = [len(item) for item in place.open(larger_and_larger, 32 << 20)]
    assert sizes == [*(1 << n for n in range(20, 26)), 4]


def around_a_large_one(size: int) -> Iterator[bytes]:
    yield b"first"
    yield bytes(size)
    yield b"last"


def test_an_item_of_a_hundred_megabytes(place: Place) -> None:
    """A dozen windows at once, between two small ones."""
    assert [len(item) for item in place.open(around_a_large_one, 100_000_000)] == [5, 100_000_000, 4]


def first_then_slow(path: str) -> Iterator[str]:
    yield "first"
    until(Path(path).exists)
    yield "second"


def test_the_first_item_doesnt_wait_for_the_second(place: Place, tmp_path: Path) -> None:
    """It arrives when it is yielded."""
    if place.name == "loop":
        pytest.skip("the step would block the loop: see test_an_async_step")
    stream = place.open(first_then_slow, str(tmp_path / "go"))
    assert next(stream) == "first"
    note(tmp_path / "go", "on")
    assert list(stream) == ["second"]


def test_an_async_step_waits_on_the_loop(shared_client: Client) -> None:
    """Other tasks of the loop go on."""

    async def slow(key: str) -> AsyncIterator[str]:
        yield "first"
        await get_worker().plugins.setdefault(key, asyncio.Event()).wait()  # type: ignore[arg-type]
        yield "second"

    async def go(key: str) -> None:
        get_worker().plugins.pop(key).set()  # type: ignore[attr-defined]

    worker = next(iter(shared_client.nthreads()))
    stream = shared_client.submit(slow, "gate", workers=[worker]).result()
    assert next(stream) == "first"
    shared_client.submit(go, "gate", workers=[worker], pure=False).result()
    assert list(stream) == ["second"]


def with_a_value() -> Iterator[int]:
    yield 1
    return "value"  # a stream has it


def test_what_a_generator_returns(shared_client: Client) -> None:
    """`value`, after the end; asynchronous ones return nothing."""
    for name in ("thread", "process"):
        stream = Place(shared_client, name).open(with_a_value)
        assert stream.value is None
        assert (list(stream), stream.value) == ([1], "value")


def failing(count: int) -> Iterator[int]:
    yield from range(count)
    raise KeyError("its own")


@pytest.mark.parametrize("count", [0, 3, 100])
def test_an_error_comes_after_the_last_good_item(place: Place, count: int) -> None:
    """As itself; after it the stream is over."""
    stream = place.open(failing, count)
    assert [next(stream) for _ in range(count)] == list(range(count))
    with pytest.raises(KeyError, match="its own"):
        next(stream)
    assert next(stream, "over") == "over"


def raises(kind: type[BaseException]) -> Iterator[int]:
    yield 1
    raise kind


@pytest.mark.parametrize("executor", ["thread", "process"])
@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_would_end_a_reader_is_an_error(
    shared_client: Client, executor: str, kind: type[BaseException]
) -> None:
    """As it is when an ordinary task raises it."""
    stream = Place(shared_client, executor).open(raises, kind)
    assert next(stream) == 1
    with pytest.raises(sky.SkywardError, match=r"not an Exception|exit code"):
        next(stream)
    assert list(stream) == []


# --- who yields -----------------------------------------------------------------------------------------


class Yields:
    def __call__(self, count: int) -> Iterator[int]:
        yield from range(count)


@pytest.mark.parametrize("executor", ["thread", "process"])
@pytest.mark.parametrize(
    "function",
    [
        lambda count: (n for n in range(count)),
        Yields(),
        partial(numbers, 3),
        lambda count: numbers(count),
    ],
    ids=["genexp", "object", "partial", "returned"],
)
def test_whatever_returns_a_generator(
    shared_client: Client, executor: str, function: Callable[..., Iterator[int]]
) -> None:
    """A callable object, a lambda, a partial."""
    arguments = [] if isinstance(function, partial) else [3]
    with sky.options(executor=executor):
        assert list(shared_client.submit(function, *arguments, pure=False).result()) == [0, 1, 2]


@pytest.mark.parametrize("executor", ["thread", "process"])
def test_an_async_generator_that_a_function_returns(shared_client: Client, executor: str) -> None:
    """From a process slot, it is stepped there."""

    async def steps() -> AsyncIterator[int]:
        for n in range(3):
            await asyncio.sleep(0)
            yield os.getpid() if n == 2 else n

    with sky.options(executor=executor):
        *first, pid = shared_client.submit(lambda: steps(), pure=False).result()
    workers = set(shared_client.run(os.getpid).values())
    assert first == [0, 1] and (pid in workers) == (executor == "thread")


# --- one reader -----------------------------------------------------------------------------------------


def test_one_reader(place: Place) -> None:
    """Another one gets StreamTaken, also after the end; the first isn't disturbed."""
    future = place.submit(numbers, 100)
    first, second = future.result(), future.result()
    assert next(first) == 0
    with pytest.raises(sky.StreamTaken, match="another reader"):
        next(second)
    assert list(first) == list(range(1, 100))
    with pytest.raises(sky.StreamTaken):
        next(future.result())


def test_threads_share_a_stream(place: Place) -> None:
    """Each item goes to one of those that ask."""
    stream = place.open(numbers, 500)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(list, [stream] * 4))
    assert sorted(n for part in found for n in part) == list(range(500))


def test_nothing_runs_before_there_is_a_reader(place: Place, tmp_path: Path) -> None:
    """Opened, never read, dropped: the generator never begins."""
    path = str(tmp_path / "notes")
    future = place.submit(endless, path)
    stream = future.result()
    del future, stream
    gc.collect()
    assert_idle(place.client)
    assert notes(path) == []


def assert_idle(client: Client) -> None:
    """No stream is open, no slot is busy, and nobody outside a slot is left."""

    def state(dask_worker: Any) -> tuple[list[str], list[str | None], list[str]]:
        from skyward_dask.extension.worker.node import Node
        from skyward_dask.extension.worker.streams import WorkerStreams

        node = Node.of(dask_worker)
        assert node is not None
        slots = node._executor._counts.threads.snapshots(0)
        pool = node._pools.current
        runs = [run.key for run in pool._open] if pool is not None else []
        streams = WorkerStreams.of(dask_worker)
        return [*map(str, streams._ids), *streams.hosts._streams], [s.task for s in slots if s.task], runs

    found: dict[str, Any] = {}

    def is_idle() -> bool:
        found.update(client.run(state))
        return all(not any(each) for each in found.values())

    until(is_idle, found)


# --- back-pressure --------------------------------------------------------------------------------------


def counted(path: str) -> Iterator[int]:
    for n in range(1000):
        note(path, str(n))
        yield n


def test_a_slow_reader_stops_the_producer(place: Place, tmp_path: Path) -> None:
    """It is never further ahead than the window, of 256 items."""
    path = tmp_path / "notes"
    stream = place.open(counted, str(path))
    next(stream)
    until(lambda: len(notes(path)) >= 256)
    for taken in range(2, 200):
        next(stream)
        assert len(notes(path)) <= taken + 256
    stream.close()


def megabytes(path: str) -> Iterator[bytes]:
    for _ in range(1000):
        note(path, "one")
        yield bytes(1 << 20)


def test_bytes_stop_it_too(place: Place, tmp_path: Path) -> None:
    """8 MiB, and the item that has been computed and doesn't fit."""
    path = tmp_path / "notes"
    stream = place.open(megabytes, str(path))
    next(stream)
    until(lambda: len(notes(path)) >= 8)
    for taken in range(2, 30):
        next(stream)
        assert len(notes(path)) <= taken + 9
    stream.close()


def blocks(count: int) -> Iterator[tuple[int, int]]:
    """Numbers, and how many blocks of memory the process has."""
    for n in range(count):
        yield n, sys.getallocatedblocks()


@sized
def test_memory_stays_flat(place: Place) -> None:
    """While many items pass, none of the processes keeps anything of them."""
    count = size(20_000, 1_000_000)

    def held(of_generator: int) -> dict[str, int]:
        gc.collect()
        workers = place.client.run(lambda: (gc.collect(), sys.getallocatedblocks())[1])
        return {**workers, "reader": sys.getallocatedblocks(), "generator": of_generator}

    stream = place.open(blocks, count)
    before: dict[str, int] = {}
    for expected, (n, of_generator) in enumerate(stream):
        assert n == expected
        if n == count // 4:
            before = held(of_generator)
        if n == count - 1000:
            after = held(of_generator)
    assert n == count - 1
    assert {who: after[who] - before[who] for who in after if after[who] > before[who] + count // 4} == {}


# --- closing --------------------------------------------------------------------------------------------


def close(stream: sky.Stream[Any], future: Future[Any]) -> None:
    stream.close()
    stream.close()


def leave_the_block(stream: sky.Stream[Any], future: Future[Any]) -> None:
    with stream:
        pass


def cancel(stream: sky.Stream[Any], future: Future[Any]) -> None:
    future.cancel()


@pytest.mark.parametrize("how", [close, leave_the_block, cancel])
def test_closing(place: Place, tmp_path: Path, how: Callable[..., None]) -> None:
    """The generator's `finally` runs, and the slot is free."""
    path = tmp_path / "notes"
    future = place.submit(endless, str(path))
    stream = future.result()
    next(stream)
    how(stream, future)
    until(lambda: notes(path)[-1:] == ["closed"])
    if how is cancel:
        with pytest.raises(sky.StreamBroken, match="cancelled"):
            list(stream)
    else:
        assert list(stream) == []
    del future, stream
    assert_idle(place.client)


@pytest.mark.parametrize("what", ["stream", "future"])
def test_dropping(place: Place, tmp_path: Path, what: str) -> None:
    """A reader that is collected ends the stream; a future alone doesn't, as long as the stream is held."""
    path = tmp_path / "notes"
    future = place.submit(endless, str(path))
    stream = future.result()
    next(stream)
    if what == "stream":
        del stream
        gc.collect()
        until(lambda: notes(path)[-1:] == ["closed"])
        del future
    else:
        del future
        gc.collect()
        assert [next(stream) for _ in range(200)] == list(range(1, 201))
        stream.close()
    assert_idle(place.client)


def test_close_from_another_thread_ends_a_wait(shared_client: Client, tmp_path: Path) -> None:
    """Whoever waits in `next` is told that it is over."""
    for name in ("thread", "process"):
        stream = Place(shared_client, name).open(first_then_slow, str(tmp_path / f"go-{name}"))
        assert next(stream) == "first"
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(list, stream)
            stream.close()
            assert waiting.result(PATIENCE) == []
        note(tmp_path / f"go-{name}", "on")
    assert_idle(shared_client)


def long_step(path: str) -> Iterator[int]:
    yield 0
    try:
        note(path, "begun")
        time.sleep(PATIENCE * 10)
    finally:
        note(path, "closed")


def deaf(path: str) -> Iterator[int]:
    yield 0
    note(path, "begun")
    while True:
        try:
            time.sleep(PATIENCE * 10)
        except KeyboardInterrupt:
            note(path, "interrupted")


@pytest.mark.parametrize("generator", [long_step, deaf])
def test_a_long_step_in_a_process_is_interrupted_then_killed(
    shared_client: Client, tmp_path: Path, generator: Callable[..., Iterator[int]]
) -> None:
    """The usual ladder."""
    path = tmp_path / "notes"
    stream = Place(shared_client, "process").open(generator, str(path))
    assert next(stream) == 0
    until(lambda: notes(path) == ["begun"])  # closed before, it would have no step to interrupt
    stream.close()
    until(lambda: notes(path) in (["begun", "closed"], ["begun", "interrupted"]))
    assert_idle(shared_client)


def test_a_long_step_on_the_loop_is_cancelled(shared_client: Client, tmp_path: Path) -> None:
    """As any coroutine."""
    path = str(tmp_path / "notes")

    async def steps() -> AsyncIterator[int]:
        yield 0
        try:
            note(path, "begun")
            await asyncio.sleep(PATIENCE * 10)
        finally:
            note(path, "closed")

    stream = shared_client.submit(steps, pure=False).result()
    assert next(stream) == 0
    until(lambda: notes(path) == ["begun"])
    stream.close()
    until(lambda: notes(path) == ["begun", "closed"])
    assert_idle(shared_client)


def test_items_under_way_are_dropped_with_their_memory(place: Place) -> None:
    """After `close`, nobody refers to them."""
    stream = place.open(megabytes, os.devnull)
    item = next(stream)
    reading: Any = stream._reading
    inbox, seen = reading._inbox, weakref.ref(reading)
    stream.close()
    until(lambda: len(inbox) == 0)
    assert len(item) == 1 << 20
    del stream, reading
    until(lambda: gc.collect() >= 0 and seen() is None)


# --- asynchronous readers, and tasks that read ----------------------------------------------------------


def test_reading_asynchronously(place: Place) -> None:
    """`async for`, on any event loop."""
    stream = place.open(numbers, 300)

    async def read() -> list[int]:
        return [n async for n in stream]

    assert asyncio.run(read()) == list(range(300))


@pytest.mark.parametrize("reader", ["thread", "process", "loop"])
@pytest.mark.parametrize("where", ["same worker", "other worker"])
def test_a_task_reads_anothers_stream(place: Place, reader: str, where: str) -> None:
    """Its future is the argument."""
    one, other = place.client.nthreads()
    future = place.submit(numbers, 500, workers=[one])

    async def total_async(stream: sky.Stream[int]) -> int:
        return sum([n async for n in stream])

    def total(stream: Iterator[int]) -> int:
        return sum(stream)

    worker = one if where == "same worker" else other
    options = {"workers": [worker], "pure": False}
    if reader == "loop":
        found = place.client.submit(total_async, future, **options).result(PATIENCE)
    else:
        with sky.options(executor=reader):
            found = place.client.submit(total, future, **options).result(PATIENCE)
    assert found == sum(range(500))


def first_of_each(stream: Iterator[Any]) -> list[int]:
    return [int(array[0]) for array in stream]


@pytest.mark.parametrize("where", ["same worker", "other worker"])
def test_a_task_reads_large_items(place: Place, where: str) -> None:
    """They are as they were when they were yielded; those larger than the window pass too."""
    one, other = place.client.nthreads()
    worker = one if where == "same worker" else other
    for reader in ("thread", "process"):
        arrays = place.submit(reused, 20, workers=[one])
        larger = place.submit(larger_and_larger, 16 << 20, workers=[one])
        with sky.options(executor=reader):
            values = place.client.submit(first_of_each, arrays, workers=[worker], pure=False)
            sizes = place.client.submit(lambda items: [*map(len, items)], larger, workers=[worker])
        assert values.result(PATIENCE) == list(range(1, 21))
        assert sizes.result(PATIENCE) == [*(1 << n for n in range(20, 25)), 4]


def are_shared(stream: Iterator[Any]) -> list[bool]:
    """Whether each array is in memory that is shared with the worker; it can be written to all the same."""
    found = []
    for array in stream:
        where = array.__array_interface__["data"][0]
        with open("/proc/self/maps") as maps:
            spans = [line.split("-", 1) for line in maps if "memfd:" in line]
        found.append(any(int(a, 16) <= where < int(b.split()[0], 16) for a, b in spans))
        array[:] = 0
    return found


@pytest.mark.skipif(not is_supported(), reason="shared memory needs Linux")
def test_large_items_go_from_slot_to_slot_by_reference(shared_client: Client) -> None:
    """Of one worker; those from elsewhere are sent."""
    one, other = shared_client.nthreads()
    for worker, shared in ((one, True), (other, False)):
        with sky.options(executor="process"):
            source = shared_client.submit(reused, 50, workers=[one], pure=False)
            reader = shared_client.submit(are_shared, source, workers=[worker], pure=False)
        assert reader.result(PATIENCE) == [shared] * 50


def are_copied(stream: Any) -> tuple[list[int], bool]:
    """What was read, and whether the reader itself has copied some of it from the host's shared memory."""
    found = [int(next(stream)[0])]
    reading = stream._reading
    copies = [reading._neighbour._segments.copy()]
    for array in stream:
        found.append(int(array[0]))
        copies.append(reading._neighbour._segments.copy())
    return found, any(copies)


@pytest.mark.skipif(not is_supported(), reason="shared memory needs Linux")
def test_large_items_go_by_reference_to_other_processes_of_the_machine(shared_client: Client) -> None:
    """Of a process slot: a client and another worker copy them; no memory is used again too early."""
    one, other = shared_client.nthreads()
    submit = partial(Place(shared_client, "process").submit, reused, 60, workers=[one])
    everything = list(range(1, 61))
    assert are_copied(submit().result(PATIENCE)) == (everything, True)
    with sky.options(executor="thread"):
        reader = shared_client.submit(are_copied, submit(), workers=[other], pure=False)
    assert reader.result(PATIENCE) == (everything, True)


@pytest.mark.skipif(not is_supported(), reason="shared memory needs Linux")
def test_items_that_nobody_has_taken_outlive_their_stream(shared_client: Client) -> None:
    """They are copied when it ends, as its worker uses the memory again."""
    one, _ = shared_client.nthreads()
    place = Place(shared_client, "process")
    stream = place.open(reused, 16, workers=[one])
    first = [int(next(stream)[0]) for _ in range(10)]
    reading: Any = stream._reading
    until(lambda: reading._inbox.last is not None)
    assert len(reading._inbox) == 6
    assert [int(array[0]) for array in place.open(reused, 50, workers=[one])] == list(range(1, 51))
    assert [*first, *(int(array[0]) for array in stream)] == list(range(1, 17))


def test_two_clients_hold_one_future(place: Place, tmp_path: Path) -> None:
    """There is one reader all the same, and the stream stays open until both have dropped it."""
    path = str(tmp_path / "notes")
    future = place.submit(endless, path)
    with Client(place.client.scheduler.address, set_as_default=False) as other:
        place.client.publish_dataset(held=future)
        stream = other.get_dataset("held").result(PATIENCE)
        place.client.unpublish_dataset("held")
        assert next(stream) == 0
        with pytest.raises(sky.StreamTaken):
            next(future.result(PATIENCE))
        del future
        gc.collect()
        assert [next(stream) for _ in range(300)] == list(range(1, 301))
        del stream
        gc.collect()
        until(lambda: notes(path)[-1:] == ["closed"])
    assert_idle(place.client)


def test_two_tasks_cant_read_one_stream(place: Place) -> None:
    """Though both are on the stream's worker."""
    one, _ = place.client.nthreads()
    future = place.submit(numbers, 500, workers=[one])
    readers = [place.client.submit(sum, future, workers=[one], pure=False) for _ in range(2)]
    outcomes = [reader.exception(PATIENCE) for reader in readers]
    assert sorted(map(type, outcomes), key=str) == sorted([type(None), sky.StreamTaken], key=str)


def doubled(source: Iterator[int]) -> Iterator[int]:
    for n in source:
        yield 2 * n


@pytest.mark.parametrize("executor", ["thread", "process"])
def test_streams_of_streams_in_one_slot(shared_client: Client, executor: str) -> None:
    """Whoever waits gives its slot away: a chain of five, and its last reader, make do with one slot."""
    one, _ = shared_client.nthreads()
    sky.resize(shared_client, 1, workers=[one])
    try:
        with sky.options(executor=executor):
            stream = shared_client.submit(numbers, 200, workers=[one], pure=False)
            for _ in range(4):
                stream = shared_client.submit(doubled, stream, workers=[one], pure=False)
            total = shared_client.submit(sum, stream, workers=[one], pure=False).result(PATIENCE)
        assert total == 16 * sum(range(200))
        del stream
    finally:
        sky.resize(shared_client, 2)
    assert_idle(shared_client)


def one_more(source: Iterator[int]) -> Iterator[int]:
    for n in source:
        yield n + 1


@pytest.mark.parametrize("executor", ["thread", "process"])
def test_two_streams_that_feed_each_other_in_one_slot(shared_client: Client, executor: str) -> None:
    """Each waits for the other's next item, in turn."""
    one, _ = shared_client.nthreads()
    back: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    back.put(0)
    sky.resize(shared_client, 1, workers=[one])
    try:
        with sky.options(executor=executor):
            fed = sky.feed(iter(back.get, None), client=shared_client)
            left = shared_client.submit(one_more, fed, workers=[one], pure=False)
            right = shared_client.submit(one_more, left, workers=[one], pure=False).result(PATIENCE)
        found = []
        for n in right:
            found.append(n)
            back.put(n if n < 20 else None)
    finally:
        sky.resize(shared_client, 2)
    assert found == list(range(2, 21, 2))


@pytest.mark.parametrize("executor", ["thread", "process"])
def test_a_stream_that_waits_holds_no_slot(shared_client: Client, executor: str, tmp_path: Path) -> None:
    """Tasks run in it meanwhile; it comes back when its reader goes on."""
    one, _ = shared_client.nthreads()
    sky.resize(shared_client, 1, workers=[one])
    try:
        with sky.options(executor=executor):
            path = str(tmp_path / "notes")
            stream = shared_client.submit(counted, path, workers=[one], pure=False).result()
            assert next(stream) == 0
            for n in range(3):
                assert shared_client.submit(abs, -n, workers=[one], pure=False).result(PATIENCE) == n
            assert [next(stream) for _ in range(200)] == list(range(1, 201))
            stream.close()
    finally:
        sky.resize(shared_client, 2)
    assert_idle(shared_client)


@pytest.mark.parametrize("executor", ["thread", "process"])
@sized
def test_a_reader_that_stands_still(shared_client: Client, executor: str, tmp_path: Path) -> None:
    """For a minute, at full size: the producer stops at its window; the only slot serves others meanwhile."""
    one, _ = shared_client.nthreads()
    path = tmp_path / "notes"
    sky.resize(shared_client, 1, workers=[one])
    try:
        stream = Place(shared_client, executor).open(counted, str(path), workers=[one])
        assert next(stream) == 0
        until(lambda: len(notes(path)) == 256)
        end = time.monotonic() + size(0, 60)
        served = 0
        while served < 20 or time.monotonic() < end:
            with sky.options(executor=executor):
                assert (
                    shared_client.submit(abs, -served, workers=[one], pure=False).result(PATIENCE) == served
                )
            served += 1
        assert len(notes(path)) == 256
        assert list(stream) == list(range(1, 1000))
    finally:
        sky.resize(shared_client, 2)
    assert_idle(shared_client)


def computes_then_waits(path: str) -> Iterator[int]:
    yield 0
    until(lambda: "go" in notes(path))
    yield from range(1, 1000)


@pytest.mark.parametrize("executor", ["thread", "process"])
def test_the_scheduler_sees_one_slot_less(shared_client: Client, executor: str, tmp_path: Path) -> None:
    """While a stream computes, however many slots there are; not while it waits for its reader."""

    def seen() -> tuple[list[int], int, int]:
        def books(dask_scheduler: Any) -> tuple[list[int], int, int]:
            slots = [ws.nthreads for ws in dask_scheduler.workers.values()]
            hosts = sum(host["nthreads"] for host in dask_scheduler.host_info.values())
            return slots, dask_scheduler.total_nthreads, hosts

        found: tuple[list[int], int, int] = shared_client.run_on_scheduler(books)
        return found

    path = str(tmp_path / "notes")
    with sky.options(executor=executor):
        one, _ = shared_client.nthreads()
        stream = shared_client.submit(computes_then_waits, path, workers=[one], pure=False).result(PATIENCE)
    try:
        assert next(stream) == 0
        until(lambda: seen() == ([1, 2], 3, 3))
        sky.resize(shared_client, 3, workers=[one])
        assert seen() == ([2, 2], 4, 4)
        sky.resize(shared_client, 1, workers=[one])
        assert seen() == ([1, 2], 3, 3)  # a worker has always one: Dask divides by their number
    finally:
        sky.resize(shared_client, 2)
    assert seen() == ([1, 2], 3, 3)
    assert {slots for *_, slots in shared_client.sync(shared_client.scheduler.skyward_nodes)} == {2}
    note(path, "go")
    until(lambda: seen() == ([2, 2], 4, 4))
    assert list(stream) == list(range(1, 1000))


def opens_another(count: int) -> Iterator[int]:
    with worker_client() as client:
        yield from client.submit(numbers, count, pure=False).result()


@pytest.mark.parametrize("executor", ["thread", "process"])
def test_a_generator_opens_another_stream(shared_client: Client, executor: str) -> None:
    """In one slot, by the worker's client."""
    one, _ = shared_client.nthreads()
    sky.resize(shared_client, 1, workers=[one])
    try:
        stream = Place(shared_client, executor).open(opens_another, 500, workers=[one])
        assert list(stream) == list(range(500))
    finally:
        sky.resize(shared_client, 2)
    assert_idle(shared_client)


def reads_and_stops(source: Iterator[int], count: int) -> Iterator[int]:
    for _ in range(count):
        yield next(source)


def test_closing_goes_upstream(place: Place, tmp_path: Path) -> None:
    """Whoever ends closes what it reads; so does a reader that is closed."""
    for count, take in ((3, 3), (10**6, 5)):
        path = tmp_path / f"notes-{count}"
        source = place.submit(endless, str(path))
        stream = place.open(reads_and_stops, source, count) if place.name != "loop" else None
        if stream is None:  # an asynchronous generator reads asynchronously
            return
        assert [next(stream) for _ in range(take)] == list(range(take))
        stream.close()
        until(lambda path=path: notes(path)[-1:] == ["closed"])


# --- inside a generator ---------------------------------------------------------------------------------


counter = contextvars.ContextVar("counter", default=0)


def looks_around() -> Iterator[Any]:
    token = counter.set(1)
    yield threading.get_ident()
    yield threading.get_ident()
    counter.reset(token)  # one context for all steps
    yield get_worker().address
    shared = sky.dict("seen-by-streams")
    shared["key"] = shared.get("key", 0) + 1
    with sky.lock("held-by-a-stream"):
        yield shared["key"]


def test_inside_it_is_a_task(place: Place) -> None:
    """One thread, one context; `get_worker`, collections, locks."""
    if place.name == "loop":
        pytest.skip("collections have asynchronous twins there")
    first, second, address, value = place.open(looks_around)
    assert first == second
    assert address in place.client.nthreads()
    assert value == 1
    sky.dict("seen-by-streams", client=place.client).destroy()


def holds_a_lock() -> Iterator[int]:
    sky.lock("left-by-a-stream").acquire()
    yield from range(1, 1000)


def test_a_lock_is_free_when_its_stream_has_ended(place: Place) -> None:
    """However it ends."""
    if place.name == "loop":
        pytest.skip("collections have asynchronous twins there")
    stream = place.open(holds_a_lock)
    assert next(stream) == 1
    lock = sky.lock("left-by-a-stream", client=place.client)
    assert lock.locked()
    stream.close()
    assert lock.acquire(timeout=PATIENCE)
    lock.release()
    lock.destroy()


def secedes() -> Iterator[int]:
    from distributed import rejoin, secede

    yield 1
    secede()
    yield 2
    rejoin()
    yield 3


@pytest.mark.parametrize("executor", ["thread", "process"])
def test_secede_in_a_generator(shared_client: Client, executor: str) -> None:
    """It changes nothing about its task, which is finished."""
    assert list(Place(shared_client, executor).open(secedes)) == [1, 2, 3]
    assert_idle(shared_client)


def stuck(path: str) -> Iterator[int]:
    yield 0
    note(path, "stepping")
    until(lambda: "go" in notes(path))
    yield 1


@pytest.mark.parametrize("executor", ["thread", "process"])
def test_seeing_a_stream(shared_client: Client, executor: str, tmp_path: Path) -> None:
    """`statistics` counts streams, items and bytes; `stack` says where a generator stands."""

    def counted() -> tuple[int, int, int]:
        found = [worker.streams for worker in sky.statistics(shared_client).workers.values()]
        return sum(s.open for s in found), sum(s.items for s in found), sum(s.nbytes for s in found)

    open_before, items_before, bytes_before = counted()
    path = tmp_path / "notes"
    with sky.options(executor=executor):
        future = shared_client.submit(stuck, str(path), pure=False)
    stream = future.result(PATIENCE)
    assert sky.stack(future) == ""
    assert next(stream) == 0
    until(lambda: notes(path) == ["stepping"])
    stack = sky.stack(future)
    assert "in stuck" in stack.splitlines()[0] and "in until" in stack
    until(lambda: counted()[:2] == (open_before + 1, items_before + 1))  # with the next heartbeat
    assert counted()[2] > bytes_before
    note(path, "go")
    assert list(stream) == [1]
    until(lambda: counted()[:2] == (open_before, items_before + 2))
    assert "streams" in repr(sky.statistics(shared_client))

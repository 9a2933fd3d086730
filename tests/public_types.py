"""What type checkers see of each documented call; checked by mypy and pyright, never run."""

from __future__ import annotations

import queue
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, assert_type

from distributed import Client
from distributed import Future as DaskFuture

import skyward_dask as sky


@sky.function
def double(n: int) -> int:
    return 2 * n


@sky.function
def name(n: int, *, upper: bool = False) -> str:
    return str(n)


def gpu(slot: int) -> str:
    return str(slot // 2)


def workers() -> None:
    sky.Worker(4, "process", timeout="3s", memory_limit="2GiB", pre_import=["numpy"], max_tasks_per_child=1)
    sky.Worker(executor="thread", concurrency=None)
    worker = sky.Worker(
        timeout=2.5, memory_limit=2**30, env={"A": "{slot}", "B": gpu}, initializer=print, health_check=bool
    )
    env: dict[str, Callable[[int], str]] = {"A": gpu}
    sky.Worker(env=env, pre_import=("numpy",))
    assert_type(worker.timeout, float | None)
    assert_type(worker.memory_limit, int | None)
    assert_type(worker.pre_import, tuple[str, ...])
    assert_type(sky.Worker.from_config(concurrency=3), sky.Worker)
    sky.Worker(executor="processes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def clusters(client: Client, worker: sky.Worker, future: DaskFuture[int]) -> None:
    sky.install(client, worker)
    sky.install(client)
    sky.resize(client, concurrency=8, workers=["tcp://10.0.0.5:40331"])
    sky.uninstall(client)
    client.register_plugin(sky.SkywardPlugin(worker))
    with sky.options(executor="process", timeout="30s", memory_limit="1GiB"):
        pass
    assert_type(sky.stack(future), str)
    assert_type(sky.cancelled(), bool)


def looking(client: Client) -> None:
    statistics = sky.statistics(client)
    assert_type(statistics, sky.Statistics)
    for address, worker in statistics.workers.items():
        assert_type(address, str)
        assert_type(worker.slots[0].memory, int)
        assert_type(worker.slots[0].task, str | None)
    assert_type(statistics.tasks, dict[tuple[str, str], int])
    assert_type(statistics.collections["x"].size, int)
    assert_type(sky.collections(client), dict[str, sky.Collection])
    check = sky.check(client, timeout=3)
    assert_type(check, sky.Check)
    assert_type(check.problems, tuple[str, ...])
    assert_type(check.workers["tcp://10.0.0.5:40331"].executor, str | None)


def calls(compute: sky.Compute) -> None:
    assert_type(double(4) >> compute, int)
    assert_type(double(4) > compute, Future[int])
    assert_type(double.local(4), int)
    assert_type(double(4).with_timeout("3s") >> compute, int)
    assert_type((double(1) & double(2)).with_timeout(3) >> compute, tuple[int, int])
    assert_type((double(1) & name(2, upper=True)) >> compute, tuple[int, str])
    assert_type((double(1) & name(2) & double(3)) >> compute, tuple[int, str, int])
    assert_type(sky.gather(double(1), double(2)) >> compute, list[int])
    assert_type(sky.gather(*(double(n) for n in range(3)), stream=True) >> compute, Iterator[int])
    for number in sky.gather(double(1), stream=True, ordered=False).with_timeout(3) >> compute:
        assert_type(number, int)
    double("4")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    double >> compute  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue, reportUnusedExpression]


def targets(compute: sky.Compute, client: Client) -> None:
    assert_type(double(4) @ compute, list[int])
    assert_type(compute.nodes[0], sky.Node)
    assert_type(compute.nodes[1:], list[sky.Node])
    assert_type(compute.nodes[0].address, str)
    assert_type(double(4) >> compute.nodes[0], int)
    assert_type(name(4) @ client, list[str])
    assert_type(name(4) >> client, str)
    assert_type(double(4) > client, Future[int])
    assert_type((double(1) & name(2)) >> sky, tuple[int, str])
    assert_type(double(4) >> sky, int)
    assert_type(sky.gather(double(1), progress=False) >> compute.nodes[0], list[int])
    assert_type(compute.map(str, range(3), progress=False), list[str])
    compute.resize((1, 4), timeout="30s")
    try:
        _ = double(4) @ compute
    except sky.BroadcastError as error:
        assert_type(error.errors[0], BaseException)
    for call in double(1) & double(2):
        assert_type(call >> compute, Any)
    assert_type(len(sky.gather(double(1))), int)


@sky.silent
@sky.function
def hushed(n: int) -> str:
    return str(n)


@sky.function
@sky.stdout(only="head")
@sky.stderr(only=lambda info: info.slot == 0)
def shouted(n: int) -> str:
    return str(n)


def printing(compute: sky.Compute) -> None:
    assert_type(hushed(4) >> compute, str)
    assert_type(shouted(4) @ compute, list[str])
    shouted("4")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    sky.stdout(only="tail")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    lines: list[sky.OutputLine] = []
    with sky.output(compute.client, to=lines.append):
        assert_type(lines[0].key, str)
        assert_type(lines[0].left_out, int)


async def printing_on_a_loop(client: Client) -> None:
    async with sky.output(client):
        pass


def pools() -> None:
    with sky.Compute(2, sky.Worker(executor="process")) as compute:
        assert_type(compute, sky.Compute)
        assert_type(compute.client, Client)
        assert_type(compute.counter("x").increment(), int)
        work: sky.Queue[int] = compute.queue("work", maxsize=3)
        assert_type(work.get(), int)
        seen: sky.Set[str] = compute.set("seen", shards=2)
        cache: sky.Dict[str, float] = compute.dict("cache", consistency="eventual")
        assert_type(seen.add("x"), bool)
        assert_type(cache["x"], float)
        assert_type(compute.barrier("x", 2), sky.Barrier)
        assert_type(compute.map(double, [1, 2]), list[int])
        assert_type(compute.map(gpu, range(3)), list[str])
        assert_type(compute.lock("x"), sky.Lock)
    sky.Compute(nodes=(2, 8))
    sky.Compute(cluster="tcp://10.0.0.5:8786")


def dicts(client: Client) -> None:
    values: sky.Dict[str, int] = sky.dict("x", consistency="eventual", shards=4, client=client)
    values["a"] = 1
    del values["a"]
    assert_type(values["a"], int)
    assert_type(values.get("a"), int | None)
    assert_type(values.get("a", 0), int)
    assert_type(values.setdefault("a", 1), int)
    assert_type(values.pop("a"), int)
    assert_type(values.popitem(), tuple[str, int])
    assert_type(values.compare_and_set("a", 1, 2), bool)
    assert_type(values.get_or_compute("a", lambda: 3), int)
    assert_type(len(values), int)
    assert_type("a" in values, bool)
    assert_type(list(values), list[str])
    assert_type(dict(values), dict[str, int])
    assert_type([*values.items()], list[tuple[str, int]])
    assert_type([*values.values()], list[int])
    values.update({"a": 1})
    values.update(a=1)
    values.clear()
    values.destroy()


def sets() -> None:
    seen: sky.Set[str] = sky.set("x", shards=2)
    added: bool = seen.add("a")
    assert_type(added, bool)
    assert_type(seen.update(["a"]), int)
    assert_type(seen.pop(), str)
    seen.discard("a")
    seen.remove("a")
    assert_type("a" in seen, bool)
    assert_type(list(seen), list[str])


def counters() -> None:
    counter = sky.counter("x", consistency="strong")
    assert_type(counter.value, int)
    assert_type(counter.get_value(), int)
    assert_type(int(counter), int)
    assert_type(counter.increment(5), int)
    assert_type(counter.decrement(), int)
    assert_type(counter.compare_and_set(1, 2), bool)
    counter.reset()


def queues() -> None:
    jobs: sky.Queue[int] = sky.queue("x", 10)
    jobs.put(1, timeout=2.5)
    jobs.put_nowait(1)
    jobs.put_many([1, 2], block=False)
    with suppress(queue.Empty):
        assert_type(jobs.get(timeout=1), int)
    assert_type(jobs.get_nowait(), int)
    assert_type(jobs.get_many(10), list[int])
    assert_type(jobs.qsize(), int)
    assert_type(jobs.empty(), bool)
    jobs.put("a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def meeting() -> None:
    barrier = sky.barrier("x", 2)
    assert_type(barrier.wait(timeout=1), int)
    assert_type(barrier.parties, int)
    assert_type(barrier.n_waiting, int)
    assert_type(barrier.get_n_waiting(), int)
    assert_type(barrier.broken, bool)
    barrier.abort()
    barrier.reset()
    assert_type(sky.lock("x").acquire(blocking=False), bool)
    assert_type(sky.lock("x").holder(), sky.Holder | None)
    assert_type(sky.lock("x").fence, int)
    with sky.lock("x") as lock:
        assert_type(lock, sky.Lock)
        assert_type(lock.locked(), bool)
    lock.release()


async def twins() -> None:
    values: sky.Dict[str, int] = sky.dict("x")
    assert_type(await values.getitem_async("a"), int)
    assert_type(await values.get_or_compute_async("a", lambda: 3), int)
    assert_type(await values.len_async(), int)
    async for key in values:
        assert_type(key, str)
    assert_type(values.items_async(), AsyncIterator[tuple[str, int]])
    seen: sky.Set[str] = sky.set("x")
    assert_type(await seen.add_async("a"), bool)
    async for member in seen:
        assert_type(member, str)
    jobs: sky.Queue[int] = sky.queue("x")
    assert_type(await jobs.get_async(timeout=1), int)
    assert_type(await sky.counter("x").increment_async(n=5), int)
    assert_type(await sky.counter("x").value_async(), int)
    assert_type(await sky.barrier("x", 2).wait_async(), int)
    assert_type(await sky.lock("x").acquire_async(timeout=1), bool)
    async with sky.lock("x") as lock:
        assert_type(lock, sky.Lock)
    await lock.destroy_async()


def places() -> None:
    assert_type(sky.shard([1, 2], node=0, total_nodes=2), list[int])
    assert_type(sky.shard([1], "a", shuffle=True, seed=3, drop_last=True), tuple[list[int], str])
    info = sky.instance_info()
    assert_type(info, sky.InstanceInfo | None)
    if info is not None:
        assert_type(info.index, int | None)
        assert_type(info.peers, tuple[str, ...])


def numbers(samples: Iterator[float]) -> Iterator[float]:
    yield from samples


@sky.function
def averages(samples: Iterator[float], window: int) -> Iterator[float]:
    yield from samples


@sky.function
def counted(samples: Iterator[float]) -> Generator[str, None, int]:
    yield from map(str, samples)
    return 3


@sky.function
async def later(samples: AsyncIterator[float]) -> AsyncIterator[float]:
    async for sample in samples:
        yield sample


def calls_that_yield(compute: sky.Compute, client: Client, samples: list[float]) -> None:
    assert_type(averages(iter(samples), window=3) >> compute, sky.Stream[float])
    assert_type(averages(iter(samples), 3) > client, Future[sky.Stream[float]])
    assert_type(averages(iter(samples), 3) @ compute, list[sky.Stream[float]])
    assert_type(counted(iter(samples)) >> compute, sky.Stream[str])
    assert_type(name(3) >> compute, str)
    for item in averages.local(iter(samples), 3):
        assert_type(item, float)


def streams(client: Client, stream: sky.Stream[float]) -> None:
    assert_type(sky.feed([1, 2]), sky.Stream[int])
    client.submit(numbers, sky.feed(iter([1.0]), client=client))
    for number in stream:
        assert_type(number, float)
    with stream as same:
        assert_type(same, sky.Stream[float])
    stream.close()
    assert_type(sky.statistics(client).workers["x"].streams, sky.StreamStatistics)


async def reading(stream: sky.Stream[float]) -> None:
    async for number in stream:
        assert_type(number, float)
    async with stream:
        pass


def errors(error: sky.SlotCrashed, timeout: sky.TaskTimeout, memory: sky.SlotOutOfMemory) -> None:
    assert_type(error.pid, int)
    assert_type(error.exitcode, int | None)
    assert_type(error.signal, str | None)
    assert_type(timeout.seconds, float)
    assert_type(memory.peak, int)

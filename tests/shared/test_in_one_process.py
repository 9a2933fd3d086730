"""Where no cluster is shared: workers in the test's own process, a cluster of `Compute`'s, and none."""

from __future__ import annotations

import asyncio
import pickle
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from distributed import Client, LocalCluster, Status, Worker
from distributed.comm import connect, listen
from distributed.core import ConnectionPool
from tornado.ioloop import IOLoop

import skyward_dask as sky
from skyward_dask.extension.collections.call_messages import Request, pickled, read, written
from skyward_dask.extension.collections.directory_messages import (
    SIZES,
    Fence,
    Fill,
    GiveWay,
    Gone,
    Lead,
    as_operation,
    ask,
    is_standby,
)
from skyward_dask.extension.collections.frames import frames_over
from skyward_dask.extension.collections.homes import Homes
from skyward_dask.extension.collections.links import MOVED, Links, OnLoop
from skyward_dask.extension.collections.routes import Routes
from skyward_dask.extension.collections.worker_collections import WorkerCollections
from skyward_dask.shared.asks import Ask, Route, Spec
from skyward_dask.shared.events import Call, Caller, Moved
from tests.clusters import gen_cluster


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)] * 2)
async def test_in_gen_cluster(c: Any, s: Any, a: Any, b: Any) -> None:
    """On workers that have no slots of ours, several in one process; nothing is left behind."""
    await sky.counter("x").increment_async(2)
    futures = c.map(lambda n: sky.counter("x").increment(n), range(5), pure=False)
    await c.gather(futures)
    assert await sky.counter("x").value_async() == 12
    assert [name for (name,) in [(each,) for each in await sky.collections(c)]] == ["x"]
    assert [is_standby(key) for key in (*a.state.actors, *b.state.actors)].count(False) == 1


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)])
async def test_destroying_leaves_nothing(c: Any, s: Any, a: Any) -> None:
    """No actor in the worker, no task in the scheduler."""
    d = sky.dict("x", shards=3)
    await d.setitem_async(1, 1)
    assert len(a.state.actors) == len(s.tasks) == 3
    await d.destroy_async()
    while a.state.actors or s.tasks:
        await asyncio.sleep(0.01)


def test_a_cluster_of_threads() -> None:
    """Its workers and its client are one process, and its addresses inproc://."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        futures = client.map(lambda n: sky.counter("x").increment(n), range(5), pure=False)
        client.gather(futures)
        assert sky.counter("x").value == 10
        with sky.lock("l"):
            assert client.submit(lambda: sky.lock("l").acquire(timeout=0.01), pure=False).result() is False


def test_a_client_that_closes_meanwhile() -> None:
    """Who waits in another thread gets an error, and so does who comes afterwards."""
    with LocalCluster(n_workers=1, dashboard_address=None) as cluster, ThreadPoolExecutor(1) as threads:
        with Client(cluster) as client:
            q = sky.queue("q")
            q.qsize()
            waiter = threads.submit(q.get)
            while not sky.collections(client)["q"].waiting:
                pass
        with pytest.raises(sky.SkywardError):  # which one depends on what is faster: the word, or the end
            waiter.result(timeout=200)
        with pytest.raises(sky.ConfigurationError, match="closed"):
            q.get()


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)] * 2)
async def test_a_client_that_connects_again(c: Any, s: Any, a: Any, b: Any) -> None:
    """Goes on, also with what it waits for; what it held is free, for the scheduler took it for lost."""
    q, lock, counter = sky.queue("q"), sky.lock("l"), sky.counter("c")
    await lock.acquire_async()
    assert await q.empty_async() and await counter.increment_async() == 1
    waiting = asyncio.ensure_future(q.get_async())
    for expected in (2, 3):
        while not (await sky.collections(c))["q"].waiting:
            await asyncio.sleep(0.01)
        connection = c.scheduler_comm
        connection.comm.abort()
        assert await counter.increment_async() == expected
        while c.scheduler_comm in (None, connection):
            await asyncio.sleep(0.01)
    await q.put_async("item")
    assert await waiting == "item"
    with pytest.raises(sky.LockError):
        await lock.release_async()
    assert await lock.acquire_async(blocking=False)


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)])
async def test_after_the_end_of_the_scheduler(c: Any, s: Any, a: Any) -> None:
    """Who waits, who comes while the client hopes for it, and who comes later gets an error of ours."""
    async with Client(s.address, asynchronous=True, set_as_default=False, timeout=3) as other:
        q, d, lock = (make("x-" + make.__name__, client=other) for make in (sky.queue, sky.dict, sky.lock))
        await lock.acquire_async()
        assert await q.empty_async() and not await d.len_async()
        waiting = asyncio.ensure_future(q.get_async())
        while not (await sky.collections(c))["x-queue"].waiting:
            await asyncio.sleep(0.01)
        await s.close()
        with pytest.raises(sky.CollectionLost):
            await waiting
        while other.status == "running":  # it hasn't noticed yet
            await asyncio.sleep(0.01)
        seen = set()
        while "closed" not in seen:
            seen.add(other.status)
            for operation in (q.get_async, d.len_async, lock.release_async, d.destroy_async):
                with pytest.raises(sky.SkywardError):
                    await operation()
            with pytest.raises(sky.SkywardError):
                await sky.counter("new", client=other).increment_async()
            with pytest.raises(sky.SkywardError):
                await sky.collections(other)
            await asyncio.sleep(0.01)  # let the client go on closing: what is refused at once doesn't
        assert "connecting" in seen


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)] * 2)
async def test_a_fault_of_ours_ends_no_worker(c: Any, s: Any, a: Any, b: Any) -> None:
    """Whatever raises as a message or a heartbeat is handled, results and collections stay."""
    result = c.submit(lambda: 1, workers=[a.address])
    await result
    await sky.counter("c").increment_async()
    while not (await sky.collections(c))["c"].in_step:
        await asyncio.sleep(0.01)
    for worker in (a, b):
        worker.stream_handlers[Gone.op](party=None, worker=[])  # no party, and no address
        await worker.heartbeat()
        comm = await connect(worker.address)
        await comm.write({"op": "skyward_wire", "reply": False})
        frames = await frames_over(comm, print)
        frames.write([("copy", 1, worker.address, "nowhere", b"no pickle"), ("unknown",)])
        with suppress(ConnectionError):
            await frames.run()
        comm.abort()
        for message in (Fill("nowhere", 9, "", 0), Fence("nowhere", 9), GiveWay("nowhere", 9, 8)):
            await ask(s.rpc(worker.address), message)
        await ask(s.rpc(worker.address), Lead("nowhere", 9, "", [], {}, "", 0))
        s.extensions[SIZES].heartbeat(s.workers[worker.address], None)
    async with Client(s.address, asynchronous=True, set_as_default=False, direct_to_workers=True) as direct:
        assert await sky.counter("c", client=direct).increment_async() == 2
        s.client_send(direct.id, as_operation(Fence("nowhere", 9)))
        assert await sky.counter("c", client=direct).increment_async() == 3
    assert a.status == b.status == Status.running and await result == 1
    assert (await sky.collections(c))["c"].in_step and await sky.counter("c").increment_async() == 4


@pytest.mark.parametrize("address", ["tcp://127.0.0.1", "inproc://"])
def test_frames_of_any_size(address: str) -> None:
    """Whole and in order, whether many come at once or one comes in parts; both ends hear of the end."""
    sent = [bytes(size) for size in (0, 1, *range(65_480, 65_540), 3 << 20, 70_000, 2, 1 << 20)]
    received = list[bytes]()

    async def main() -> None:
        ended = asyncio.Event()

        async def take(comm: Any) -> None:
            frames = await frames_over(comm, received.extend)
            with suppress(OSError):
                await frames.run()
            comm.abort()
            ended.set()

        listener = await listen(address, take)
        comm = await connect(listener.contact_address)
        frames = await frames_over(comm, print)
        for each in sent:
            frames.write([each])
        while len(received) < len(sent):
            await asyncio.sleep(0.01)
        comm.abort()
        await ended.wait()
        listener.stop()

    asyncio.run(main())
    assert received == sent


def test_a_question_that_has_just_been_answered_is_asked_again() -> None:
    """By whoever comes for another home before the answer is handed out: waiting would block the loop."""

    async def main() -> list[str]:
        asked, may_answer = list[str](), asyncio.get_running_loop().create_future()

        async def answer(spec: Spec, key: str) -> Route:
            asked.append(key)
            await may_answer
            return Route("set", {}, (("worker", key or "new"),), (1,))

        routes, spec = Routes(answer), Spec("set", "s")
        first = asyncio.ensure_future(routes.find(spec))
        while not asked:
            await asyncio.sleep(0)
        may_answer.set_result(None)
        second = asyncio.ensure_future(
            routes.find(spec, "old")
        )  # begins right after the question's last step
        assert [(await each).homes[0][1] for each in (first, second)] == ["new", "old"]
        return asked

    assert asyncio.run(main()) == ["", "old"]


async def say_late(s: Any, host: Any, party: str, *asked: tuple[Any, str]) -> list[Any]:
    """Bring a host calls of a party over a connection of their own, as what was long on its way comes."""
    comm = await connect(host.address)
    await comm.write({"op": "skyward_wire", "reply": False})
    calls = []
    for number, (handle, operation) in enumerate(asked):
        actors = (key for key in host.state.actors if not is_standby(key))
        (home,) = (key for key in actors if f"-{handle.kind}-" in key)
        caller = Caller(party, "run#1", "task", place="tcp://late")
        call = pickled(Call(("session", number), caller, operation, LATE[operation]))
        calls.append(written(Request(number, host.address, home, call)))
    replies: list[Any] = []
    frames = await frames_over(comm, replies.extend)
    frames.write(calls)
    while len(replies) < len(calls):
        await asyncio.sleep(0.01)
    comm.abort()
    return [pickle.loads(read(reply).answer) for reply in replies]  # type: ignore


#: What the dead ask for, with its arguments.
LATE: dict[str, tuple[Any, ...]] = {
    "acquire": (),
    "acquire_nowait": (),
    "get": (1,),
    "get_nowait": (1,),
    "claim": ("k",),
    "wait": (),
    "increment": (1,),
}


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)])
async def test_last_words_that_come_after_the_end(c: Any, s: Any, a: Any) -> None:
    """The dead are refused, whatever they ask for: nobody would free what they take.

    So it is for a worker, though another one has come to its address, and for a client that has closed.
    """
    lock, q, d = sky.lock("l"), sky.queue("q"), sky.dict("d")
    barrier, counter = sky.barrier("b", 2), sky.counter("c")
    await q.put_async("item")
    assert not await lock.locked_async() and not await d.len_async()
    assert not await barrier.broken_async() and not await counter.value_async()

    async def use() -> None:
        await sky.lock("l").locked_async()

    async with Worker(s.address, nthreads=1) as b:
        await c.submit(use, workers=[b.address], pure=False)
        dead, address = b.id, b.address
    async with Client(s.address, asynchronous=True) as other:
        assert not await sky.lock("l", client=other).locked_async()
        closed = f"{other.id}#1"

    async def hold() -> None:
        await sky.lock("l").acquire_async()
        await sky.queue("held").put_async(None)
        await sky.queue("go").get_async()
        await sky.lock("l").release_async()

    async with Worker(s.address, nthreads=1, port=int(address.rpartition(":")[2])) as successor:
        assert successor.address == address
        holding = c.submit(hold, workers=[successor.address], pure=False)
        await sky.queue("held").get_async()
        for party in (dead, closed):
            asked = [(lock, "acquire"), (lock, "acquire_nowait"), (q, "get"), (q, "get_nowait"), (d, "claim")]
            asked += [(barrier, "wait"), (counter, "increment")]
            answers = await say_late(s, a, party, *asked)
            assert all(isinstance(error, Moved) for _, error in answers), answers
        a.stream_handlers[Gone.op](party=dead, worker=address)
        held = await lock.holder_async()
        assert held is not None and held.worker == successor.address and held.task == holding.key
        await sky.queue("go").put_async(None)
        await holding
    assert await lock.acquire_async(timeout=200) and await q.get_async(timeout=200) == "item"
    assert await d.get_or_compute_async("k", lambda: 1) == 1
    assert await barrier.n_waiting_async() == 0 and await counter.value_async() == 0


@gen_cluster(client=True, nthreads=[("127.0.0.1", 2)])
async def test_what_runs_in_a_tasks_context_is_the_task(c: Any, s: Any, a: Any) -> None:
    """On a worker without slots of ours too: in its coroutines, in their threads, in threads that copy it."""

    async def hold(name: str) -> list[Any]:
        async def through_the_twin() -> None:
            await sky.lock(f"{name}-1").acquire_async()

        await sky.lock(f"{name}-0").acquire_async()
        await asyncio.gather(through_the_twin(), asyncio.to_thread(lambda: sky.lock(f"{name}-2").acquire()))
        return [(await sky.lock(f"{name}-{n}").holder_async()).task for n in range(3)]  # type: ignore[union-attr]

    await c.submit(lambda: None, pure=False)
    await sky.counter("c").increment_async()  # there is a home, so the worker knows its runs
    future = c.submit(hold, "l", pure=False)
    assert await future == [future.key] * 3
    for n in range(3):
        assert await sky.lock(f"l-{n}").acquire_async(timeout=200)


def test_compute_opens_collections() -> None:
    """In its cluster, by name."""
    with sky.Compute(worker=sky.Worker(concurrency=1)) as compute:
        compute.counter("x").increment()
        assert sky.counter("x").value == 1  # its client is the current one meanwhile
        assert compute.dict("y", shards=2) == {} and len(compute.set("z")) == 0
        assert compute.queue("q", 1).empty() and compute.barrier("b", 1).wait() == 0
        assert not compute.lock("l").locked()


def test_without_a_cluster_there_is_no_collection(name: str) -> None:
    """A program without a client says what to do."""
    with pytest.raises(sky.ConfigurationError, match="Client"):
        len(sky.dict(name))


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)] * 2)
async def test_a_worker_that_leaves_answers_its_calls(c: Any, s: Any, a: Any, b: Any) -> None:
    """Those that wait elsewhere, those that are being found, and those that were begun at that moment."""
    await sky.queue("there").qsize_async()
    (host,) = (await sky.collections(c))["there"].hosts
    leaving = b if host == a.address else a
    collections = WorkerCollections.of(leaving)

    def begin(name: str) -> Any:
        return collections.switchboard.begin(Spec("queue", name), Ask("get", (1,)), Caller(leaving.id))

    asked = [begin("there"), begin("nowhere")]
    while not (await sky.collections(c))["there"].waiting:
        await asyncio.sleep(0.01)
    asked += [begin("there"), begin("nowhere"), begin("unknown")]
    await collections.teardown(leaving)
    assert [type(pending.exception(timeout=0)) for pending in asked] == [sky.CollectionLost] * len(asked)
    with pytest.raises(sky.CollectionLost):
        begin("there")


@pytest.mark.parametrize("is_late", [False, True])
def test_who_asks_a_worker_that_leaves_is_told(is_late: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the same turn, before anybody has begun to make its connection; or when it has just left."""
    monkeypatch.setattr("skyward_dask.extension.collections.links._CONNECT", 1000.0)

    async def ask_and_cut() -> bytes | None:
        pool, gone = ConnectionPool(), "tcp://127.0.0.1:1"
        answer = asyncio.get_running_loop().create_future()
        await pool.start()
        links = Links("tcp://127.0.0.1:2", Homes(), pool, OnLoop(IOLoop.current()))
        if is_late:
            links.cut(gone)
        links.ask(gone, "key", b"", answer.set_result)
        if not is_late:
            links.cut(gone)
        try:
            found: bytes | None = await asyncio.wait_for(answer, 60)
        finally:
            await pool.close()
        return found

    assert asyncio.run(ask_and_cut()) == MOVED

"""Canaries: what we use of distributed's private parts is there, and means what we think."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Executor
from typing import Any

import dask
import pytest
from distributed import (
    Actor,
    Client,
    Future,
    Nanny,
    Scheduler,
    Worker,
    default_client,
    get_worker,
    threadpoolexecutor,
)
from distributed.core import Status
from distributed.diagnostics.plugin import UploadFile, WorkerPlugin
from distributed.spill import SpillBuffer

from skyward_dask.extension import private, private_clients
from skyward_dask.extension.child.secede import ChildExecutor
from skyward_dask.extension.patches import Patches
from tests.clusters import gen_cluster


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)])
async def test_what_execute_hands_to_an_executor(c: Client, s: Scheduler, a: Worker) -> None:
    """`Worker.execute` submits one call, on its loop, to an executor that isn't named a thread pool."""
    seen: list[tuple[Any, ...]] = []

    class Seeing(Executor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            assert asyncio.get_running_loop() is a.loop.asyncio_loop
            seen.append((fn, *args))
            future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            future.set_result(fn(*args))
            return future

    a.executors["seeing"] = Seeing()
    with dask.annotate(executor="seeing"):
        assert await c.submit(lambda: 3, key="there") == 3
    ((function, spec, data, delay),) = seen
    assert function is private.run_task_simple and spec.key == "there"
    assert data == {} and isinstance(delay, float | int)


@gen_cluster(client=True, nthreads=[])
async def test_a_client_says_first_that_it_closes(c: Client, s: Scheduler) -> None:
    """In both of its ways, while it still has its connections."""
    seen: list[bool] = []
    private_clients.at_close(c, "seeing", lambda: seen.append(c.rpc.status == Status.running))
    async with Client(s.address, asynchronous=True) as other:
        private_clients.at_close(other, "seeing", lambda: seen.append(other.rpc.status == Status.running))
    assert seen and all(seen)
    await c.close()
    assert len(seen) > 1 and all(seen)


@gen_cluster(nthreads=[("127.0.0.1", 1)])
async def test_private_names(s: Scheduler, a: Worker) -> None:
    """Each helper does on a real worker what it says."""
    assert private.pending_plugins(a) == ()
    assert private.is_registered(a) and not private.is_registering(a)
    private.compute_more(a)
    finished = asyncio.create_task(a.finished())
    private.give_up_closing(a)
    await finished
    assert a.status == Status.running
    assert a.state.running
    assert private.log_handler(a).__class__.__name__ == "DequeHandler"


@gen_cluster(nthreads=[("127.0.0.1", 1)])
async def test_threads_of_tasks(s: Scheduler, a: Worker) -> None:
    """They are as many as they are said to be, run tasks as Dask's own, and know whose they are."""
    threads = a.executors["default"]
    assert isinstance(threads, threadpoolexecutor.ThreadPoolExecutor)
    private.resize_threads(threads, 2)
    meeting = threading.Barrier(2)
    both = [threads.submit(meeting.wait) for _ in range(2)]
    assert sum([await asyncio.wrap_future(one) for one in both]) == 1
    message = await asyncio.wrap_future(private.submit_task(a, threads, dict, "key", {"x": 1}, 0.0))
    assert (message["op"], message["result"]) == ("task-finished", {"x": 1}) and not a.active_threads

    def look() -> tuple[Worker, object]:
        with private.task_thread(a, "mine"):
            return get_worker(), private.task_of_thread.key

    assert await asyncio.to_thread(look) == (a, "mine")

    def see() -> tuple[object, object, bool]:
        with private.stream_thread(a, "mine"):
            return private.task_of_thread.key, a.active_threads[threading.get_ident()], get_worker() is a

    assert await asyncio.to_thread(see) == ("mine (stream)", "mine", True)
    assert not a.active_threads


@gen_cluster(nthreads=[("127.0.0.1", 1)])
async def test_a_thread_outside_its_pool(s: Scheduler, a: Worker) -> None:
    """Another one runs tasks meanwhile; it comes back when there is room, or when the pool has ended."""
    threads = a.executors["default"]
    assert isinstance(threads, threadpoolexecutor.ThreadPoolExecutor)
    other, go = threading.Event(), threading.Event()

    def waits() -> tuple[bool, bool]:
        with private.outside_pool() as had_slot:
            outside = threading.current_thread() not in threads._threads
            assert other.wait(60)
        return had_slot and outside, threading.current_thread() in threads._threads

    waiting = threads.submit(waits)
    threads.submit(other.set)
    assert await asyncio.wrap_future(waiting) == (True, True)
    assert len(threads._threads) == 1

    def goes_back_to_nothing() -> bool:
        with private.outside_pool():
            assert go.wait(60)
        return True

    last = threads.submit(goes_back_to_nothing)
    threads.shutdown(wait=False)
    go.set()
    assert await asyncio.wrap_future(last)
    with private.outside_pool() as had_slot:
        assert not had_slot


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)])
async def test_clients_that_hold_a_key(c: Client, s: Scheduler, a: Worker) -> None:
    """As long as they have a future of it."""
    future = c.submit(int, 3)
    assert private_clients.client_with(future.key) is c
    assert private_clients.client_with("unknown") is None


@gen_cluster(nthreads=[("127.0.0.1", 1)])
async def test_memory_that_counts(s: Scheduler, a: Worker) -> None:
    """What Dask asks its monitor is what it spills, pauses and reports by."""
    patches = Patches()
    private.count_memory(patches, a, lambda: 1 << 50)
    a.monitor.update()
    assert (await a.get_metrics())["memory"] >= 1 << 50
    patches.undo()
    assert a.monitor.get_process_memory() < 1 << 50


@gen_cluster(nthreads=[("127.0.0.1", 1)])
async def test_a_worker_that_has_not_started(s: Scheduler, a: Worker) -> None:
    """Has no address yet, by which registration is told apart, and sets up the plugins that it is given."""
    other, plugin = Worker(s.address), WorkerPlugin()
    assert not private.is_registered(other)
    private.add_pending_plugin(other, plugin)
    assert private.pending_plugins(other) == (plugin,) and private.pending_plugins(a) == ()
    await other
    assert plugin in other.plugins.values() and private.is_registered(other)
    await other.close()


@gen_cluster(nthreads=[])
async def test_a_worker_closes_once_it_has_started(s: Scheduler) -> None:
    """Not while it starts."""
    worker = Worker(s.address)
    started = asyncio.create_task(worker.start())
    await asyncio.sleep(0)
    private.close_once_started(worker, reason="tried")
    await started
    assert worker.address in s.workers
    await worker.finished()
    assert worker.status == Status.closed


@gen_cluster(nthreads=[("127.0.0.1", 1)], worker_kwargs={"memory_limit": "1 GiB"})
async def test_the_memory_limit_moves_the_spill_target(s: Scheduler, a: Worker) -> None:
    """Both double."""
    assert isinstance(a.data, SpillBuffer)
    before = a.data.fast.n
    private.set_memory_limit(a, 2 * a.memory_manager.memory_limit)
    assert a.memory_manager.memory_limit == 2 * 2**30 and a.data.fast.n == 2 * before


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)], Worker=Nanny)
async def test_a_nanny_is_told_the_memory_limit(c: Client, s: Scheduler, a: Nanny) -> None:
    """By its worker; it ends the worker by it."""

    async def tell(dask_worker: Worker) -> None:
        await private.tell_nanny_memory_limit(dask_worker, 1 << 50)

    await c.run(tell)
    assert a.memory_manager.memory_limit == 1 << 50


class Asking(WorkerPlugin):
    """Asks, as it is set up, how far its worker is."""

    def setup(self, worker: Worker) -> None:
        self.found = private.is_registered(worker), private.is_registering(worker)


@gen_cluster(client=True, nthreads=[])
async def test_a_worker_that_is_registering(c: Client, s: Scheduler) -> None:
    """Sets up the plugins that the scheduler has for it; one that has registered doesn't look like that."""
    await c.register_plugin(Asking(), name="asking")
    async with Worker(s.address) as worker:
        assert worker.plugins["asking"].found == (True, True) and not private.is_registering(worker)
        await c.register_plugin(Asking(), name="later")
        assert worker.plugins["later"].found == (True, False)


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)])
async def test_a_task_that_secedes(c: Client, s: Scheduler, a: Worker) -> None:
    """Leaves its slot to the next one."""
    a.begun, a.go_on = threading.Event(), threading.Event()
    first = c.submit(lambda: get_worker().begun.set() or get_worker().go_on.wait(), key="first")
    await asyncio.to_thread(a.begun.wait)
    private.secede(a, "first", 0.0)
    assert a.state.tasks["first"].state == "long-running" and not a.state.executing
    a.go_on.set()
    assert await first


@gen_cluster(nthreads=[])
async def test_a_client_that_is_disowned(s: Scheduler) -> None:
    """It is no longer the default, and refuses what would wait for its loop."""
    client = await Client(s.address, asynchronous=True)
    assert default_client() is client
    private_clients.disown(client, lambda *args, **kwargs: "refused")
    assert client.nthreads() == client.has_what() == "refused"
    with pytest.raises(ValueError, match="No clients"):
        default_client()
    del client.sync
    client.status = "running"
    await client.close()


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)])
async def test_get_worker_reads_the_context(c: Client, s: Scheduler, a: Worker) -> None:
    """What a child sets is what `get_worker()` returns."""
    token = private.worker_context.set("here")
    assert get_worker() == "here"
    private.worker_context.reset(token)


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)])
async def test_futures_find_a_client(c: Client, s: Scheduler, a: Worker, monkeypatch: Any) -> None:
    """Once one looks for it, and not before; the scheduler then knows of the wish."""
    for name in ("client", "release"):
        monkeypatch.setattr(Future, name, getattr(Future, name))
    made = c.submit(int, 7)
    await made
    private_clients.bind_futures(lambda: c)
    future: Future[int] = Future(made.key)
    assert future._client is None
    assert await future == 7 and future.client is c
    unused: Future[int] = Future("unused")
    del unused


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)])
async def test_uploads_are_plugins_that_change_modules(c: Client, s: Scheduler, a: Worker) -> None:
    """And packages that are installed are too."""
    assert isinstance(UploadFile(__file__), private.module_plugins)
    assert all(issubclass(kind, WorkerPlugin) for kind in private.module_plugins)


def test_the_automatic_memory_limit_grows_with_threads() -> None:
    """As Dask computes it."""
    one = private.automatic_memory_limit(1)
    assert one is not None and one <= (private.automatic_memory_limit(64) or 0)


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)])
async def test_specs_and_threads_of_tasks(c: Client, s: Scheduler, a: Worker) -> None:
    """A worker has specs of these kinds; the thread that runs one knows its key."""
    future = c.submit(lambda: private.task_of_thread.key, key="mine")
    assert await future == "mine" and getattr(private.task_of_thread, "key", None) is None
    spec = a.state.tasks["mine"].run_spec
    assert isinstance(spec, private.GraphNode) and not spec.is_coro
    for kind in (private.Alias("x", "y"), private.DataNode("x", 1)):
        assert isinstance(kind, private.GraphNode) and kind.key == "x"


class Told:
    """In the place of a child's link to its worker."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def call(self, name: str) -> None:
        self.calls.append(name)


def test_what_dask_touches_of_an_executor() -> None:
    """To secede and to rejoin, in this thread."""

    def both() -> None:
        executor = ChildExecutor(link)  # type: ignore[arg-type]
        private.set_executor(executor)
        executor.enter()
        threadpoolexecutor.secede(adjust=True)  # type: ignore[no-untyped-call]
        threadpoolexecutor.rejoin()  # type: ignore[no-untyped-call]

    link = Told()
    thread = threading.Thread(target=both)
    thread.start()
    thread.join()
    assert link.calls == ["secede", "rejoin"]


class Beating:
    """An extension, of a worker and of its scheduler."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def heartbeat(self, *told: Any) -> Any:
        self.seen += told
        return {"counts": (1,)}


@gen_cluster(nthreads=[("127.0.0.1", 1)])
async def test_heartbeats_carry_what_extensions_tell(s: Scheduler, a: Worker) -> None:
    """From a worker's to the scheduler's of the same name; the second comes when the first is answered."""
    a.extensions["beating"], s.extensions["beating"] = Beating(), (heard := Beating())
    await a.heartbeat()
    assert heard.seen[:2] == [s.workers[a.address], {"counts": (1,)}]
    assert a.periodic_callbacks["heartbeat"].is_running()


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)])
async def test_hooks_before_a_task_come_and_go(c: Client, s: Scheduler, a: Worker) -> None:
    """In any order, with somebody else's wrapper on top or not; then the worker is as it was."""
    seen: list[Any] = []
    lists = [Patches(), Patches()]
    for name, patches in zip("ab", lists, strict=True):
        private.before_execute(patches, a, lambda key, name=name: seen.append((name, key)))
    await c.submit(int, key="x")
    lists[0].undo()
    await c.submit(int, key="y")
    lists[1].undo()
    await c.submit(int, key="z")
    assert seen == [("a", "x"), ("b", "x"), ("b", "y")] and "execute" not in vars(a)


class Asked:
    """An actor that tells which one it is, by its worker's name for it."""

    def who(self) -> object:
        return private.actor_in_this_thread(get_worker())


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)])
async def test_an_actor_that_no_task_has_built(c: Client, s: Scheduler, a: Worker) -> None:
    """Is one all the same, to the scheduler and to its worker, and goes when nobody wants it."""
    private.know_actor(s, "placed", a.address, "nobody")
    private.place_actor(a, "placed", Asked())
    assert s.workers[a.address].actors == {s.tasks["placed"]}
    assert await Actor(Asked, a.address, "placed").who() == "placed"
    assert private.actor_in_this_thread(a) is None
    s.client_releases_keys(["placed"], "nobody")
    while a.state.actors:
        await asyncio.sleep(0.01)
    assert "placed" not in s.tasks


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)])
async def test_a_client_has_room_for_ours(c: Client, s: Scheduler, a: Worker) -> None:
    """It is made once."""
    assert private_clients.client_extension(c, "x", lambda _: [1]) is private_clients.client_extension(
        c, "x", lambda _: [2]
    )


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)])
async def test_a_client_takes_messages_of_ours(c: Client, s: Scheduler, a: Worker) -> None:
    """From the scheduler, by their `op`, in its own loop."""
    taken: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    private_clients.stream_handlers(c)["x"] = lambda number: taken.set_result(number)
    s.client_comms[c.id].send({"op": "x", "number": 7})
    assert await taken == 7


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)])
async def test_coroutines_and_clients_tell_whose_they_are(c: Client, s: Scheduler, a: Worker) -> None:
    """An ``async def`` task is named by its key; a worker knows the clients that it has made."""

    async def task() -> Any:
        return private.key_of_this_coroutine(list(get_worker().state.tasks))

    for key in ("a", ("b", 1)):
        assert await c.submit(task, key=key) == key
    assert private.key_of_this_coroutine(["a"]) is None
    assert private.has_workers() and not private_clients.is_of_a_worker(c)
    async with Client(s.address, asynchronous=True, set_as_default=False) as own:
        Worker._initialized_clients.add(own)
        assert private_clients.is_of_a_worker(own)

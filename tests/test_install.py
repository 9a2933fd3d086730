"""`install`, `uninstall` and plugins on clusters in this process: who wins, what fails, what stays."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import sys
import threading
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import dask
import pytest
from distributed import Client, LocalCluster, Nanny, Scheduler, Security, Status, Worker, get_client
from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.scheduler import WorkerStatusPlugin
from distributed.utils_test import captured_logger

import skyward_dask as sky
from skyward_dask.extension.worker.node import Node
from tests.clusters import PATIENCE, gen_cluster
from tests.sizes import size, sized

THREAD = sky.Worker(concurrency=2, executor="thread")
PROCESS = sky.Worker(concurrency=2, executor="process")
BROKEN = sky.Worker(concurrency=2, executor="process", pre_import=("no_such_module_of_ours",))


class Unloadable:
    """A function of a module that workers don't have."""

    def __call__(self) -> None:
        raise NotImplementedError

    def __reduce__(self) -> tuple[Any, ...]:
        return import_module, ("no_such_module_of_ours",)


UNLOADABLE = sky.Worker(concurrency=2, executor="process", initializer=Unloadable())


def block(started: str, release: str) -> int:
    """Say that it runs, then wait: opening a fifo waits for its partner."""
    Path(started).write_text("")
    Path(release).read_text()
    return os.getpid()


def books(scheduler: Scheduler) -> tuple[int, int, int]:
    """The scheduler's three sums of slots, which must agree."""
    return (
        sum(ws.nthreads for ws in scheduler.workers.values()),
        scheduler.total_nthreads,
        sum(host["nthreads"] for host in scheduler.host_info.values()),
    )


@gen_cluster(client=True, nthreads=[("", 1)])
async def test_a_configuration_with_functions_and_locks(c: Client, s: Scheduler, a: Worker) -> None:
    """Children have what can be pickled of it, and stay as long as it does."""
    with dask.config.set({"odd.lock": threading.Lock(), "odd.function": lambda: 7, "odd.text": "plain"}):
        await sky.install(c, sky.Worker(concurrency=1, executor="process"))
        got = await c.submit(lambda: (dask.config.get("odd.function")(), dict(dask.config.get("odd"))))
        pid = await c.submit(os.getpid, pure=False)
        await c.run(int)
        assert await c.submit(os.getpid, pure=False) == pid
        await c.run(lambda: dask.config.set({"odd.text": "other"}) and None)
        assert await c.submit(lambda: dask.config.get("odd.text")) == "other"
    assert got[0] == 7 and set(got[1]) == {"function", "text"} and got[1]["text"] == "plain"


@gen_cluster(client=True, worker_kwargs={"plugins": [sky.SkywardPlugin(PROCESS)]})
async def test_one_plugin_object_serves_several_workers(
    c: Client, s: Scheduler, a: Worker, b: Worker
) -> None:
    """Each has its own children; slots are right from the moment of joining."""
    assert books(s) == (4, 4, 4)
    assert a.state.nthreads == b.state.nthreads == 2
    pids = await c.gather(
        [c.submit(os.getpid, workers=w.address, pure=False) for w in (a, b) for _ in range(10)]
    )
    assert os.getpid() not in pids and not set(pids[:10]) & set(pids[10:])


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)])
async def test_install_twice_and_uninstall(c: Client, s: Scheduler, a: Worker) -> None:
    """Slots are right at each return; the worker gets its own executor back."""
    own = a.executors["default"]
    for count, kind in ((3, "process"), (2, "thread"), (4, "process")):
        await sky.install(c, sky.Worker(concurrency=count, executor=kind))
        assert books(s) == (count, count, count) and a.state.nthreads == count
        in_worker = await c.submit(os.getpid, pure=False) == os.getpid()
        assert in_worker == (kind == "thread")
    await sky.uninstall(c)
    assert books(s) == (1, 1, 1) and a.state.nthreads == 1
    assert a.executors["default"] is own and set(a.executors) == {"default", "actor", "offload"}
    assert await c.submit(os.getpid, pure=False) == os.getpid()
    await sky.uninstall(c)


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)])
async def test_register_plugin(c: Client, s: Scheduler, a: Worker) -> None:
    """The plugin is as good a door as `install`."""
    await c.register_plugin(sky.SkywardPlugin(PROCESS))
    assert books(s) == (2, 2, 2)
    assert await c.submit(os.getpid, pure=False) != os.getpid()
    await c.unregister_worker_plugin("skyward")
    while a.state.nthreads != 1 or books(s) != (1, 1, 1):
        await asyncio.sleep(0.01)


def test_the_cluster_object_shows_the_slots() -> None:
    """From the return of each function, though Dask tells it of workers in batches."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        for plugin in cluster.scheduler.plugins.values():
            if isinstance(plugin, WorkerStatusPlugin):
                plugin.bcomm.interval = 0.2
        sky.install(client, sky.Worker(concurrency=2))
        assert "threads=4" in repr(cluster)
        sky.resize(client, 3)
        assert "threads=6" in repr(cluster)
        sky.uninstall(client)
        assert "threads=2" in repr(cluster)


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)])
async def test_a_worker_that_joins_later_has_the_slots(c: Client, s: Scheduler, a: Worker) -> None:
    """And what it takes along when it leaves is what it brought."""
    await sky.install(c, sky.Worker(concurrency=3, executor="process"))
    async with Worker(s.address, nthreads=1) as b:
        assert b.state.nthreads == 3 and books(s) == (6, 6, 6)
        assert await c.submit(os.getpid, workers=b.address, pure=False) != os.getpid()
    while len(s.workers) > 1:
        await asyncio.sleep(0.01)
    assert books(s) == (3, 3, 3)


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)])
async def test_the_cluster_beats_a_workers_own_plugin(c: Client, s: Scheduler, a: Worker) -> None:
    """The last install wins over flags, also for a worker that joins later."""
    await sky.install(c, sky.Worker(concurrency=3))
    async with Worker(s.address, nthreads=1, plugins={sky.SkywardPlugin(PROCESS)}) as b:
        assert b.state.nthreads == 3 and Node.of(b).config.kind == "thread"
        await sky.uninstall(c)
    async with Worker(s.address, nthreads=1, plugins={sky.SkywardPlugin(PROCESS)}) as b:
        assert b.state.nthreads == 2 and Node.of(b).config.kind == "process"


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)], worker_kwargs={"preload": ["skyward_dask"]})
async def test_an_explicit_plugin_beats_a_preload(c: Client, s: Scheduler, a: Worker) -> None:
    """A preload alone has what the configuration says: threads, as many as nthreads."""
    assert Node.of(a).config.kind == "thread" and books(s) == (1, 1, 1)
    async with Worker(
        s.address, nthreads=1, plugins={sky.SkywardPlugin(PROCESS)}, preload=["skyward_dask"]
    ) as b:
        assert Node.of(b).config == PROCESS and b.state.nthreads == 2


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)])
async def test_install_that_fails_changes_nothing(c: Client, s: Scheduler, a: Worker) -> None:
    """Old slots and results stay, the error names the worker, later workers get the old slots."""
    await sky.install(c, PROCESS)
    kept = c.submit(lambda: 42)
    await kept
    for broken in (BROKEN, UNLOADABLE):
        with pytest.raises(sky.InstallError, match="no_such_module_of_ours") as caught:
            await sky.install(c, broken)
        assert a.address in str(caught.value)
        assert await kept == 42 and books(s) == (2, 2, 2)
    assert await c.submit(os.getpid, pure=False) != os.getpid()
    async with Worker(s.address, nthreads=1) as b:
        assert b.state.nthreads == 2 and Node.of(b).config == PROCESS
    await sky.uninstall(c)
    assert a.state.nthreads == 1


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)])
async def test_a_first_install_that_fails_leaves_plain_workers(c: Client, s: Scheduler, a: Worker) -> None:
    """As if nobody had asked."""
    own = a.executors["default"]
    with pytest.raises(sky.InstallError, match="no_such_module_of_ours"):
        await sky.install(c, BROKEN)
    assert a.executors["default"] is own and books(s) == (1, 1, 1) and Node.of(a) is None
    assert await c.submit(os.getpid, pure=False) == os.getpid()


@gen_cluster(nthreads=[])
async def test_a_worker_that_cannot_have_its_slots_does_not_join(s: Scheduler) -> None:
    """Its start fails with the reason."""
    with pytest.raises(RuntimeError) as caught:
        await Worker(s.address, plugins={sky.SkywardPlugin(BROKEN)})
    assert "no_such_module_of_ours" in str(caught.value.__cause__)
    assert not s.workers


class Registration(SchedulerPlugin):
    """Keeps workers from having registered until it is let go."""

    def __init__(self) -> None:
        self.begun, self.may_end = asyncio.Event(), asyncio.Event()

    async def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        self.begun.set()
        await self.may_end.wait()


@gen_cluster(nthreads=[])
async def test_a_worker_that_cannot_have_processes_does_not_stay(s: Scheduler) -> None:
    """Nothing of the user's was to run in them, so it was registering as that became known."""
    registration = Registration()
    s.add_plugin(registration, name="registration")
    with pytest.MonkeyPatch.context() as patch, captured_logger("skyward_dask") as log:
        patch.setattr(sys, "executable", "/no/such/python")
        worker = Worker(s.address, plugins={sky.SkywardPlugin(PROCESS)})
        started = asyncio.create_task(worker.start())
        await registration.begun.wait()
        while "no process can be started for a pool" not in log.getvalue():
            await asyncio.sleep(0.01)
        assert worker.status == Status.init
        registration.may_end.set()
        await started
        await worker.finished()
    while s.workers:
        await asyncio.sleep(0.01)
    assert worker.status == Status.closed and "no process can be started for a pool" in log.getvalue()


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)])
async def test_a_joiner_that_cannot_have_the_slots_closes(c: Client, s: Scheduler, a: Worker) -> None:
    """It takes no task, though the scheduler's plugins reach it only after it has joined."""
    async with Worker(s.address, nthreads=1) as probe:
        marker = f"{probe.local_directory}/marker"
    Path(marker).parent.mkdir(parents=True, exist_ok=True)
    Path(marker).write_text("")
    picky = sky.Worker(concurrency=2, executor="process", initializer=lambda: open(marker).close())
    await sky.install(c, picky)
    Path(marker).unlink()
    b = await Worker(s.address, nthreads=1)
    await b.finished()
    while b.address in s.workers:
        await asyncio.sleep(0.01)
    assert books(s) == (2, 2, 2)


@gen_cluster(client=True, nthreads=[("127.0.0.1", 2)])
async def test_running_tasks_end_in_their_slots(c: Client, s: Scheduler, a: Worker) -> None:
    """Over a second install, and over an uninstall."""
    folder = Path(a.local_directory)
    for change in (
        lambda: sky.install(c, sky.Worker(concurrency=3, executor="process")),
        lambda: sky.uninstall(c),
    ):
        await sky.install(c, PROCESS)
        names = [str(folder / name) for name in ("started", "release")]
        for name in names:
            os.mkfifo(name)
        future = c.submit(block, *names, pure=False)
        await asyncio.to_thread(Path(names[0]).read_text)
        pids = {slot.pid for slot in (await sky.statistics(c)).workers[a.address].slots}
        await change()
        await asyncio.to_thread(Path(names[1]).write_text, "")
        assert await future in pids
        for name in names:
            os.unlink(name)


@gen_cluster(client=True, nthreads=[("127.0.0.1", 2)])
async def test_a_worker_closes_while_old_slots_are_busy(c: Client, s: Scheduler, a: Worker) -> None:
    """The children of a pool that has been replaced, or given back, end with the worker."""
    for change in (sky.install, sky.uninstall):
        names = [f"{a.local_directory}/{change.__name__}-{name}" for name in ("started", "release")]
        for name in names:
            os.mkfifo(name)
        await sky.install(c, PROCESS)
        future = c.submit(block, *names, pure=False)
        await asyncio.to_thread(Path(names[0]).read_text)
        await change(c)
        assert not future.done()
    await a.close()


@sized
@gen_cluster(client=True, nthreads=[("127.0.0.1", 2)], timeout=size(PATIENCE, 800))
async def test_submit_drop_and_submit_again(c: Client, s: Scheduler, a: Worker) -> None:
    """A body never runs in the worker, whatever path its key has taken."""
    await sky.install(c, PROCESS)
    chance = random.Random(1)
    for n in range(size(300, 1000)):
        future = c.submit(os.getpid, key=f"again-{n % 3}")
        await asyncio.sleep(chance.random() * 0.005)
        future.release()
        future = c.submit(os.getpid, key=f"again-{n % 3}")
        assert await future != os.getpid()
    assert not {key for key in (await sky.statistics(c)).tasks if key[0] == "thread"}


@gen_cluster(client=True, nthreads=[("127.0.0.1", 2)])
async def test_another_executor_is_left_to_dask(c: Client, s: Scheduler, a: Worker) -> None:
    """Counted, and not touched."""
    import dask

    await sky.install(c, PROCESS)
    with dask.annotate(executor="offload"):
        assert await c.submit(os.getpid, pure=False) == os.getpid()
    assert (await sky.statistics(c)).tasks == {("worker", "other-executor"): 1}
    with dask.annotate(executor="nonsense"), pytest.raises(ValueError, match="Invalid executor"):
        await c.submit(os.getpid, pure=False)


def test_a_nanny_brings_the_slots_back() -> None:
    """The scheduler's side remembers, also over `client.restart`."""
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        sky.install(client, sky.Worker(concurrency=3, executor="process"))
        client.restart()
        assert list(client.nthreads().values()) == [3]
        (pid,) = client.run(os.getpid).values()
        assert client.submit(os.getpid).result() != pid


def test_thread_clusters_in_this_process() -> None:
    """``processes=False``: a worker in the user's own process has process slots too."""
    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=False,
            dashboard_address=None,
            plugins=(sky.SkywardPlugin(PROCESS),),
        ) as cluster,
        Client(cluster) as client,
    ):
        assert sorted(client.nthreads().values()) == [2, 2]
        pids = client.gather(client.map(lambda _: os.getpid(), range(20), pure=False))
        assert os.getpid() not in pids


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)], Worker=Nanny)
async def test_under_a_nanny(c: Client, s: Scheduler, a: Any) -> None:
    """Nanny's workers are daemons of multiprocessing, which may have no children: ours may."""
    await sky.install(c, PROCESS)
    assert books(s) == (2, 2, 2)
    assert await c.submit(os.getpid, pure=False) != a.pid


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)], Worker=Nanny)
async def test_the_garbage_collector_spares_what_a_worker_has_imported(
    c: Client, s: Scheduler, a: Any
) -> None:
    """While it has slots, and if they came before its tasks: no cycle of a task's is left out."""

    async def count() -> int:
        (found,) = (await c.run(gc.get_freeze_count)).values()
        return int(found)

    before = await c.run(gc.get_threshold)
    await sky.install(c, THREAD)
    assert await count() > 10_000
    assert await c.run(gc.get_threshold) != before
    await sky.uninstall(c)
    assert await count() == 0
    assert await c.run(gc.get_threshold) == before
    await c.submit(list, pure=False)
    while any((await c.run(lambda dask_worker: len(dask_worker.state.tasks))).values()):
        await asyncio.sleep(0.01)
    await sky.install(c, THREAD)
    assert await count() == 0


_WITHOUT_A_TEMPORARY_DIRECTORY = """
import tempfile

def refuse(*args, **kwargs):
    raise PermissionError("nothing can be written here")

tempfile.mkdtemp = tempfile.mkstemp = tempfile.TemporaryFile = refuse
"""


def test_credentials_in_memory_stay_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenSSL reads a private key from a file only: a slot writes one when its task asks for a client."""
    (tmp_path / "without_a_temporary_directory.py").write_text(_WITHOUT_A_TEMPORARY_DIRECTORY)
    monkeypatch.syspath_prepend(str(tmp_path))
    worker = sky.Worker(concurrency=1, executor="process", pre_import=["without_a_temporary_directory"])
    with (
        LocalCluster(
            n_workers=1,
            threads_per_worker=1,
            processes=False,
            protocol="tls",
            security=Security.temporary(),
            dashboard_address=None,
        ) as cluster,
        Client(cluster) as client,
    ):
        sky.install(client, worker)
        assert client.submit(os.getpid).result() != os.getpid()
        with pytest.raises(PermissionError, match="nothing can be written"):
            client.submit(lambda: get_client().id).result()


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)])
async def test_wrong_arguments_say_what_to_write(c: Client, s: Scheduler, a: Worker) -> None:
    """Swapped, a cluster, a key."""
    with pytest.raises(sky.ConfigurationError, match="it comes first"):
        sky.install(sky.Worker(), c)  # type: ignore[arg-type]
    for call in (sky.uninstall, sky.statistics, sky.check, sky.collections, lambda x: sky.resize(x, 2)):
        with pytest.raises(sky.ConfigurationError, match=r"must be a dask\.distributed\.Client"):
            call(s)
    with pytest.raises(sky.ConfigurationError, match=r"must be a dask\.distributed\.Future"):
        sky.stack("key")  # type: ignore[arg-type]


def test_limits_need_slots() -> None:
    """They are refused where nobody would keep them, and kept once there are slots."""
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        with pytest.raises(sky.ConfigurationError, match=r"call skyward_dask\.install"):
            sky.options(timeout=1).__enter__()
        with sky.options(executor="process"):
            pass  # Dask itself refuses that
        sky.install(client, sky.Worker(executor="process"))
        with sky.options(timeout=0.2), pytest.raises(sky.TaskTimeout):
            client.submit(time.sleep, 1000).result()


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)])
async def test_limits_warn_where_one_cannot_wait(c: Client, s: Scheduler, a: Worker) -> None:
    """Once for each client."""

    async def submit() -> None:
        for _ in range(3):
            with sky.options(timeout=1):
                await c.submit(abs, -1, pure=False)
        await sky.statistics(c)

    with pytest.warns(UserWarning, match=r"call skyward_dask\.install") as caught:
        await submit()
    assert len(caught) == 1


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)])
async def test_the_cpu_of_slots_is_their_workers(c: Client, s: Scheduler, a: Worker) -> None:
    """In its monitor, and so on the dashboard and in its metrics."""
    await sky.install(c, sky.Worker(concurrency=1, executor="process"))
    await c.submit(abs, -1)

    def burn(seconds: float) -> None:
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass

    look = a.handlers["skyward_statistics"]  # else half a second goes by between two looks at the slots
    a.periodic_callbacks["monitor"].stop()
    before = time.monotonic()
    await look()
    a.monitor.update()
    await c.submit(burn, 0.5)
    await look()
    a.monitor.update()
    assert a.monitor.recent()["cpu"] * (time.monotonic() - before) >= 100 * 0.4


@gen_cluster(client=True, nthreads=[("127.0.0.1", 2)])
async def test_plain_workers_are_nodes_too(c: Client, s: Scheduler, a: Any) -> None:
    info = await c.submit(sky.instance_info)
    assert (info.node, info.total_nodes, info.slot, info.concurrency, info.total) == (0, 1, None, 2, 2)

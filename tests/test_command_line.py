"""Real schedulers and workers in processes of their own: the doors that users take, and bad input."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from dask.system import CPU_COUNT
from distributed import Client, Event, get_worker
from distributed.system import MEMORY_LIMIT

import skyward_dask as sky

#: `dask` stands beside the interpreter; PATH may know another one.
DASK = [sys.executable, "-m", "dask"]
DASK_WORKER = [sys.executable, "-m", "skyward_dask.extension.command"]
Launch = Callable[..., subprocess.Popen[str]]


def _stop(process: subprocess.Popen[str]) -> None:
    family = (
        [process, *psutil.Process(process.pid).children(recursive=True)] if process.poll() is None else []
    )
    process.terminate()
    process.communicate(timeout=200)
    _, alive = psutil.wait_procs(family[1:], timeout=200)
    assert not alive


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Start a program; at the end it and all that it started are gone."""
    with ExitStack() as stack:

        def start(*command: str, **env: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                command,
                env={**os.environ, **env},
                cwd=tmp_path,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.callback(_stop, process)
            return process

        yield start


@pytest.fixture
def address(launch: Launch, tmp_path: Path) -> str:
    """A real scheduler's address, once it answers."""
    file = tmp_path / "scheduler.json"
    scheduler = launch(*DASK, "scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", str(file))
    assert scheduler.stderr
    for line in scheduler.stderr:
        if "Scheduler at" in line:
            return line.split()[-1]
    raise AssertionError("the scheduler ended")


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of one for all tests whose workers leave nothing there."""
    file = tmp_path_factory.mktemp("scheduler") / "scheduler.json"
    command = [*DASK, "scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not file.exists() or not (text := file.read_text()):
        time.sleep(0.01)
    yield json.loads(text)["address"]
    process.terminate()
    process.wait()


@pytest.fixture
def shared_address(scheduler: str) -> str:
    """A scheduler that other tests use too; their workers have left it."""
    with Client(scheduler) as client:
        while client.nthreads():
            time.sleep(0.01)
    return scheduler


@pytest.mark.parametrize("nanny", ["--nanny", "--no-nanny"])
def test_dask_worker_with_the_preload(launch: Launch, shared_address: str, nanny: str) -> None:
    """``dask worker ADDRESS --preload skyward_dask --executor process --concurrency 2``."""
    options = ["--preload", "skyward_dask", "--executor", "process", "--concurrency", "2"]
    worker = launch(*DASK, "worker", shared_address, "--nthreads", "1", "--no-dashboard", nanny, *options)
    with Client(shared_address) as client:
        client.wait_for_workers(1, timeout=200)
        assert list(client.nthreads().values()) == [2]
        task = client.submit(lambda: (os.getpid(), [p.pid for p in psutil.Process().parents()])).result()
        (pid,) = client.run(os.getpid).values()
        assert task[0] != pid and pid in task[1] and worker.pid in task[1]


@pytest.mark.parametrize("nanny", ["--nanny", "--no-nanny"])
def test_a_worker_ends_though_its_slots_are_busy(launch: Launch, address: str, nanny: str) -> None:
    """On SIGTERM, at once: nothing waits for what runs in the slots, or for each other's locks."""
    options = ["--preload", "skyward_dask", "--executor", "process", "--concurrency", "2", nanny]
    worker = launch(*DASK, "worker", address, "--nthreads", "1", "--no-dashboard", *options)

    def forever(n: int) -> None:
        Event(f"running-{n}").set()
        time.sleep(1000)

    with Client(address) as client:
        client.wait_for_workers(1, timeout=200)
        futures = client.map(forever, range(4), pure=False)
        while sum(Event(f"running-{n}", client=client).is_set() for n in range(4)) < 2:
            pass
        worker.terminate()
        worker.communicate(timeout=30)  # Dask waits so long for an executor
        del futures


def test_a_signal_ends_a_worker_that_is_closing(launch: Launch, shared_address: str) -> None:
    """As when a whole cluster is stopped at once, and there is no nanny to wait for the end of `close`."""
    options = ["--executor", "process", "--concurrency", "2", "--no-nanny", "--no-dashboard"]
    worker = launch(*DASK_WORKER, shared_address, *options)
    assert worker.stderr

    def close_soon(dask_worker: Any) -> None:
        dask_worker.loop.call_later(0.1, dask_worker.close)

    with Client(shared_address) as client:
        client.wait_for_workers(1, timeout=200)
        client.submit(os.getpid).result()
        client.run(close_soon)
        for line in worker.stderr:
            if "Stopping worker" in line:
                break
        worker.terminate()
        worker.communicate(timeout=200)


@pytest.mark.crash
def test_a_scheduler_that_is_killed(launch: Launch, address: str, tmp_path: Path) -> None:
    """All collections end with it: who waits, and who comes afterwards, is told so, wherever that is."""
    options = ["--executor", "process", "--concurrency", "2", "--no-nanny", "--no-dashboard"]
    worker = launch(*DASK_WORKER, address, *options)

    def error_of(function: Callable[[], Any]) -> str:
        try:
            return f"answered {function()!r}"
        except Exception as error:
            return "ours" if isinstance(error, sky.SkywardError) else repr(error)

    def use(place: str) -> None:
        for operation in (sky.queue("q").get, sky.counter("known").increment, sky.counter("new").increment):
            with (tmp_path / place).open("a") as told:
                print(error_of(operation), file=told)

    async def wait_and_use() -> None:
        # a client that reconnects doesn't always end when it is closed, but when it has tried for so long
        async with Client(address, asynchronous=True, set_as_default=False, timeout=10) as other:
            q, known = sky.queue("q", client=other), sky.counter("known", client=other)
            new = sky.lock("new", client=other)
            for operation in (q.get_async, known.increment_async, new.acquire_async, q.destroy_async):
                with pytest.raises(sky.SkywardError):
                    await operation()

    with Client(address) as client, ThreadPoolExecutor(2) as threads:
        client.wait_for_workers(1, timeout=200)
        sky.counter("known").increment()
        tasks = [client.submit(use, "process", pure=False)]
        with sky.options(executor="thread"):
            tasks.append(client.submit(use, "thread", pure=False))
        waiting = [threads.submit(asyncio.run, wait_and_use()), threads.submit(error_of, sky.queue("q").get)]
        while "q" not in (found := sky.collections(client)) or found["q"].waiting < 4:
            pass
        os.kill(client.run_on_scheduler(os.getpid), signal.SIGKILL)
        assert [each.result(60) for each in waiting] == [None, "ours"]
        for operation in (sky.counter("known").increment, sky.set("new").clear, sky.queue("q").destroy):
            assert error_of(operation) == "ours"
        worker.communicate(timeout=60)
    assert (tmp_path / "thread").read_text().split() == ["ours"] * 3
    assert set((tmp_path / "process").read_text().split()) <= {"ours"}  # its worker may have ended it before


def end_lifetime(dask_worker: Any) -> None:
    """As Dask does when it is over: one that counts from the start may be too short on a busy machine."""
    dask_worker.loop.add_callback(dask_worker.close_gracefully, reason="worker-lifetime-reached")


def test_a_lifetime_ends_though_a_slot_is_stuck(launch: Launch, address: str, tmp_path: Path) -> None:
    """In C code that never lets go of its GIL; nothing of the slot is left."""
    started = str(tmp_path / "started")
    os.mkfifo(started)

    def hold_the_gil() -> None:
        Path(started).write_text(str(os.getpid()))
        pow(7, 10**9)

    options = ["--executor", "process", "--concurrency", "2", "--lifetime", "1h"]
    worker = launch(*DASK_WORKER, address, "--no-dashboard", *options)
    with Client(address) as client:
        future = client.submit(hold_the_gil)
        child = psutil.Process(int(Path(started).read_text()))
        client.run(end_lifetime)
        worker.communicate(timeout=200)
        assert worker.returncode == 0 and not child.is_running()
        del future


_OTHER = """
import click

@click.command()
@click.option("--flavour")
def dask_setup(worker, flavour):
    worker.flavour = flavour
"""


def test_our_dask_worker_takes_options_anywhere(launch: Launch, shared_address: str, tmp_path: Path) -> None:
    """Before the address too, through a nanny, beside another preload with options of its own."""
    (tmp_path / "other_preload.py").write_text(_OTHER)
    limits = ["--task-timeout", "60s", "--slot-memory-limit", "2GiB", "--max-tasks-per-child", "50"]
    launch(
        *DASK_WORKER, "--executor", "process", *limits, "--preload", "other_preload.py", shared_address,
        "--no-dashboard", "--concurrency", "3", "--", "--flavour", "sweet",
    )  # fmt: skip
    with Client(shared_address) as client:
        client.wait_for_workers(1, timeout=200)
        assert list(client.nthreads().values()) == [3]
        (worker,) = sky.statistics(client).workers.values()
        assert (worker.executor, worker.concurrency) == ("process", 3)
        (flavour,) = client.run(lambda dask_worker: dask_worker.flavour).values()
        assert flavour == "sweet"


def test_an_automatic_memory_limit_follows_the_slots(launch: Launch, shared_address: str) -> None:
    """In the worker and in its nanny, though their command line says one thread."""
    launch(
        *DASK, "worker", shared_address, "--nthreads", "1", "--no-dashboard",
        "--preload", "skyward_dask", "--concurrency", str(CPU_COUNT),
    )  # fmt: skip

    def limit(dask_worker: Any) -> int:
        return int(dask_worker.memory_manager.memory_limit)

    with Client(shared_address) as client:
        client.wait_for_workers(1, timeout=200)
        assert list(client.run(limit).values()) == [MEMORY_LIMIT]
        assert list(client.run(limit, nanny=True).values()) == [MEMORY_LIMIT]


def test_the_configuration_alone(launch: Launch, shared_address: str) -> None:
    """No flag is needed."""
    launch(
        *DASK, "worker", shared_address, "--nthreads", "2", "--no-dashboard",
        DASK_SKYWARD__WORKER__EXECUTOR="process",
        DASK_DISTRIBUTED__WORKER__PRELOAD=json.dumps(["skyward_dask"]),
    )  # fmt: skip
    with Client(shared_address) as client:
        client.wait_for_workers(1, timeout=200)
        (pid,) = client.run(os.getpid).values()
        assert client.submit(os.getpid).result() != pid
        assert list(client.nthreads().values()) == [2]


@pytest.mark.parametrize("door", ["preload", "dask-worker"])
@pytest.mark.parametrize(
    ("options", "valid"),
    [
        (["--executor", "banana"], "'auto', 'thread', 'process'"),
        (["--concurrency", "0"], "x>=1"),
        (["--concurrency", "two"], "not a valid integer"),
        (["--pre-import", "json"], "executor='process'"),
        (
            ["--executor", "process", "--task-timeout", "soon"],
            "timeout must be a positive number of seconds, or text such as '30s', not 'soon'",
        ),
        (
            ["--executor", "process", "--slot-memory-limit", "-1"],
            "memory_limit must be a positive number of bytes",
        ),
        (["--max-tasks-per-child", "0"], "x>=1"),
    ],
)
def test_bad_options_end_the_command(launch: Launch, door: str, options: list[str], valid: str) -> None:
    """A message with the valid values, a non-zero exit, and no worker."""
    nowhere = "tcp://127.0.0.1:1"
    command = [*DASK, "worker", nowhere, "--preload", "skyward_dask"]
    process = launch(*(command if door == "preload" else [*DASK_WORKER, nowhere]), *options)
    _, stderr = process.communicate(timeout=200)
    assert process.returncode == 2 and valid in stderr


@pytest.mark.parametrize(
    "words",
    [
        ["--scheduler-file", "s.json", "--executor", "process"],
        ["--scheduler-file", "s.json", "--executor=process"],
        ["--executor", "process", "tcp://127.0.0.1:1"],
    ],
)
def test_options_before_the_address_are_refused(launch: Launch, words: list[str]) -> None:
    """`dask worker` takes the first of them for the address; the message says what to write."""
    process = launch(*DASK, "worker", "--preload", "skyward_dask", *words)
    _, stderr = process.communicate(timeout=200)
    last = stderr.splitlines()[-1]
    assert process.returncode == 2 and "took --executor" in last and "use dask-worker" in last


@pytest.mark.parametrize("nanny", ["--nanny", "--no-nanny"])
@pytest.mark.parametrize(
    "env",
    [
        {"DASK_SKYWARD__WORKER__EXECUTOR": "banana"},
        {"DASK_DISTRIBUTED__WORKER__PRELOAD_ARGV": json.dumps(["--executor", "banana"])},
    ],
)
def test_bad_configuration_ends_the_worker(
    launch: Launch, shared_address: str, nanny: str, env: dict[str, str]
) -> None:
    """Dask swallows what a preload raises; our worker exits, and never joins."""
    env |= {"DASK_DISTRIBUTED__WORKER__PRELOAD": json.dumps(["skyward_dask"])}
    process = launch(*DASK, "worker", shared_address, "--no-dashboard", nanny, **env)
    _, stderr = process.communicate(timeout=200)
    assert process.returncode == 1 and "banana" in stderr and "'process'" in stderr
    # a nanny's process doesn't know us, if only the configuration names us
    assert nanny == "--nanny" or "banana" in stderr.splitlines()[-1]
    with Client(shared_address) as client:
        assert not client.nthreads()


@pytest.mark.parametrize(
    ("command", "nanny"),
    [([*DASK, "worker"], "--nanny"), ([*DASK, "worker"], "--no-nanny"), (DASK_WORKER, "--nanny")],
)
def test_slots_that_cannot_start_end_the_worker(
    launch: Launch, shared_address: str, command: list[str], nanny: str
) -> None:
    """With the child's stderr, and no traceback of Dask's below it."""
    options = ["--preload", "skyward_dask", "--executor", "process", "--pre-import", "no_such_module"]
    process = launch(*command, shared_address, "--no-dashboard", nanny, *options)
    _, stderr = process.communicate(timeout=200)
    assert process.returncode == 1
    assert stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'no_such_module'"
    assert "Error: the process of slot" in stderr


@pytest.mark.parametrize("nanny", ["--nanny", "--no-nanny"])
def test_slots_of_the_cluster_that_cannot_start_end_the_worker(
    launch: Launch, address: str, nanny: str
) -> None:
    """A worker that knows nothing of the package, and joins a cluster with slots that it can't set up."""

    def raise_here() -> None:
        raise OSError("no GPU here")

    with Client(address) as client:
        sky.install(client, sky.Worker(executor="process", initializer=raise_here))
        process = launch(*DASK, "worker", address, "--no-dashboard", nanny)
        _, stderr = process.communicate(timeout=200)
        assert process.returncode == 1
        assert stderr.splitlines()[-1] == "OSError: no GPU here"
        assert "\nError: the worker can't set up its slots, and has closed: the process of slot" in stderr
        assert not client.scheduler_info()["workers"]


@pytest.fixture
def without_package(tmp_path: Path) -> str:
    """A folder for PYTHONPATH: with it the package can't be found."""
    hide = tmp_path / "hide"
    hide.mkdir()
    hidden = "raise ModuleNotFoundError(\"No module named 'skyward_dask'\", name='skyward_dask')\n"
    (hide / "skyward_dask.py").write_text(hidden)
    return str(hide)


def test_a_worker_without_the_package_is_named(
    launch: Launch, address: str, without_package: str, tmp_path: Path
) -> None:
    """By `install`, `resize` and `check`; one that imports the package from a zip file is as good as any."""
    package = Path(sky.__file__).parent
    with zipfile.ZipFile(tmp_path / "sky.zip", "w") as archive:
        for file in package.rglob("*[!c]"):
            archive.write(file, file.relative_to(package.parent))
    worker = (*DASK, "worker", address, "--no-dashboard", "--no-nanny", "--nthreads", "1", "--name")
    launch(*worker, "zip", PYTHONPATH=str(tmp_path / "sky.zip"))
    launch(*worker, "without", PYTHONPATH=without_package)
    slots = sky.Worker(concurrency=2, executor="process")
    with Client(address) as client:
        client.wait_for_workers(2, timeout=200)
        bad = client.submit(lambda: get_worker().address, workers=["without"]).result()
        named = rf"on 1 worker\(s\).*:\n  {bad}: skyward_dask, or a part of it, isn't installed"
        for change in (partial(sky.install, client, slots), partial(sky.resize, client, 3)):
            with pytest.raises(sky.InstallError, match=named):
                change()
        assert sorted(client.nthreads().values()) == [1, 3]
        (problem,) = sky.check(client).problems
        assert problem.startswith(f"{bad}: ") and "isn't installed" in problem
        found = client.submit(lambda: sys.modules["skyward_dask"].__file__, workers=["zip"])
        assert "sky.zip" in found.result()
        sky.uninstall(client)


def test_a_scheduler_without_the_package(launch: Launch, without_package: str) -> None:
    """A preloading worker exits, `install` raises; both say what is missing."""
    scheduler = launch(*DASK, "scheduler", "--port", "0", "--no-dashboard", PYTHONPATH=without_package)
    assert scheduler.stderr
    address = next(line.split()[-1] for line in scheduler.stderr if "Scheduler at" in line)
    process = launch(*DASK_WORKER, address, "--no-dashboard", "--no-nanny")
    _, stderr = process.communicate(timeout=200)
    assert process.returncode == 1 and "Install skyward_dask" in stderr
    with Client(address) as client, pytest.raises(sky.InstallError, match="Install skyward_dask"):
        sky.install(client, sky.Worker())


@pytest.mark.crash
def test_slots_end_with_a_killed_worker(launch: Launch, address: str) -> None:
    """``kill -9`` of the worker leaves none of its children, busy ones included."""
    worker = launch(
        *DASK_WORKER, address, "--no-dashboard", "--no-nanny", "--executor", "process", "--concurrency", "2"
    )
    with Client(address) as client:
        client.wait_for_workers(1, timeout=200)
        children = psutil.Process(worker.pid).children(recursive=True)
        busy = client.submit(pow, 7, 10**9)
        worker.kill()
        _, alive = psutil.wait_procs(children, timeout=200)
        assert children and not alive
        del busy


def test_collections_move_before_their_workers_leave(
    launch: Launch, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """By ``--lifetime``, over HTTP and after a SIGTERM, while they are used: nobody notices."""
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__HTTP__ROUTES", '["distributed.http.scheduler.api"]')
    address = request.getfixturevalue("address")
    options = {
        "brief": ["--lifetime", "1h", "--lifetime-restart"],
        "retired": ["--no-nanny"],
        "ended": [],
        "last": ["--no-nanny"],
    }
    workers = {
        name: launch(*DASK, "worker", address, "--nthreads", "1", "--no-dashboard", "--name", name, *more)
        for name, more in options.items()
    }
    with Client(address) as client, ThreadPoolExecutor(4) as threads:
        counters, over = [sky.counter(f"c-{n}", client=client) for n in range(4)], threading.Event()

        def use(counter: Any) -> list[int]:
            numbers = [counter.increment()]
            while not over.is_set():
                numbers.append(counter.increment())
            return numbers

        def found() -> dict[str, str]:
            return {told["name"]: where for where, told in client.scheduler_info(-1)["workers"].items()}

        # `Client.scheduler_info` may return what the client asked for earlier by itself
        while (first := found()).keys() != options.keys():
            time.sleep(0.05)
        using = [threads.submit(use, counter) for counter in counters]
        while len(sky.collections(client)) < len(counters):
            time.sleep(0.01)
        client.run(end_lifetime, workers=[first["brief"]])
        while found().get("brief", first["brief"]) == first["brief"]:
            time.sleep(0.05)
        port = client.scheduler_info()["services"]["dashboard"]
        retire = urllib.request.Request(
            f"http://127.0.0.1:{port}/api/v1/retire_workers",
            json.dumps({"workers": [first["retired"]]}).encode(),
        )
        with urllib.request.urlopen(retire) as answer:
            assert set(json.load(answer)) == {first["retired"]}
        workers["ended"].terminate()
        workers["ended"].communicate(timeout=200)
        over.set()
        for counter, numbers in zip(counters, using, strict=True):
            assert numbers.result() == list(range(1, counter.value + 1))
        actions = [event["action"] for _, event in client.get_events("skyward") if "collection" in str(event)]
        assert actions.count("move") >= 3 and set(actions) <= {"in-step", "move"}, actions

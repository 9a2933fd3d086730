"""`Compute` on real clusters, over both executors."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import traceback
import warnings
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from urllib.request import urlopen

import pytest
from distributed import Client, LocalCluster, Worker, get_worker

import skyward_dask as sky
from skyward_dask.extension.client import progress_bar

PACKAGE = str(Path(sky.__file__).parent)
PRELOAD = {"DASK_DISTRIBUTED__WORKER__PRELOAD": "skyward_dask"}


@sky.function
def double(x: int) -> int:
    return 2 * x


@sky.function
def pid() -> int:
    return os.getpid()


@sky.function
def fail(text: str) -> None:
    raise KeyError(text)


@sky.function
async def on_the_loop(x: int) -> int:
    return x


@sky.function
async def on_its_workers_loop() -> tuple[int, str]:
    worker = get_worker()
    assert isinstance(worker, Worker)
    with sky.Compute(cluster=worker.scheduler.address) as compute:
        return await on_a_loop(compute)


async def on_a_loop(compute: sky.Compute) -> tuple[int, str]:
    """What `>` gives there, and what is wrong with `>>`; others say what to write too, and it works."""
    with pytest.raises(sky.OperatorError) as caught:
        double(1) >> compute
    calls = [double(1), double(2)]
    with pytest.raises(sky.OperatorError, match=r"asyncio.gather\(\*\[asyncio.wrap_future\(call > compute\)"):
        sky.gather(*calls) >> compute
    assert await asyncio.gather(*[asyncio.wrap_future(call > compute) for call in calls]) == [2, 4]
    with pytest.raises(sky.OperatorError, match=r"asyncio.to_thread\(lambda: f\(x\) @ compute"):
        double(1) @ compute
    assert await asyncio.to_thread(lambda: double(1) @ compute) == [2]
    with pytest.raises(sky.OperatorError, match=r"asyncio.to_thread\(compute.map, f, items"):
        compute.map(double, [1])
    assert await asyncio.to_thread(compute.map, double, [1]) == [2]
    return await asyncio.wrap_future(double(21) > compute), str(caught.value)


@sky.function
def block(started: str, release: str) -> str:
    Path(started).write_text("")
    return Path(release).read_text()


@pytest.fixture(scope="module")
def module_compute(executor: str) -> Iterator[sky.Compute]:
    with sky.Compute(worker=sky.Worker(concurrency=2, executor=executor)) as compute:
        yield compute


def test_operators(module_compute: sky.Compute) -> None:
    """One, a future, several at once, many."""
    compute = module_compute
    assert double(4) >> compute == 8
    assert (double(4) > compute).result() == 8
    assert (double(1) & double(2) & double(3)) >> compute == (2, 4, 6)
    assert sky.gather(*map(double, range(10))) >> compute == [2 * n for n in range(10)]
    assert on_the_loop(3) >> compute == 3


def test_streams_of_results(module_compute: sky.Compute, tmp_path: Path) -> None:
    """In order, or as they finish."""
    calls = [double(n) for n in range(10)]
    assert list(sky.gather(*calls, stream=True) >> module_compute) == [2 * n for n in range(10)]
    unordered = sky.gather(*calls, stream=True, ordered=False) >> module_compute
    assert sorted(unordered) == [2 * n for n in range(10)]
    names = str(tmp_path / "started"), str(tmp_path / "release")
    for name in names:
        os.mkfifo(name)
    results = sky.gather(block(*names), double(1), stream=True, ordered=False) >> module_compute
    Path(names[0]).read_text()
    assert next(results) == 2
    Path(names[1]).write_text("late")
    assert list(results) == ["late"]


def test_a_terminal_shows_progress(
    module_compute: sky.Compute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of `gather` and `map`, unless they are told not to; a line that is gone at the end."""
    names = str(tmp_path / "started"), str(tmp_path / "release")
    for name in names:
        os.mkfifo(name)
    monkeypatch.setattr(progress_bar, "_DELAY", 0)
    master, slave = os.openpty()
    with (
        open(slave, "w") as terminal,
        open(master, "rb", buffering=0) as screen,
        ThreadPoolExecutor(1) as thread,
    ):
        monkeypatch.setattr(sys, "stderr", terminal)
        assert sky.gather(double(1), progress=False) >> module_compute == [2]
        assert module_compute.map(double, [1, 2], progress=False) == [2, 4]
        results = thread.submit(lambda: sky.gather(block(*names), double(1)) >> module_compute)
        shown = b""
        while not shown.endswith(b" s") or b"1 of 2" not in shown:
            shown += screen.read(1000)
        Path(names[0]).read_text()
        Path(names[1]).write_text("late")
        assert results.result(timeout=200) == ["late", 2]
        while not shown.endswith(b" \r"):
            shown += screen.read(1000)
    assert shown.startswith(b"\r[") and set(shown.rpartition(b"s")[2]) == set(b"\r ")


def test_it_runs_in_the_slots_that_were_asked_for(module_compute: sky.Compute, executor: str) -> None:
    """Threads have the worker's pid."""
    (worker,) = module_compute.client.run(os.getpid).values()
    assert (pid() >> module_compute == worker) == (executor == "thread")
    assert list(module_compute.client.nthreads().values()) == [2]


def test_errors_are_the_calls_own(module_compute: sky.Compute) -> None:
    """From each operator, and with no frame of ours in the traceback."""
    compute, failing = module_compute, fail("x")
    for run in (
        lambda: failing >> compute,
        (failing > compute).result,
        lambda: (double(1) & failing) >> compute,
        lambda: sky.gather(failing) >> compute,
        lambda: list(sky.gather(failing, stream=True) >> compute),
    ):
        with pytest.raises(KeyError, match="x") as caught:
            run()
        files = [frame.filename for frame in traceback.extract_tb(caught.value.__traceback__)]
        assert not any(file.startswith(PACKAGE) for file in files), files


def test_a_future_can_be_awaited_and_cancelled(module_compute: sky.Compute, tmp_path: Path) -> None:
    """It is one of concurrent.futures."""

    async def awaiting() -> int:
        return await asyncio.wrap_future(double(21) > module_compute)

    assert asyncio.run(awaiting()) == 42
    names = str(tmp_path / "started"), str(tmp_path / "release")
    for name in names:
        os.mkfifo(name)
    future = block(*names) > module_compute
    Path(names[0]).read_text()
    assert future.cancel() and future.cancelled()
    with pytest.raises(CancelledError):
        future.result()
    Path(names[1]).write_text("")


def test_operators_wait_on_any_loop_but_their_own(module_compute: sky.Compute) -> None:
    """A notebook has a loop in its main thread; only the one that brings the result must not wait for it."""
    compute = module_compute

    async def on_a_users_loop() -> list[int]:
        assert list(sky.gather(double(3), stream=True) >> compute) == [6]
        return [double(1) >> compute, *((double(2) & double(3)) >> compute)]

    assert asyncio.run(on_a_users_loop()) == [2, 4, 6]
    for value, refusal in (compute.client.sync(on_a_loop, compute), on_its_workers_loop() >> compute):
        assert value == 42 and "write `await asyncio.wrap_future(f(x) > compute)`" in refusal


#: Half-made clients once held the interpreter's end up, for twice as long.
LONG_CONNECTING = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "1h"}


def run(tmp_path: Path, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script, whose warnings are errors; all that it prints is in `stdout`."""
    path = tmp_path / "script.py"
    path.write_text(f"import skyward_dask as sky\n{script}\n")
    return subprocess.run(
        [sys.executable, "-W", "error", path],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=200,
        check=False,
        env=os.environ | LONG_CONNECTING | environment,
    )


def test_a_script_with_functions_of_its_own(tmp_path: Path) -> None:
    """``__main__`` travels by value, in both directions."""
    script = """
class Point:
    def __init__(self, x): self.x = x
@sky.function
def move(point): return Point(point.x + 1)
if __name__ == "__main__":
    with sky.Compute(worker=sky.Worker(concurrency=1, executor="process")) as compute:
        print((move(Point(1)) >> compute).x)
"""
    # then a nanny may warn of a worker that takes four seconds to end
    assert run(tmp_path, script).stdout.splitlines()[0] == "2"


def test_a_script_that_closes_nothing_ends_silently(tmp_path: Path) -> None:
    """Its threads are gone when the slots are ended."""
    script = """
from distributed import Client
if __name__ == "__main__":
    client = Client(processes=False, n_workers=1, dashboard_address=":0")
    sky.install(client, sky.Worker(concurrency=1, executor="process"))
    print(client.submit(abs, -1).result())
"""
    done = run(tmp_path, script)
    assert (done.returncode, done.stdout) == (0, "1\n")


def test_a_script_without_a_guard_is_told_so(tmp_path: Path) -> None:
    """Its worker processes import it again; they are silent, and the script itself says why it ends."""
    done = run(tmp_path, "with sky.Compute(nodes=2) as compute: pass")
    lines = done.stdout.splitlines()
    assert done.returncode and 'under `if __name__ == "__main__":`' in lines[-1]
    assert not any("Nanny" in line for line in lines) and len(lines) < 10


@pytest.mark.parametrize(
    ("opening", "environment", "reason"),
    [
        ("cluster='127.0.0.1'", {}, "not the address of a scheduler: missing port number"),
        ("cluster='nothing://127.0.0.1:80'", {}, "not the address of a scheduler: unknown address scheme"),
        ("", {"DASK_SKYWARD__WORKER__EXECUTOR": "processes"}, "executor must be one of"),
        ("worker=sky.Worker()", PRELOAD | {"DASK_SKYWARD__WORKER__TIMEOUT": "soon"}, "timeout must be"),
    ],
)
def test_the_last_line_says_why_it_cannot_open(
    tmp_path: Path, opening: str, environment: dict[str, str], reason: str
) -> None:
    """Whoever has found out; and the interpreter ends at once."""
    script = f"if __name__ == '__main__':\n    with sky.Compute({opening}): pass"
    done = run(tmp_path, script, **environment)
    last = done.stdout.splitlines()[-1]
    assert done.returncode and last.startswith("skyward_dask.ConfigurationError: ") and reason in last


def test_dashboards_do_not_clash(module_compute: sky.Compute) -> None:
    """Each has its own. Only one page is opened: Bokeh switches validation off for all pages of a process."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with sky.Compute() as other:
            links = [compute.client.dashboard_link for compute in (module_compute, other)]
            assert len(set(links)) == 2
            for link in (links[0].replace("status", "health"), links[1]):
                with urlopen(link) as page:
                    assert page.status == 200
            assert links[1] in other._repr_html_() and "processes=1" in repr(other)
    assert repr(other) == "<Compute, not open>"


def test_a_cluster_of_this_very_loop_is_refused() -> None:
    """It could never answer."""

    async def main() -> None:
        async with LocalCluster(n_workers=0, asynchronous=True, dashboard_address=None) as cluster:
            with pytest.raises(sky.ConfigurationError, match="event loop"), sky.Compute(cluster=cluster):
                pass

    asyncio.run(main())


def test_somebody_elses_cluster_is_given_back() -> None:
    """Its slots change only if a worker is given, and are put back."""
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        with pytest.raises(sky.ConfigurationError, match=r"not <Client.*client\.scheduler\.address"):
            sky.Compute(cluster=client)
        with sky.Compute(cluster=cluster) as compute:
            assert double(2) >> compute == 4
            assert list(client.nthreads().values()) == [1]
        with sky.Compute(cluster=cluster.scheduler_address, worker=sky.Worker(concurrency=3)) as compute:
            assert double(2) >> compute == 4
            assert list(client.nthreads().values()) == [3]
        assert list(client.nthreads().values()) == [1]
        sky.install(client, sky.Worker(concurrency=2))
        with sky.Compute(cluster=cluster, worker=sky.Worker(concurrency=3)):
            assert list(client.nthreads().values()) == [3]
        assert list(client.nthreads().values()) == [2]

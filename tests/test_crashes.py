"""Processes die under real tasks of a real worker: the task fails, and nothing else is touched."""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import Path

import psutil
import pytest
from distributed import Client, Future, secede, wait

import skyward_dask as sky
from tests.sizes import size, sized

pytestmark = pytest.mark.crash


@pytest.fixture(scope="module")
def executor() -> str:
    return "process"


def die(how: str) -> None:
    match how:
        case "exit":
            os._exit(3)
        case "sys.exit":
            sys.exit(4)
        case "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "interrupt":
            raise KeyboardInterrupt


def block(started: str, release: str) -> int:
    Path(started).write_text("")
    Path(release).read_text()
    return os.getpid()


@pytest.mark.parametrize("how", ["exit", "sys.exit", "segfault", "interrupt", "killed from outside"])
def test_nothing_else_is_touched(
    shared_client: Client, fifos: tuple[str, str], tmp_path: Path, how: str
) -> None:
    """A sibling computes, results stay, the worker stays who and where it is."""
    before = shared_client.run(os.getpid)
    earlier = shared_client.submit(lambda: list(range(1000)), pure=False)
    wait(earlier)
    sibling = shared_client.submit(block, *fifos, pure=False)
    Path(fifos[0]).read_text()
    if how == "killed from outside":
        mine = str(tmp_path / "mine"), str(tmp_path / "never")
        for name in mine:
            os.mkfifo(name)
        victim = shared_client.submit(block, *mine, pure=False)
        Path(mine[0]).read_text()
        (worker,) = sky.statistics(shared_client).workers.values()
        (pid,) = [slot.pid for slot in worker.slots if slot.task == victim.key]
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    else:
        victim = shared_client.submit(die, how, pure=False)
    with pytest.raises(sky.SlotCrashed) as caught:
        victim.result()
    error = caught.value
    assert error.key == victim.key and error.worker in shared_client.scheduler_info()["workers"]
    assert error.worker in str(error)
    expected = {
        "exit": (3, None),
        "sys.exit": (4, None),
        "interrupt": (130, None),
        "segfault": (None, "SIGSEGV"),
    }
    assert (error.exitcode, error.signal) == expected.get(how, (None, "SIGKILL"))
    Path(fifos[1]).write_text("")
    assert sibling.result() not in (error.pid, None)
    assert earlier.result() == list(range(1000))
    assert shared_client.run(os.getpid) == before
    assert shared_client.submit(os.getpid, pure=False).result() != error.pid


def test_a_task_that_has_seceded_is_repeated_too(shared_client: Client, fifos: tuple[str, str]) -> None:
    """When its template ends; it secedes again."""

    def step_aside(started: str, release: str) -> int:
        secede()
        return block(started, release)

    future = shared_client.submit(step_aside, *fifos, pure=False)
    Path(fifos[0]).read_text()
    (worker,) = sky.statistics(shared_client).workers.values()
    pid = next(slot.pid for slot in worker.slots if slot.pid)
    psutil.Process(pid).parent().kill()
    Path(fifos[0]).read_text()
    Path(fifos[1]).write_text("")
    assert future.result() > 0


def test_retries_cover_a_crash(shared_client: Client, tmp_path: Path) -> None:
    """A crash is an error like any: ``retries`` runs it again."""

    def once(flag: str) -> str:
        if not os.path.exists(flag):
            Path(flag).touch()
            os._exit(1)
        return "second"

    assert shared_client.submit(once, str(tmp_path / "flag"), retries=1).result() == "second"


@sized
def test_blame_is_exact(shared_client: Client) -> None:
    """Short tasks and random kills: each crash is one of these kills, and the rest is right."""
    kills = size(20, 150)
    (address,) = shared_client.nthreads()
    futures: list[Future[int]] = []
    killed: set[int] = set()
    chance = random.Random(2)
    while len(killed) < kills:
        if all(future.done() for future in futures):
            more = range(len(futures), len(futures) + size(1000, 10_000))
            futures += shared_client.map(lambda x: -x, more, pure=False)
        slots = sky.statistics(shared_client).workers[address].slots
        victim = chance.choice(slots)
        if victim.pid is not None and victim.state in ("idle", "busy") and victim.pid not in killed:
            os.kill(victim.pid, signal.SIGKILL)
            killed.add(victim.pid)
    wait(futures)
    crashes = [error for f in futures if (error := f.exception()) is not None]
    assert all(isinstance(error, sky.SlotCrashed) for error in crashes)
    pids = [error.pid for error in crashes]
    assert len(pids) == len(set(pids)) and set(pids) <= killed
    assert all(f.result() == -n for n, f in enumerate(futures) if f.status == "finished")

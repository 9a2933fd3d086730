"""Streams whose producers, readers or workers are lost, limited, or moved."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, LocalCluster

import skyward_dask as sky
from tests.streams.places import PATIENCE, note, notes, two_workers, until
from tests.streams.test_streams import assert_idle, endless, numbers

pytestmark = pytest.mark.crash


@pytest.fixture(scope="module")
def shared_client() -> Iterator[Client]:
    """Two workers with two process slots each."""
    with two_workers(sky.Worker(concurrency=2, executor="process")) as client:
        yield client


def kills_itself(count: int) -> Iterator[int]:
    yield from range(count)
    os.kill(os.getpid(), 9)
    yield count


def leaves(count: int) -> Iterator[int]:
    yield from range(count)
    sys.exit(7)


@pytest.mark.parametrize(("generator", "how"), [(kills_itself, "SIGKILL"), (leaves, "exit code 7")])
@pytest.mark.parametrize("count", [3, 200])
def test_a_process_that_dies(
    shared_client: Client, generator: Callable[[int], Iterator[int]], count: int, how: str
) -> None:
    """All that was yielded arrives, though its process died in the next step; then an error: no quiet end."""
    stream = shared_client.submit(generator, count, pure=False).result(PATIENCE)
    assert [next(stream) for _ in range(count)] == list(range(count))
    with pytest.raises(sky.StreamBroken, match=how):
        next(stream)
    assert list(stream) == []


def pauses(path: str) -> Iterator[int]:
    yield from range(1000)
    time.sleep(PATIENCE * 10)


def test_the_timeout_counts_steps(shared_client: Client) -> None:
    """Not the waiting for its reader; the error is the time-out's own, with where it stood."""
    with sky.options(timeout=0.5):
        stream = shared_client.submit(pauses, "", pure=False).result(PATIENCE)
    assert next(stream) == 0
    time.sleep(1)  # longer than the timeout: the time during which it waits doesn't count
    with pytest.raises(sky.TaskTimeout) as caught:
        assert list(stream) == list(range(1, 1000))
    assert "pauses" in caught.value.stack


def grows() -> Iterator[int]:
    kept = []
    for n in range(1000):
        kept.append(bytearray(os.urandom(1 << 20) * 20))
        yield n


def test_the_memory_limit_holds(shared_client: Client) -> None:
    """As for any task."""
    with sky.options(memory_limit="400 MiB"):
        stream = shared_client.submit(grows, pure=False).result(PATIENCE)
    with pytest.raises(sky.SlotOutOfMemory):
        list(stream)


READER = """
import sys
from distributed import Client
from tests.streams.test_streams import endless
client = Client(sys.argv[1])
stream = client.submit(endless, sys.argv[2], pure=False).result()
print(next(stream), flush=True)
for item in stream:
    sys.stdin.read()
"""


def test_a_reader_that_is_killed(shared_client: Client, tmp_path: Path) -> None:
    """Its streams are closed."""
    path, address = str(tmp_path / "notes"), shared_client.scheduler.address
    command = [sys.executable, "-c", READER, address, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"0\n"
        reader.kill()
    until(lambda: notes(path)[-1:] == ["closed"])
    assert_idle(shared_client)


def test_a_client_that_closes(shared_client: Client, tmp_path: Path) -> None:
    """Its streams end with an error at its readers, and are closed."""
    path = str(tmp_path / "notes")
    with Client(shared_client.scheduler.address, set_as_default=False) as other:
        stream = other.submit(endless, path, pure=False).result(PATIENCE)
        assert next(stream) == 0
    with pytest.raises(sky.StreamBroken):
        list(stream)
    until(lambda: notes(path)[-1:] == ["closed"])


def test_a_template_that_is_killed(shared_client: Client, tmp_path: Path) -> None:
    """A stream isn't repeated: what was read can't be read again."""
    path = str(tmp_path / "notes")
    stream = shared_client.submit(endless, path, pure=False).result(PATIENCE)
    assert next(stream) == 0

    def kill_templates(dask_worker: Any) -> None:
        import psutil

        for child in psutil.Process(os.getpid()).children():
            if "skyward_dask.slots.child.template" in " ".join(child.cmdline()):
                child.kill()

    shared_client.run(kill_templates)
    with pytest.raises(sky.StreamBroken):
        list(stream)
    assert notes(path).count("begun") == 1
    assert shared_client.submit(abs, -1, pure=False).result(PATIENCE) == 1


def test_many_streams_leave_nothing(shared_client: Client, tmp_path: Path) -> None:
    """Read to the end, half-way, or not at all."""
    for n in range(30):
        stream = shared_client.submit(numbers, 200, pure=False).result(PATIENCE)
        for _ in range((0, 50, 201)[n % 3]):
            next(stream, None)
    del stream
    gc.collect()
    assert_idle(shared_client)


@pytest.mark.parametrize("executor", ["thread", "process"])
def test_in_one_process(executor: str, tmp_path: Path) -> None:
    """Scheduler, worker and client in this process: the stream is held by whoever has it, as elsewhere."""
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        sky.install(client, sky.Worker(concurrency=1, executor=executor))
        path = str(tmp_path / "notes")
        stream = client.submit(endless, path, pure=False).result(PATIENCE)
        gc.collect()
        assert [next(stream) for _ in range(200)] == list(range(200))
        future = client.submit(numbers, 10, pure=False)
        assert next(future.result()) == 0
        with pytest.raises(sky.StreamTaken):
            next(future.result())
        assert client.submit(sum, client.submit(numbers, 100, pure=False)).result(PATIENCE) == 4950
        assert client.submit(sum, sky.feed(range(100)), pure=False).result(PATIENCE) == 4950
        del stream
        gc.collect()
        until(lambda: notes(path)[-1:] == ["closed"])


def test_an_uninstall_lets_streams_finish(shared_client: Client, tmp_path: Path) -> None:
    """They end in the slots where they began."""
    path = str(tmp_path / "notes")
    stream = shared_client.submit(endless, path, pure=False).result(PATIENCE)
    assert next(stream) == 0
    sky.uninstall(shared_client)
    assert [next(stream) for _ in range(200)] == list(range(1, 201))
    stream.close()
    until(lambda: notes(path)[-1:] == ["closed"])
    sky.install(shared_client, sky.Worker(concurrency=2, executor="process"))
    note(path, "installed")


def pids(count: int) -> Iterator[int]:
    for _ in range(count):
        yield os.getpid()


def test_an_install_lets_streams_finish(shared_client: Client, tmp_path: Path) -> None:
    """In the slots that it replaces; in the new ones, a stream counts as one of `max_tasks_per_child`."""
    client, path = shared_client, str(tmp_path / "notes")
    one, _ = client.nthreads()
    stream = client.submit(endless, path, pure=False, workers=[one]).result(PATIENCE)
    assert next(stream) == 0
    sky.install(client, sky.Worker(concurrency=1, executor="process", max_tasks_per_child=2))
    assert [next(stream) for _ in range(200)] == list(range(1, 201))
    stream.close()
    until(lambda: notes(path)[-1:] == ["closed"])
    [child] = set(client.submit(pids, 300, pure=False, workers=[one]).result(PATIENCE))
    second, third = (client.submit(os.getpid, pure=False, workers=[one]).result(PATIENCE) for _ in range(2))
    assert second == child != third
    sky.install(client, sky.Worker(concurrency=2, executor="process"))

"""Large data through Dask: arrays that everybody may write to, and bags that stay closed in the worker."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pandas as pd
import pytest
from dask.sizeof import sizeof
from distributed import Client, LocalCluster, get_client, get_worker, wait

import skyward_dask as sky

MIB = 1 << 20


def increment(x: Any) -> Any:
    x += 1
    return x


class Small:
    """A user's object with an array."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __iadd__(self, other: int) -> Small:
        self.array += other
        return self

    def __eq__(self, other: object) -> Any:
        return self.array == other


def records(count: int) -> list[dict[str, Any]]:
    return [{"id": n, "name": f"name {n}", "tags": ("a", n)} for n in range(count)]


def is_all(x: Any, value: float) -> bool:
    return bool((x == value).all())


@pytest.fixture(scope="module", params=["256 KiB", None], ids=["shared", "socket"])
def shared_client(request: pytest.FixtureRequest) -> Iterator[Client]:
    """Two workers in processes of their own, two process slots each, with and without shared memory."""
    with (
        dask.config.set({"skyward.shared-memory.threshold": request.param}),
        LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        client.run(dask.config.set, {"skyward.shared-memory.threshold": request.param})
        sky.install(client, sky.Worker(concurrency=2, executor="process"))
        yield client


@pytest.mark.parametrize("made", ["by a task", "by the client"])
def test_everybody_sees_the_original(shared_client: Client, made: str) -> None:
    """Four tasks, a thread task, another worker and the client write to one argument; each is right."""
    client = shared_client
    here, other = sorted(client.nthreads())
    with dask.annotate(workers=[here]):
        if made == "by a task":
            x = client.submit(np.zeros, 2 * MIB, pure=False, workers=[here])
        else:
            x = client.scatter(np.zeros(2 * MIB), workers=[here])
    wait(x)
    slots = [client.submit(increment, x, pure=False, workers=[here]) for _ in range(4)]
    with dask.annotate(executor="thread"):
        thread = client.submit(increment, x, pure=False, workers=[here])
        again = client.submit(increment, thread, pure=False, workers=[here])
    elsewhere = client.submit(increment, x, pure=False, workers=[other])
    mine = x.result()
    mine += 5
    ones = [*slots, thread, elsewhere]
    assert all(client.gather([client.submit(is_all, one, 1, pure=False) for one in ones]))
    assert client.submit(is_all, again, 2, pure=False).result()
    assert client.submit(is_all, x, 0, pure=False, workers=[here]).result()
    assert is_all(x.result(), 0) and is_all(mine, 5)


def increment_together(x: Any, folder: str, name: str, count: int) -> Any:
    """Write to the input when all others have it too."""
    (Path(folder) / name).touch()
    while len(os.listdir(folder)) < count:
        time.sleep(0.001)
    return increment(x)


@pytest.mark.slow
def test_everybody_sees_the_original_of_256_megabytes(tmp_path: Path) -> None:
    """Four slots at once, a thread task, another worker, and the client."""
    elements = 32 * MIB
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        sky.install(client, sky.Worker(concurrency=4, executor="process"))
        here, other = sorted(client.nthreads())
        x = client.submit(np.zeros, elements, workers=[here])
        futures = [
            client.submit(increment_together, x, str(tmp_path), str(n), 4, workers=[here]) for n in range(4)
        ]
        wait(futures)
        with dask.annotate(executor="thread"):
            futures.append(client.submit(increment, x, pure=False, workers=[here]))
        futures.append(client.submit(increment, x, pure=False, workers=[other]))
        mine = x.result()
        mine += 5
        assert all(client.gather([client.submit(is_all, one, 1, pure=False) for one in futures]))
        assert client.submit(is_all, x, 0, pure=False, workers=[here]).result()
        assert is_all(mine, 5) and is_all(x.result(), 0)


def test_a_client_chooses_its_serializers(shared_client: Client) -> None:
    """Without pickle it gets what needs none, and nothing else."""
    with Client(shared_client.scheduler.address, serializers=["dask", "msgpack"]) as client:
        for direct in (True, False):
            assert client.gather(client.submit(int, "2", pure=False), direct=direct) == 2
            with pytest.raises(TypeError, match="serialize"):
                client.gather(client.submit(lambda: is_all, pure=False), direct=direct)


def test_what_dask_does_with_values_is_unchanged(shared_client: Client) -> None:
    """Size, type, gather, replicate and a DataFrame's operations."""
    client = shared_client
    frame = pd.DataFrame({"a": np.arange(100_000.0), "b": ["x", "y"] * 50_000})
    made = client.submit(lambda: frame, pure=False)
    wait(made)
    assert made.type is pd.DataFrame
    nbytes = client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.tasks[made.key].nbytes)
    assert nbytes == sizeof(frame)
    client.replicate([made])
    assert len(client.who_has([made])[made.key]) == 2
    sums = client.submit(lambda x: x.groupby("b").a.sum(), made)
    pd.testing.assert_series_equal(sums.result(), frame.groupby("b").a.sum())
    pd.testing.assert_frame_equal(made.result(), frame)


def test_large_bags_stay_closed(shared_client: Client) -> None:
    """From child to child and to the client; to a thread task it is what it was."""
    client = shared_client
    here, other = sorted(client.nthreads())
    bag = client.submit(records, 20_000, pure=False, workers=[here])
    longer = client.submit(lambda given: given + [{}], bag, pure=False, workers=[here])
    with dask.annotate(executor="thread"):
        thread = client.submit(lambda given: (type(given), len(given)), bag, workers=[here])
    elsewhere = client.submit(len, bag, pure=False, workers=[other])
    assert (len(longer.result()), elsewhere.result()) == (20_001, 20_000)
    assert thread.result() == (list, 20_000)
    assert bag.type is list and bag.result() == records(20_000)


def test_a_bag_with_arrays_arrives_whole(shared_client: Client, request: pytest.FixtureRequest) -> None:
    """What can't be told by its first elements works too; what is shared, everybody may write to."""
    mixed = [*range(200_000), np.ones(100_000), {"last": np.zeros(5)}]
    made = shared_client.submit(lambda: mixed, pure=False)
    if "shared" in request.node.name:
        with dask.annotate(executor="thread"):
            written = shared_client.submit(lambda given: increment(given[-2]), made, pure=False)
        assert is_all(written.result(), 2)
    back = shared_client.submit(lambda given: given, made, pure=False).result()
    assert back[:200_000] == mixed[:200_000] and is_all(back[-2], 1) and back[-1]["last"].shape == (5,)


def test_a_bag_of_small_arrays_stays_closed(shared_client: Client) -> None:
    """So does one of a user's objects; and everybody has their own, to write to."""

    def stored(key: str, dask_worker: Any) -> str:
        return repr(dask_worker.data.get(key))

    def more(given: list[Any]) -> list[Any]:
        return [increment(each) for each in given]

    for make in (
        lambda: [np.ones(10) for _ in range(1000)],
        lambda: [Small(np.ones(10)) for _ in range(1000)],
    ):
        made = shared_client.submit(make, pure=False)
        with dask.annotate(executor="thread"):
            written = shared_client.submit(more, made, pure=False)
        assert all(is_all(each, 2) for each in written.result())
        assert any(each.startswith("<closed list") for each in shared_client.run(stored, made.key).values())
        assert made.type is list and all(is_all(each, 1) for each in made.result())


def test_a_container_in_itself_is_a_result(shared_client: Client) -> None:
    """And one that holds the same one over and over takes no longer."""

    def endless() -> list[Any]:
        itself: list[Any] = []
        itself.append(itself)
        for _ in range(10):
            itself = [itself] * 100
        return itself

    depth, made = 0, shared_client.submit(endless, pure=False).result()
    while made is not made[0]:
        depth, made = depth + 1, made[0]
    assert depth == 10


class Shy:
    """Can't be unpickled in some processes; with an array, which may be shared."""

    def __init__(self, fled: set[int], error: type[BaseException] = ZeroDivisionError) -> None:
        self.fled, self.error, self.array = fled, error, np.ones(MIB)

    def __setstate__(self, state: dict[str, Any]) -> None:
        if not state["fled"] or os.getpid() in state["fled"]:
            raise state["error"]("never here")
        vars(self).update(state)


def total(shy: Shy) -> float:
    return float(shy.array.sum())


@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit])
def test_what_the_worker_cannot_unpickle_serves_those_who_can(
    shared_client: Client, error: type[BaseException]
) -> None:
    """Other slots, here and elsewhere, and the client; a thread of the worker says what it can't have."""
    client = shared_client
    here, other = sorted(client.nthreads())
    pids = client.run(os.getpid)
    shy = client.submit(Shy, {pids[here]}, error, workers=[here], pure=False)
    assert client.submit(total, shy, workers=[here], pure=False).result() == MIB
    with dask.annotate(executor="thread"):
        thread = client.submit(total, shy, workers=[here], pure=False)
    with pytest.raises(sky.SerializationError, match=f"result of task '{shy.key}', of type .*Shy"):
        thread.result()
    assert total(shy.result()) == MIB
    assert client.submit(total, shy, workers=[other], pure=False).result() == MIB
    assert client.run(os.getpid) == pids


class Asking(Shy):
    """Needs the client of a task, besides."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.client = get_client()


def test_what_needs_a_client_to_be_unpickled_is_kept_for_slots(shared_client: Client) -> None:
    here, pid = min(shared_client.run(os.getpid).items())
    made = shared_client.submit(Asking, {pid}, workers=[here], pure=False)
    assert shared_client.submit(total, made, workers=[here], pure=False).result() == MIB


class Hostile:
    """Raises what would end a process, if it is pickled or unpickled in that one; and has no size."""

    def __init__(self, pid: int, ballast: int = 0) -> None:
        self.pid, self.ballast = pid, list(range(ballast))

    def refuse(self) -> None:
        if os.getpid() == self.pid:
            raise SystemExit("not me")

    def __getstate__(self) -> dict[str, Any]:
        self.refuse()
        return vars(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.refuse()

    def __sizeof__(self) -> int:
        raise ZeroDivisionError


def take(given: Any) -> int:
    return len(given.ballast)


async def take_on_the_loop(given: Any) -> int:
    return len(given)


@pytest.mark.parametrize("ballast", [0, 200_000], ids=["small", "large"])
def test_what_would_end_the_worker_is_the_tasks_error(shared_client: Client, ballast: int) -> None:
    """A value that raises SystemExit there: a result, an argument, a request, one of many for a coroutine."""
    client = shared_client
    here = min(client.nthreads())
    pids = client.run(os.getpid)
    pid = pids[here]
    with dask.annotate(executor="thread"):
        made = client.submit(Hostile, pid, ballast, workers=[here], pure=False)
    many = client.submit(lambda: [Hostile(pid)] + [0] * 200_000, workers=[here], pure=False)
    for future in (
        client.submit(take, made, workers=[here], pure=False),
        client.submit(lambda: get_worker().log_event("x", Hostile(pid, ballast)), workers=[here], pure=False),
        client.submit(take_on_the_loop, many, workers=[here], pure=False),
    ):
        with pytest.raises(sky.SerializationError, match="not me"):
            future.result(timeout=200)
    assert client.submit(len, many, workers=[here], pure=False).result() == 200_001
    assert client.run(os.getpid) == pids


def test_what_nobody_can_unpickle_is_named(shared_client: Client) -> None:
    """The task that made it fails."""
    with pytest.raises(sky.SerializationError, match=r"the result.*never here"):
        shared_client.submit(Shy, set(), pure=False).result()


def test_a_bad_threshold_is_named(shared_client: Client) -> None:
    """The configuration is judged where it is read."""
    from skyward_dask.extension.worker.shared_memory import share_from

    with (
        dask.config.set({"skyward.shared-memory.threshold": "much"}),
        pytest.raises(sky.ConfigurationError, match=r"threshold must be a size .* not 'much'"),
    ):
        share_from()


def test_the_worker_is_not_a_slot(shared_client: Client) -> None:
    """These tasks really run in other processes."""
    pids = set(shared_client.run(os.getpid).values())
    assert shared_client.submit(os.getpid, pure=False).result() not in pids

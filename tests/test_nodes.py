"""Calls for single nodes and for all, data divided among nodes, and what a task knows about its own."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from operator import itemgetter
from pathlib import Path
from typing import Any, ClassVar, Literal

import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from distributed import Client, LocalCluster, secede
from hypothesis import given
from hypothesis import strategies as st

import skyward_dask as sky
from skyward_dask.api.nodes import Nodes
from skyward_dask.extension.client.session import Session


def parts(*sequences: Any, total: int, **options: Any) -> list[Any]:
    """What each node gets."""
    return [sky.shard(*sequences, node=node, total_nodes=total, **options) for node in range(total)]


@given(st.integers(0, 40), st.integers(1, 9), st.booleans(), st.one_of(st.none(), st.integers()))
def test_each_element_is_in_one_part(length: int, total: int, shuffle: bool, seed: int | None) -> None:
    """Sizes differ by one at most; with `drop_last` not at all; several sequences are divided alike."""
    numbers, squares = list(range(length)), [n * n for n in range(length)]
    found = parts(numbers, squares, total=total, shuffle=shuffle, seed=seed)
    assert sorted(n for part, _ in found for n in part) == numbers
    assert all([n * n for n in part] == others for part, others in found)
    sizes = {len(part) for part, _ in found}
    assert max(sizes) - min(sizes) <= 1
    equal = parts(numbers, total=total, shuffle=shuffle, seed=seed, drop_last=True)
    assert {len(part) for part in equal} == {length // total}
    assert len({n for part in equal for n in part}) == length // total * total


def test_a_permutation_depends_on_its_seed_alone() -> None:
    data = list(range(100))
    default, again, other = (
        sky.shard(data, shuffle=True, seed=seed, node=0, total_nodes=2) for seed in (None, None, 7)
    )
    assert default == again != other
    assert default != sky.shard(data, node=0, total_nodes=2)


FRAME = pd.DataFrame({"a": range(5)}, index=list("vwxyz"))
TABLE = pa.table({"a": [0, 1, 2, 3, 4]})
EQUAL: dict[type, Any] = {
    np.ndarray: np.array_equal,
    pd.DataFrame: pd.DataFrame.equals,
    pd.Series: pd.Series.equals,
}


@pytest.mark.parametrize(
    ("whole", "first"),
    [
        ((0, 1, 2, 3, 4), (0, 2, 4)),
        (range(5), range(0, 5, 2)),
        ("abcde", "ace"),
        (b"abcde", b"ace"),
        (np.arange(10).reshape(5, 2), np.array([[0, 1], [4, 5], [8, 9]])),
        (FRAME, FRAME.loc[["v", "x", "z"]]),
        (FRAME.a, FRAME.a.loc[["v", "x", "z"]]),
        (TABLE, TABLE.take([0, 2, 4])),
    ],
    ids=lambda value: type(value).__name__,
)
def test_types_are_kept(whole: Any, first: Any) -> None:
    part = sky.shard(whole, node=0, total_nodes=2)
    assert type(part) is type(first)
    assert EQUAL.get(type(part), lambda a, b: a == b)(part, first)
    shuffled = sky.shard(whole, node=0, total_nodes=2, shuffle=True)
    assert len(shuffled) == 3
    assert type(shuffled) is (list if isinstance(whole, range) else type(whole))


@pytest.mark.parametrize(
    "collection",
    [
        da.arange(10, chunks=2),
        db.from_sequence(range(10), npartitions=5),
        dd.from_pandas(pd.DataFrame({"a": range(10)}), npartitions=5).a,
    ],
    ids=lambda value: type(value).__name__,
)
def test_collections_are_divided_by_partition(collection: Any) -> None:
    """A node for which there is none has an empty collection."""
    found = [list(part.compute(scheduler="sync")) for part in parts(collection, total=6)]
    assert found == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], []]
    assert sky.shard(collection, node=1, total_nodes=2, shuffle=True).npartitions == 2


@pytest.mark.parametrize(
    ("sequences", "options", "instead"),
    [
        (([1],), {}, "call it in a task, or give node= and total_nodes="),
        (([1],), {"node": 2, "total_nodes": 2}, "0 <= node < total_nodes"),
        (([1],), {"node": 0}, "both node= and total_nodes="),
        (([1], [1, 2]), {"node": 0, "total_nodes": 2}, r"different lengths: \[1, 2\]"),
        ((), {"node": 0, "total_nodes": 2}, "at least one sequence"),
        (({1: 2},), {"node": 0, "total_nodes": 2}, "not a dict: make a list of it first"),
        ((iter([1]),), {"node": 0, "total_nodes": 2}, "make a list of it first"),
        ((np.array(3),), {"node": 0, "total_nodes": 2}, "make a list of it first"),
    ],
)
def test_mistakes(sequences: Sequence[Any], options: dict[str, Any], instead: str) -> None:
    with pytest.raises(sky.ConfigurationError, match=instead):
        sky.shard(*sequences, **options)


def where() -> tuple[sky.InstanceInfo, list[int], int]:
    """Waits until all slots are taken, so that no two tasks have the same one."""
    barrier = sky.barrier("all", 3)
    barrier.wait(timeout=200)
    info = sky.instance_info()
    assert info is not None
    barrier.wait(timeout=200)
    return info, sky.shard(list(range(10))), os.getpid()


@pytest.fixture(scope="module")
def shared_client(executor: Literal["thread", "process"]) -> Iterator[Client]:
    """A client of two workers: the first one has two slots, the second one has one."""
    with LocalCluster(n_workers=0, dashboard_address=None) as cluster, Client(cluster) as client:
        cluster.scale(1)
        client.wait_for_workers(1)
        (first,) = client.nthreads()
        cluster.scale(2)
        client.wait_for_workers(2)
        sky.install(client, sky.Worker(concurrency=1, executor=executor))
        sky.resize(client, 2, workers=[first])
        yield client


def test_every_slot_has_a_number(shared_client: Client, executor: str) -> None:
    """Numbers are those of nodes in the order in which they joined, and of the slots in them."""
    first, second = (node.address for node in Nodes(Session(shared_client)))
    found = shared_client.gather(
        [shared_client.submit(where, pure=False, workers=[node]) for node in (first, first, second)]
    )
    infos = sorted((info for info, _, _ in found), key=lambda info: info.index)
    assert [(i.node, i.slot, i.index, i.concurrency) for i in infos] == [
        (0, 0, 0, 2),
        (0, 1, 1, 2),
        (1, 0, 2, 1),
    ]
    assert {(i.total_nodes, i.total, i.peers, i.head_host, i.host) for i in infos} == {
        (2, 3, ("127.0.0.1", "127.0.0.1"), "127.0.0.1", "127.0.0.1")
    }
    assert [i.is_head for i in infos] == [True, True, False]
    assert {tuple(part) for info, part, _ in found if info.node == 1} == {(1, 3, 5, 7, 9)}
    assert len({pid for _, _, pid in found}) == (3 if executor == "process" else 2)
    assert sky.instance_info() is None
    assert set(shared_client.run(sky.instance_info).values()) == {None}


@sky.function
def node_of(x: int, key: int = 0) -> tuple[int, int]:
    """`key` is a parameter of `Client.submit`, too."""
    info = sky.instance_info()
    assert info is not None
    return info.node, x + key


@sky.function
def nested() -> tuple[list[tuple[int, int]], tuple[int, int]]:
    """Gives its slot away while it waits: a node may have one alone."""
    return node_of(3) @ sky, node_of(4) >> sky


@sky.function
def fail_on(node: int) -> int:
    if node_of.local(0)[0] == node:
        raise KeyError(node)
    return 7


@sky.function
def wait_for(release: str) -> int:
    sky.counter("waiting").increment()
    while not Path(release).exists():
        time.sleep(0.01)
    return os.getpid()


def test_targets(shared_client: Client) -> None:
    """All nodes, one of them, a client, and the module: what is open in this context, or else the client."""
    with sky.Compute(cluster=shared_client.cluster) as compute:
        assert node_of(1, key=2) @ compute == [(0, 3), (1, 3)]
        assert [node_of(1) >> node for node in compute.nodes] == [(0, 1), (1, 1)]
        assert [node_of(1) @ compute.nodes[1], [(node_of(1) > compute.nodes[1]).result()]] == [[(1, 1)]] * 2
        assert sky.gather(node_of(1), node_of(2)) >> compute.nodes[0] == [(0, 1), (0, 2)]
        assert compute.map(lambda x, y: x + y, [1, 2], range(5)) == [1, 3]
        assert node_of(1) @ sky == [(0, 1), (1, 1)]
    assert node_of(1) @ shared_client == node_of(1) @ sky == [(0, 1), (1, 1)]


class Noted:
    """Notes each time it is pickled here."""

    pickled: ClassVar[list[int]] = []

    def __reduce__(self) -> tuple[Any, ...]:
        self.pickled.append(1)
        return Noted, ()


@sky.function
def both(argument: object, data: int) -> tuple[str, int]:
    return type(argument).__name__, data


def test_arguments_are_pickled_once(shared_client: Client) -> None:
    """By the client; the scheduler, which is in this process, does it for each node.

    Futures among the arguments are results there. A call can be run again.
    """
    call = both(Noted(), shared_client.scatter(7))
    assert call >> shared_client == ("Noted", 7)
    Noted.pickled.clear()
    assert call @ shared_client == [("Noted", 7)] * 2
    assert len(Noted.pickled) == 1 + 2


@sky.function
def streaming(ordered: bool) -> list[tuple[int, int]]:
    sky.barrier("streaming", 3).wait(timeout=200)  # now all slots are taken
    calls = [node_of(n) for n in range(2)]
    return sorted(sky.gather(*calls, stream=True, ordered=ordered) >> sky, key=itemgetter(1))


@pytest.mark.parametrize("ordered", [True, False])
def test_a_task_waits_for_a_stream_without_its_slot(shared_client: Client, ordered: bool) -> None:
    """What it waits for may need one."""
    for found in sky.gather(*[streaming(ordered)] * 3) >> shared_client:
        assert [x for _, x in found] == [0, 1]


def test_where_an_asynchronous_client_waits(shared_client: Client) -> None:
    """In another thread, as the error says."""

    async def main() -> list[tuple[int, int]]:
        address = shared_client.scheduler_info()["address"]
        async with Client(address, asynchronous=True) as client:
            with pytest.raises(sky.OperatorError, match=r"asyncio\.to_thread\(lambda: f\(x\) @ compute\)"):
                node_of(1) @ client
            return await asyncio.to_thread(lambda: node_of(1) @ client)

    assert asyncio.run(main()) == [(0, 1), (1, 1)]


def test_a_cluster_without_nodes() -> None:
    with (
        LocalCluster(n_workers=0, dashboard_address=None) as cluster,
        Client(cluster) as client,
        pytest.raises(sky.OperatorError, match=r"node_of\(1\) has no node.*wait_for_workers"),
    ):
        node_of(1) @ client


def test_a_broadcast_from_a_task(shared_client: Client) -> None:
    (first, second) = nested() @ shared_client
    assert first[0] == second[0] == [(0, 3), (1, 3)]


def test_who_has_failed_is_named(shared_client: Client) -> None:
    """With the others' results, and in a form that can be sent on."""
    with pytest.raises(
        sky.BroadcastError, match=r"fail_on\(1\) failed on 1 of 2 nodes: node 1 \(tcp:"
    ) as caught:
        fail_on(1) @ shared_client
    again = pickle.loads(pickle.dumps(caught.value))
    assert again.results == {0: 7} and str(again) == str(caught.value)
    assert [(node, repr(error)) for node, error in again.errors.items()] == [(1, "KeyError(1)")]


def test_a_node_that_leaves(shared_client: Client, tmp_path: Path) -> None:
    """It fails what was for it alone, sent before or afterwards; its nanny's next worker is another node."""
    waiting, release = sky.counter("waiting", client=shared_client), tmp_path / "release"
    with sky.Compute(cluster=shared_client.cluster) as compute:
        second = compute.nodes[1]
        with ThreadPoolExecutor() as threads:
            broadcast = threads.submit(lambda: wait_for(str(release)) @ shared_client)
            while waiting.value < 2:
                time.sleep(0.01)
            (pid,) = shared_client.run(os.getpid, workers=[second.address]).values()
            os.kill(pid, signal.SIGKILL)
            while second.address in shared_client.scheduler_info(n_workers=-1)["workers"]:
                time.sleep(0.01)
            release.touch()
            with pytest.raises(sky.BroadcastError) as caught:
                broadcast.result(timeout=200)
        assert list(caught.value.results) == [0]
        assert [type(error) for error in caught.value.errors.values()] == [sky.NodeLeft]
        with pytest.raises(sky.NodeLeft, match=second.address):
            node_of(1) >> second
        shared_client.wait_for_workers(2)


@sky.function
def announce() -> None:
    print("here")


def test_nodes_come_and_go(shared_client: Client, tmp_path: Path) -> None:
    """What their tasks print is heard from the first line."""
    with sky.Compute(cluster=shared_client.cluster) as compute:
        with pytest.raises(TimeoutError, match=r"2 nodes .* asked for 3"):
            compute.resize(3, timeout="1ms")
        lines: list[sky.OutputLine] = []
        with sky.output(shared_client, to=lines.append):
            waiting = [wait_for(str(tmp_path / "release")) > compute for _ in range(3)]
            announced = [announce() > compute for _ in range(20)]  # for the node that comes, at once
            compute.resize(3, timeout=200)
            (tmp_path / "release").touch()
            for future in waiting + announced:
                future.result(timeout=200)
            assert len(announce() @ compute) == len(compute.nodes) == 3
        assert len(lines) == len({line.key for line in lines}) == 20 + 3
        compute.resize(2)
        assert len(node_of(1) @ compute) == 2
        with pytest.raises(IndexError, match=r"there are 2 nodes now.*no nodes\[7\]"):
            compute.nodes[7]
        assert "another" not in list(reversed(compute.nodes)) and compute.nodes.count("another") == 0
    with (
        sky.Compute(cluster=shared_client.scheduler_info()["address"]) as compute,
        pytest.raises(sky.OperatorError, match="has the address of a cluster"),
    ):
        compute.resize(3)


def test_a_task_that_has_seceded_has_no_slot(shared_client: Client) -> None:
    def outside() -> tuple[int | None, int | None]:
        secede()
        info = sky.instance_info()
        assert info is not None
        return info.slot, info.index

    assert shared_client.submit(outside, pure=False).result(timeout=200) == (None, None)


def test_a_coroutine_asks_in_a_thread(shared_client: Client) -> None:
    """It has no slot; a worker's loop doesn't wait."""

    async def ask() -> tuple[str, int | None]:
        try:
            sky.instance_info()
        except sky.OperatorError as error:
            info = await asyncio.to_thread(sky.instance_info)
            assert info is not None
            return str(error), info.slot
        raise AssertionError("it waited")

    future: Any = shared_client.submit(ask, pure=False)
    message, slot = future.result(timeout=200)
    assert "asyncio.to_thread" in message and slot is None

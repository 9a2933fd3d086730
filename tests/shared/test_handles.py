"""Handles: what they are without a cluster, what many at once do, and how they travel."""

from __future__ import annotations

import asyncio
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from enum import Enum, StrEnum
from typing import Any, NamedTuple

import cloudpickle
import numpy as np
import pytest
from distributed import Client, get_worker

import skyward_dask as sky


def test_a_handle_is_its_kind_name_and_options() -> None:
    """It does no I/O, and can be pickled."""
    for handle in (
        sky.dict("x", shards=2),
        sky.set("x"),
        sky.counter("x"),
        sky.barrier("x", 2),
        sky.lock("x"),
    ):
        for dumps in (pickle.dumps, cloudpickle.dumps):
            assert repr(pickle.loads(dumps(handle))) == repr(handle)
    assert repr(sky.queue("x", 3)) == "sky.queue('x', maxsize=3)"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: sky.dict(""), "1 to 200"),
        (lambda: sky.dict("x" * 201), "1 to 200"),
        (lambda: sky.dict(b"x"), "1 to 200"),  # type: ignore[arg-type]
        (lambda: sky.counter("\ud800x"), "UTF-8"),
        (lambda: sky.dict("x", shards=0), "shards must be a whole number from 1 to 1,000"),
        (lambda: sky.set("x", shards=50_000), "shards must be a whole number from 1 to 1,000"),
        (lambda: sky.dict("x", consistency="weak"), "eventual"),  # type: ignore[arg-type]
        (lambda: sky.queue("x", -1), "maxsize must be a whole number from 1"),
        (lambda: sky.queue("x", 2**70), "maxsize must be a whole number from 1"),
        (lambda: sky.queue("x", True), "maxsize must be a whole number from 1"),
        (lambda: sky.queue("x", 2.5), "maxsize must be a whole number from 1"),  # type: ignore[arg-type]
        (lambda: sky.barrier("x", None), "n must be a whole number from 1"),  # type: ignore[arg-type]
        (lambda: sky.barrier("x", 2**70), "n must be a whole number from 1"),
        (lambda: sky.counter("x", client="tcp://1.2.3.4:5").value, "Client"),
    ],
)
def test_what_is_refused(make: Any, says: str) -> None:
    """What would break others, or means nothing, is an error that says what can be given."""
    with pytest.raises(sky.ConfigurationError, match=says):
        make()


def test_a_counter_is_not_a_number() -> None:
    """Nothing is computed with it, and it isn't assigned to: each says what to write."""
    counter: Any = sky.counter("x")
    for mistake in (lambda: counter + 1, lambda: 1 + counter, lambda: counter - 1, lambda: counter < 3):
        with pytest.raises(sky.OperatorError, match=r"compute with its `\.value`; .* `\.increment\(n\)`"):
            mistake()
    with pytest.raises(sky.OperatorError, match="increment"):
        counter.value = 1


def test_what_operations_refuse(shared_client: Client, name: str) -> None:
    """Before anybody is asked."""
    q, lock = sky.queue(name), sky.lock(name)
    for most in (0, -1, 2.5, True, 2**70, "3"):
        with pytest.raises(sky.ConfigurationError, match="most must be a whole number"):
            q.get_many(most)  # type: ignore[arg-type]
    for timeout in (-1, float("nan"), float("inf"), 10**400, "3", True):
        with pytest.raises(sky.ConfigurationError, match="timeout must be seconds"):
            q.get(timeout=timeout)  # type: ignore[arg-type]
    with pytest.raises(sky.ConfigurationError, match="timeout must be seconds"):
        lock.acquire(timeout=-2)
    with pytest.raises(sky.SerializationError, match="generator"):
        q.put(each for each in "abc")
    with pytest.raises(sky.ConfigurationError, match="function must be one"):
        sky.dict(name).get_or_compute("k", 5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^Queue\.put\(\) got an unexpected"):
        q.put(1, wait=3)  # type: ignore[call-arg]
    assert name not in sky.collections(shared_client)


def test_options_are_plain_in_the_end(shared_client: Client, name: str) -> None:
    """Numbers and text of other classes, which the scheduler may not know, are what they are equal to."""

    class Name(StrEnum):
        MINE = name

    shared = sky.dict(Name.MINE, shards=np.int64(2), consistency=np.str_("eventual"))  # type: ignore[arg-type]
    assert repr(shared) == f"sky.dict({name!r}, consistency='eventual', shards=2)"
    assert not len(shared) and sky.collections(shared_client)[name].options["shards"] == 2
    shared.destroy()


@pytest.mark.parametrize("kind", [sky.Barrier, sky.Counter, sky.Dict, sky.Lock, sky.Queue, sky.Set])
def test_each_operation_has_a_twin(kind: type) -> None:
    """Whatever it inherits."""
    operations = {each for each in dir(kind) if not each.startswith("_") and not each.endswith("_async")}
    special = {"__getitem__", "__setitem__", "__delitem__", "__contains__", "__len__"} & set(dir(kind))
    beside = {"kind", "name", "get_value", "get_fence", "get_parties", "get_n_waiting", "get_broken"}
    wanted = {f"{each.strip('_')}_async" for each in (operations - beside) | special}
    assert wanted <= set(dir(kind))


def test_hundreds_create_one(shared_client: Client, name: str) -> None:
    """Whoever comes first makes it; all others use it."""

    async def many() -> int:
        async with Client(shared_client.scheduler.address, asynchronous=True):
            handles = [sky.counter(name) for _ in range(300)]
            await asyncio.gather(*(handle.increment_async() for handle in handles))
            return await handles[0].value_async()

    with ThreadPoolExecutor(20) as threads:
        threads.map(lambda _: sky.counter(name).increment(), range(300))
    futures = shared_client.map(lambda _: sky.counter(name).increment(), range(50), pure=False)
    shared_client.gather(futures)
    assert asyncio.run(many()) == 650
    sky.counter(name).destroy()


def test_handles_are_arguments_results_and_values(shared_client: Client, name: str) -> None:
    """And may be stored in each other."""

    def use(d: Any, q: Any) -> Any:
        q.put(d)
        d["queue"] = q
        return d

    d = shared_client.submit(use, sky.dict(name), sky.queue(f"{name}-q"), pure=False).result()
    d["queue"].get()["a"] = 1
    assert sky.dict(name)["a"] == 1
    d.destroy()
    sky.queue(f"{name}-q").destroy()


def test_equal_keys_are_one_in_all_processes(shared_client: Client, name: str) -> None:
    """Classes that travel by value and sets in another order are pickled differently in each."""

    @dataclass(frozen=True)
    class Page:
        site: str
        tags: frozenset[str]

    class Colour(Enum):
        RED = 1

    class Point(NamedTuple):
        x: object
        y: object

    def keys() -> list[Any]:
        words = frozenset(["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta"])
        page = Page("x", words)
        return [page, Colour.RED, Point(Colour.RED, page), (date(2020, 1, 1), words), frozenset([page, "a"])]

    s, mine = sky.set(name, shards=3), keys()
    assert s.update(mine) == 5
    for _ in range(2):
        for there in (lambda: sky.set(name).update(keys()), lambda: sky.set(name).update(mine)):
            assert shared_client.submit(there, pure=False).result() == 0
    assert set(s) == set(keys())
    s.destroy()


def test_a_process_slot_needs_no_connection(shared_client: Client, executor: str, name: str) -> None:
    """Its worker asks in its name."""
    if executor == "thread":
        pytest.skip("a thread is its worker's")

    def task() -> tuple[int, bool]:
        return sky.counter(name).increment(), get_worker().present_client is None  # type: ignore[attr-defined]

    assert shared_client.submit(task, pure=False).result() == (1, True)
    sky.counter(name).destroy()


def test_blocking_forms_name_their_twins(shared_client: Client, name: str) -> None:
    """Where they would stop the loop that brings their answer."""

    async def task() -> str:
        try:
            sky.dict(name)["a"]
        except sky.OperatorError as error:
            return str(error)
        return ""

    assert "getitem_async" in shared_client.submit(task, pure=False).result()

    async def client() -> None:
        async with Client(shared_client.scheduler.address, asynchronous=True):
            for blocking in (sky.lock(name).acquire, lambda: list(sky.dict(name)), sky.dict(name).destroy):
                with pytest.raises(sky.OperatorError, match="async"):
                    blocking()
            with pytest.raises(sky.OperatorError, match="async with"), sky.lock(name):
                raise AssertionError

    asyncio.run(client())


def test_a_loop_of_somebody_elses_may_wait(shared_client: Client, name: str) -> None:
    """A notebook runs one, beside a synchronous client."""

    async def cell() -> int:
        return sky.counter(name).increment()

    assert asyncio.run(cell()) == 1
    sky.counter(name).destroy()


def test_a_coroutine_computes_for_all(shared_client: Client, name: str) -> None:
    """`get_or_compute_async` takes one; the blocking form says what to do."""

    async def made() -> int:
        await asyncio.sleep(0)
        return 5

    async def client() -> list[int]:
        async with Client(shared_client.scheduler.address, asynchronous=True):
            return await asyncio.gather(*(sky.dict(name).get_or_compute_async("k", made) for _ in range(9)))

    assert asyncio.run(client()) == [5] * 9
    with pytest.raises(sky.OperatorError, match="async"):
        sky.dict(name).get_or_compute("other", made)
    sky.dict(name).destroy()


def test_a_lock_is_a_context(shared_client: Client, name: str) -> None:
    """Of both kinds, and released by an error."""
    with pytest.raises(ZeroDivisionError), sky.lock(name):
        raise ZeroDivisionError

    async def task() -> Any:
        async with sky.lock(name) as lock:
            return await lock.holder_async()

    holder = shared_client.submit(task, key=f"holder-{name}").result()
    assert holder.task == f"holder-{name}"
    assert not sky.lock(name).locked()


def test_a_lock_is_first_come_first_served(shared_client: Client, name: str) -> None:
    """Clients, as whoever else."""

    async def client() -> list[int]:
        order: list[int] = []

        async def turn(number: int) -> None:
            async with sky.lock(name):
                order.append(number)

        async with Client(shared_client.scheduler.address, asynchronous=True):
            async with sky.lock(name):
                turns = []
                for number in range(50):
                    turns.append(asyncio.ensure_future(turn(number)))
                    while (await sky.collections(Client.current()))[name].waiting <= number:
                        pass
            await asyncio.gather(*turns)
        return order

    assert asyncio.run(client()) == list(range(50))
    sky.lock(name).destroy()


def test_set_operations_give_sets(shared_client: Client, name: str) -> None:
    """Ordinary ones."""
    s = sky.set(name)
    s |= [1, 2, 3]
    assert s & {2, 3, 4} == {2, 3} and s - {1} == {2, 3} and s | {4} == {1, 2, 3, 4} and s == {1, 2, 3}
    assert s >= {1} and not s.isdisjoint({1})
    s -= {1}
    assert set(s) == {2, 3}
    s.destroy()


def test_shards_spread_over_workers(client: Client, name: str) -> None:
    """Keys too."""
    d = sky.dict(name, shards=4)
    d.update((n, n) for n in range(1000))
    assert len(d) == 1000 and dict(d.items()) == {n: n for n in range(1000)}
    assert sorted(d.values()) == list(range(1000))
    found = sky.collections(client)[name]
    assert set(found.hosts) == set(client.nthreads()) and found.size == 1000
    assert sky.statistics(client).collections[name].hosts == found.hosts


def test_iteration_while_others_write(shared_client: Client, name: str) -> None:
    """Each key that stays comes once."""
    d = sky.dict(name)
    d.update((n, "x" * 1000) for n in range(5000))  # several pages
    seen = []
    for number, (key, _) in enumerate(d.items()):
        seen.append(key)
        if number == 10:
            for n in range(0, 5000, 7):
                del d[n]
            d.update((n, 0) for n in range(5000, 5100))
    stayed = [n for n in range(5000) if n % 7]
    assert len(seen) == len(set(seen)) and set(seen) >= {*stayed, *range(5000, 5100)}
    d.destroy()


def test_eventual_reads_see_own_writes(shared_client: Client, name: str) -> None:
    """And what others have written, after a while."""
    d = sky.dict(name, consistency="eventual")
    d["a"] = 1
    assert d["a"] == 1
    d["a"] = 2
    assert d["a"] == 2
    before = sky.collections(shared_client)[name].operations
    assert [d["a"] for _ in range(100)] == [2] * 100
    assert sky.collections(shared_client)[name].operations < before + 50
    shared_client.submit(lambda: sky.dict(name).update(a=3), pure=False).result()
    while d["a"] != 3:
        pass
    d.destroy()

"""What type checkers see of the public surface; checked by `mypy`, never run."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from typing import assert_type

from distributed import Client

import skyward_dask as sky


@sky.function
def double(n: int) -> int:
    return 2 * n


def calls(compute: sky.Compute) -> None:
    assert_type(double(4) >> compute, int)
    assert_type(double(4) > compute, Future[int])
    assert_type(double.local(4), int)
    assert_type(sky.gather(double(1), double(2)) >> compute, list[int])
    assert_type(sky.gather(double(1), stream=True) >> compute, Iterator[int])


async def twins() -> None:
    assert_type(await sky.counter("x").increment_async(n=5), int)
    assert_type(await sky.lock("x").acquire_async(timeout=1), bool)


def collections(client: Client) -> None:
    assert_type(sky.counter("x").increment(5), int)
    assert_type(sky.set("x", shards=2).add(1), bool)
    assert_type(len(sky.dict("x", consistency="eventual", client=client)), int)
    assert_type(sky.dict("x").compare_and_set("key", 1, 2), bool)
    assert_type(sky.queue("x", 10).put(1, timeout=2.5), None)
    assert_type(sky.queue("x").qsize(), int)
    assert_type(sky.barrier("x", 2).wait(timeout=1), int)
    assert_type(sky.lock("x").acquire(blocking=False), bool)
    assert_type(sky.lock("x").holder(), sky.Holder | None)
    with sky.lock("x") as lock:
        assert_type(lock, sky.Lock)

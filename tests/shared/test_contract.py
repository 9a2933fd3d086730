"""Every collection does in every place what its contract says, with both executors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from distributed import Client, get_client, worker_client

import skyward_dask as sky
from tests.shared.contract import CASES, run_awaiting, run_blocking


class Player:
    """An actor that uses collections."""

    def play(self, case: str, name: str) -> None:
        run_blocking(case, name)

    async def play_async(self, case: str, name: str) -> None:
        await run_awaiting(case, name)


def in_a_client(client: Client, case: str, name: str) -> None:
    run_blocking(case, name)


def in_an_asynchronous_client(client: Client, case: str, name: str) -> None:
    async def main() -> None:
        async with Client(client.scheduler.address, asynchronous=True):
            await run_awaiting(case, name)

    asyncio.run(main())


def in_a_task(client: Client, case: str, name: str) -> None:
    client.submit(run_blocking, case, name, pure=False).result()


def in_a_coroutine(client: Client, case: str, name: str) -> None:
    client.submit(run_awaiting, case, name, pure=False).result()


def in_a_nested_task(client: Client, case: str, name: str) -> None:
    def outer() -> None:
        with worker_client() as inner:
            inner.submit(run_blocking, case, name, pure=False).result()

    client.submit(outer, pure=False).result()


def in_an_actor(client: Client, case: str, name: str) -> None:
    client.submit(Player, actor=True, pure=False).result().play(case, name).result()


def in_an_actors_coroutine(client: Client, case: str, name: str) -> None:
    client.submit(Player, actor=True, pure=False).result().play_async(case, name).result()


def in_a_loop_of_a_tasks_own(client: Client, case: str, name: str) -> None:
    def task() -> None:
        asyncio.run(run_awaiting(case, name))

    client.submit(task, pure=False).result()


PLACES: list[Callable[[Client, str, str], None]] = [
    in_a_client,
    in_an_asynchronous_client,
    in_a_task,
    in_a_coroutine,
    in_a_nested_task,
    in_an_actor,
    in_an_actors_coroutine,
    in_a_loop_of_a_tasks_own,
]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("place", PLACES)
def test_it_does_what_it_should(
    shared_client: Client, place: Callable[[Client, str, str], None], case: str
) -> None:
    """In that place."""
    name = uuid4().hex
    place(shared_client, case, name)
    for kind in (sky.dict, sky.set, sky.counter, sky.queue, sky.lock):
        found = sky.collections(shared_client).get(name)
        if found is not None and found.kind == kind.__name__:
            kind(name).destroy()


def test_a_task_may_give_a_client(shared_client: Client) -> None:
    """Then the collection is that client's cluster's: here, the same."""
    name = uuid4().hex

    def task() -> list[Any]:
        own = get_client()
        sky.counter(name, client=own).increment()
        return [sky.counter(name).value, sky.counter(name, client=own).value]

    assert shared_client.submit(task, pure=False).result() == [1, 1]
    sky.counter(name).destroy()

"""A waiter that is cancelled at the moment at which its item comes."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import skyward_dask as sky


async def put_and_cancel(name: str, times: int) -> list[int]:
    """Put so many items, each while a `get` waits that is cancelled; returns those that came all the same."""
    q, got = sky.queue(name), []
    for number in range(times):
        getting = asyncio.ensure_future(q.get_async())
        putting = asyncio.ensure_future(q.put_async(number))
        if number % 3:
            await putting
        getting.cancel()
        with suppress(asyncio.CancelledError):
            got.append(await getting)
        await putting
    return got

"""Many streams at once, whose readers and producers close, cancel, die and slow down at random."""

from __future__ import annotations

import gc
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import psutil
import pytest
from distributed import Client, Worker, get_worker

import skyward_dask as sky
from tests.sizes import size, sized
from tests.streams.places import PATIENCE, Place
from tests.streams.test_streams import assert_idle

#: How many streams there are, and how many are read at once.
STREAMS, READERS = size(40, 500), 8
ITEMS = 600


def work(seed: int) -> Iterator[Any]:
    """Small items and large ones, quick steps and slow ones; some die or raise."""
    chance = random.Random(seed)
    fate = chance.choice(["ends"] * 6 + ["raises", "dies"])
    last = chance.randrange(ITEMS)
    yield os.getpid()
    for n in range(1, ITEMS):
        if n == last and fate == "raises":
            raise LookupError(seed)
        if n == last and fate == "dies" and not isinstance(get_worker(), Worker):  # it has its own process
            os.kill(os.getpid(), signal.SIGKILL)
        if chance.random() < 0.002:
            time.sleep(0.05)
        yield (n, bytes(400_000)) if chance.random() < 0.01 else (n, b"")


def read(place: Place, seed: int) -> str:
    """What has become of one stream; every way of reading it ends."""
    chance = random.Random(-seed)
    future = place.submit(work, seed)
    stream = future.result(PATIENCE)
    stop = chance.choice([ITEMS] * 4 + [0, 1, chance.randrange(ITEMS)])
    how = chance.choice(["close", "cancel", "drop"])
    numbers = []
    try:
        for item in stream:
            numbers.append(item[0] if isinstance(item, tuple) else 0)
            if len(numbers) > stop:
                return end(stream, future, how)
            if chance.random() < 0.002:
                time.sleep(0.1)
    except LookupError:
        return "raised" if numbers == list(range(len(numbers))) else "wrong"
    except sky.StreamBroken:
        return "broken" if numbers == list(range(len(numbers))) else "wrong"
    return "complete" if numbers == list(range(ITEMS)) else "wrong"


def end(stream: sky.Stream[Any], future: Any, how: str) -> str:
    if how == "close":
        stream.close()
    elif how == "cancel":
        future.cancel()
    return how


def holdings(client: Client) -> dict[str, tuple[int, int, int]]:
    """Each worker's descriptors, threads and descendants."""

    def here() -> tuple[int, int, int]:
        process = psutil.Process()
        return process.num_fds(), process.num_threads(), len(process.children(recursive=True))

    found: dict[str, tuple[int, int, int]] = client.run(here)
    return found


@pytest.mark.crash
@sized
def test_many_streams_in_every_state(place: Place) -> None:
    """Each reader gets all items or an error, in order; no slot is lost, and nothing grows."""
    client = place.client
    list(place.open(work, 1_000_000))
    before = holdings(client)
    with ThreadPoolExecutor(READERS) as threads:
        outcomes = Counter(threads.map(partial(read, place), range(STREAMS)))
    assert outcomes["wrong"] == 0 and outcomes["complete"] > 0, outcomes
    assert outcomes.total() == STREAMS
    gc.collect()
    assert_idle(client)
    after = holdings(client)
    for address, (descriptors, threads_, processes) in after.items():
        assert descriptors <= before[address][0] + 60
        assert threads_ <= before[address][1] + 12
        assert processes <= before[address][2] + 8
    assert list(place.open(work, 1_000_000))[-1][0] == ITEMS - 1

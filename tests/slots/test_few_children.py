"""Short runs stay in a few children; whatever isn't short gets every slot there is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import wait
from pathlib import Path

import pytest
from distributed.utils_test import gen_test

from skyward_dask.slots.executor import SlotPool
from skyward_dask.slots.few_children import FewChildren
from skyward_dask.slots.runs import Request, Run
from tests.slots.waiting import children, meet, until_there

SLOTS = 16
SHORT, LONG = 1e-4, 1.0


@pytest.fixture(scope="module")
def pool() -> Iterator[SlotPool]:
    with SlotPool(SLOTS) as pool:
        children(pool)
        yield pool


def test_calls_that_wait_for_each_other_all_run(pool: SlotPool, tmp_path: Path) -> None:
    """However short the calls before them were: none of them ends before all have begun."""
    for round_ in range(3):
        wait([pool.submit(abs, n) for n in range(200)])
        directory = tmp_path / str(round_)
        directory.mkdir()
        calls = [pool.submit(meet, str(directory), SLOTS) for _ in range(SLOTS)]
        assert len({call.result() for call in calls}) == SLOTS


def test_short_calls_run_beside_long_ones(pool: SlotPool, tmp_path: Path) -> None:
    """Calls that wait for a long time take up slots, and are no reason to keep short ones back."""
    release = tmp_path / "release"
    wait([pool.submit(abs, n) for n in range(200)])
    long = [pool.submit(until_there, str(release)) for _ in range(SLOTS - 1)]
    assert [pool.submit(abs, -n).result() for n in range(50)] == list(range(50))
    assert not any(call.done() for call in long)
    release.touch()
    wait(long)


class Watched(FewChildren):
    """Says when runs that were kept back may begin."""

    def __init__(self) -> None:
        self.changes: asyncio.Queue[None] = asyncio.Queue()
        super().__init__(asyncio.get_running_loop(), lambda: self.changes.put_nowait(None))

    def begin_all(self) -> list[Run]:
        """Begin runs as long as they may begin, and no more than there are slots."""
        begun: list[Run] = []
        while len(begun) < SLOTS and self.may_begin:
            begun.append(Run(Request(str(len(begun)), abs)))
            self.begun(begun[-1])
        return begun


@gen_test()
async def test_runs_are_kept_back_while_they_are_short() -> None:
    few = Watched()
    first, *others = few.begin_all()
    assert len(others) == SLOTS - 1
    for run in (first, *others):
        few.ended(run, SHORT)
    few_runs = few.begin_all()
    assert 1 < len(few_runs) < SLOTS
    few.ended(few_runs[0], SHORT)
    assert few.may_begin
    few.lost(few_runs[1])
    assert len(few.begin_all()) == 2


@gen_test()
async def test_they_are_kept_back_for_a_moment() -> None:
    """If none of the others has ended then, they aren't short."""
    few = Watched()
    for run in few.begin_all():
        few.ended(run, SHORT)
    assert len(few.begin_all()) < SLOTS
    await few.changes.get()
    assert len(few.begin_all()) == SLOTS


@gen_test()
async def test_runs_that_take_longer_are_not_among_the_few() -> None:
    """They would leave one child for all the short ones that come meanwhile."""
    few = Watched()
    short, also_short, *long = few.begin_all()
    few.ended(short, SHORT)
    assert not few.may_begin
    few.ended(also_short, SHORT)
    while not few.may_begin:
        few.ended(Run(Request("another", abs)), SHORT)
        await few.changes.get()
    assert 1 < len(few.begin_all()) < len(long)


@gen_test()
async def test_long_runs_are_not_kept_back() -> None:
    few = Watched()
    for run in few.begin_all():
        few.ended(run, LONG)
    assert len(few.begin_all()) == SLOTS

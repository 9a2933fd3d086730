"""The page that a worker, a child and its template share."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from multiprocessing.synchronize import Event

import pytest

from skyward_dask.slots.packing import pack
from skyward_dask.slots.status_page import Limits, Page


@pytest.fixture
def page() -> Iterator[Page]:
    made = Page()
    yield made
    made.close()


def write(fd: int, over: Event) -> None:
    page = Page(fd)
    while not over.is_set():
        for number in range(1001, 2000):
            page.set_granted(number, number, False)
            page.called = float(number)


def test_nobody_reads_half_of_a_number(page: Page) -> None:
    """Nor a zero, while another process writes it."""
    context = multiprocessing.get_context("fork")
    over = context.Event()
    page.set_granted(1000, 1000, False)
    page.called = 1000.0
    writer = context.Process(target=write, args=(page.fd, over))
    writer.start()
    try:
        while page.called == 1000:  # or the test's time is over
            pass
        seen = [(*page.granted(), page.called) for _ in range(100_000)]
    finally:
        over.set()
        writer.join()
    assert min(min(items, size, called) for items, size, _, called in seen) >= 1000


def test_limits_and_what_was_found(page: Page) -> None:
    """Limits are those of the run that has begun; a verdict is that of the run that was condemned."""
    page.set_limits(Limits(7, 1.5, 1 << 40))
    assert page.limits() is None
    page.begun = 7
    assert page.limits() == Limits(7, 1.5, 1 << 40)
    assert page.overrun(7) is None
    page.condemn(123)
    found = page.overrun(7)
    assert found is not None and found.peak == 123 and page.overrun(8) is None
    page.ended = 7
    assert page.limits() is None


def test_items_wait_in_the_page(page: Page) -> None:
    """In order, until they were sent or there is no room; then they are gone, and are counted."""
    page.begin_stream()
    blocks = [pack([bytes([n]) * 30_000]) for n in range(3)]
    assert [page.add_item(block) > 0 for block in blocks] == [True, True, False]
    assert page.waiting_items() == blocks[0] + blocks[1]
    page.have_sent(2)
    assert page.waiting_items() == b"" and page.items_sent == 2

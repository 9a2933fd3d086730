"""Small items in one block of bytes, and what of them the page of a dead child tells."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from skyward_dask.slots.packing import pack, unpack
from skyward_dask.slots.status_page import Page


@given(st.lists(st.lists(st.binary(max_size=20), min_size=1, max_size=5), max_size=10))
def test_what_is_packed_is_unpacked(items: list[list[bytes]]) -> None:
    """Each item with its parts."""
    assert unpack(b"".join(map(pack, items))) == items


def test_items_wait_in_the_page() -> None:
    """In order, until they were sent or there is no room; then they are gone, and are counted."""
    page = Page()
    page.begin_stream()
    blocks = [pack([bytes([n]) * 30_000]) for n in range(3)]
    assert [page.add_item(block) > 0 for block in blocks] == [True, True, False]
    assert page.waiting_items() == blocks[0] + blocks[1]
    page.have_sent(2)
    assert page.waiting_items() == b"" and page.items_sent == 2
    page.close()

"""Small items in one block of bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from skyward_dask.slots.packing import pack, unpack


@given(st.lists(st.lists(st.binary(max_size=20), min_size=1, max_size=5), max_size=10))
def test_what_is_packed_is_unpacked(items: list[list[bytes]]) -> None:
    """Each item with its parts."""
    assert unpack(b"".join(map(pack, items))) == items

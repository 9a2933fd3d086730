"""Free room: nothing is lost, nothing is given out twice, neighbours merge."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from skyward_dask.slots.memory.extents import Extents

STEPS = st.lists(st.tuples(st.booleans(), st.integers(1, 12)), max_size=60)


@given(STEPS)
def test_what_is_taken_is_free_no_longer(steps: list[tuple[bool, int]]) -> None:
    """Taken extents never overlap, and when all are back there is one extent for each segment."""
    free, taken, ends = Extents(), {}, 0
    for segment in (0, 1):
        free.add(segment, 0, 40)
    for takes, number in steps:
        if takes and (place := free.take(number)) is not None:
            segment, start = place
            bytes_of = {(segment, start + n) for n in range(number)}
            assert not any(bytes_of & other for other in taken.values())
            taken[ends := ends + 1] = bytes_of
        elif taken:
            gone = sorted(taken.pop(min(taken, key=lambda key: (key * number) % 7)))
            free.add(*gone[0], len(gone))
        assert free.total == 80 - sum(map(len, taken.values()))
    for left in map(sorted, taken.values()):
        free.add(*left[0], len(left))
    assert sorted(free.clear()) == [(0, 0, 40), (1, 0, 40)]
    assert (len(free), free.total) == (0, 0)


def test_the_best_fit_is_taken() -> None:
    """Large room is kept for who needs it."""
    free = Extents()
    free.add(0, 0, 10)
    free.add(0, 20, 4)
    assert free.take(3) == (0, 20)
    assert free.take(10) == (0, 0)
    assert free.take(2) is None

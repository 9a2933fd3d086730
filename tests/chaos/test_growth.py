"""What a chaos run takes for growth."""

from __future__ import annotations

import pytest

from tests.chaos.growth import growth
from tests.chaos.quiet import Sample

MIB = 2**20


@pytest.mark.parametrize(("memory", "descriptors", "grown"), [(0, 0, 0), (5 * MIB, 0, 1), (0, 2, 1)])
def test_a_worker_that_grows_each_round(memory: int, descriptors: int, grown: int) -> None:
    """It holds more and more, of the one or of the other."""
    rounds = [
        [Sample(7, 100 * MIB + n * memory, 40 + n * descriptors, 6), Sample(8, 100 * MIB, 40 + n % 2 * 14, 6)]
        for n in range(20)
    ]
    assert len(growth(rounds)) == grown


def test_a_worker_that_warms_up() -> None:
    """What it grows by in the first rounds is no leak; one that a nanny has replaced starts anew."""
    rounds = [
        [Sample(7, 50 * MIB * min(n, 3), 40, 6), Sample(10 + n, n * 50 * MIB, 40, 6)] for n in range(20)
    ]
    assert growth(rounds) == []

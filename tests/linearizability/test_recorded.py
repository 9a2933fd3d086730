"""What callers see of collections, while some of them are killed and cancelled, is linearizable."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.linearizability.rounds import cluster, rounds

pytestmark = [pytest.mark.slow, pytest.mark.crash]


def test_histories_are_linearizable(tmp_path: Path) -> None:
    """No stale read, no item lost or twice, no two holders, and no lock held by the dead."""
    kills = cancels = 0
    with cluster() as client:
        for played, complaints in rounds(client, tmp_path, seed=1, seconds=6):
            assert complaints == []
            kills, cancels = kills + played.kills, cancels + played.cancels
    assert kills and cancels

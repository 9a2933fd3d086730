"""What callers see of collections, while some of them are killed and cancelled, is linearizable."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.linearizability import losses
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


def test_histories_are_linearizable_though_workers_are_lost(tmp_path: Path) -> None:
    """No acknowledged operation is lost or counts twice, nobody reads what could be, and copies are equal."""
    kills = 0
    for played, complaints in losses.rounds(tmp_path, seed=1, seconds=6):
        assert complaints == []
        kills += played.kills
    assert kills

"""A short dose of chaos; ``python -m tests.chaos`` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.run import Settings, run

pytestmark = [pytest.mark.slow, pytest.mark.crash]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("nannies", [True, False])
def test_each_task_gets_its_due(nannies: bool, tmp_path: Path) -> None:
    """Its value, or the error for what was done to it; then the cluster is as it was, and closes."""
    assert run(Settings(seconds=12, seed=3, nannies=nannies, a_round=6), tmp_path) == []

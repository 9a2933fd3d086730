"""The examples print what they end with, with both executors where they take one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples" / "collections"
EXAMPLES = sorted(FOLDER.glob("*.py"))
#: Lines of a terminal that a screen shows.
_SCREEN = 50


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_it_fits_a_screen(example: Path) -> None:
    """And there are the five of them."""
    assert len(example.read_text().splitlines()) <= _SCREEN
    assert len(EXAMPLES) == 5


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["thread", "process"])
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_it_prints_what_it_ends_with(example: Path, executor: str) -> None:
    """Whatever the slots are."""
    source, _, printed = example.read_text().partition("\n# Prints:\n")
    assert source.rstrip().endswith("main(parser.parse_args().executor)")
    done = subprocess.run(
        [sys.executable, str(example), "--executor", executor],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [line.removeprefix("# ") for line in printed.splitlines()]

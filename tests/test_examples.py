"""The examples print what they end with, with both executors where they take one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))
EXAMPLES = sorted((ROOT / "examples" / "collections").glob("*.py"))
#: Lines of a terminal that a screen shows.
_SCREEN = 50


@pytest.mark.parametrize("example", SCRIPTS + EXAMPLES, ids=lambda path: path.stem)
def test_it_fits_a_screen(example: Path) -> None:
    """And there are the five that use collections."""
    assert len(example.read_text().splitlines()) <= _SCREEN
    assert len(EXAMPLES) == 5


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["thread", "process"])
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_it_prints_what_it_ends_with(example: Path, executor: str) -> None:
    """Whatever the slots are."""
    assert example.read_text().partition("\n# Prints:\n")[0].endswith("main(parser.parse_args().executor)\n")
    prints_what_it_ends_with(example, "--executor", executor)


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_prints_what_it_ends_with(script: Path) -> None:
    """Those that need no collection."""
    prints_what_it_ends_with(script)


def prints_what_it_ends_with(example: Path, *arguments: str) -> None:
    printed = example.read_text().partition("\n# Prints:\n")[2]
    done = subprocess.run(
        [sys.executable, str(example), *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [line.removeprefix("# ") for line in printed.splitlines()]

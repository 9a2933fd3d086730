"""The examples print what they end with, with both executors where they take one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

#: The libraries that an example may need, and whoever runs the tests may lack.
OPTIONAL = ("torch",)
ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))
EXAMPLES = sorted((ROOT / "examples" / "collections").glob("*.py"))
Run = subprocess.CompletedProcess[str]
#: Lines of a terminal that a screen shows.
_SCREEN = 50


def lacks(example: Path) -> list[str]:
    """The libraries that an example needs, and that aren't installed."""
    needed = re.findall(r"^(?:import|from) (\w+)", example.read_text(), re.MULTILINE)
    return [name for name in OPTIONAL if name in needed and find_spec(name) is None]


@pytest.mark.parametrize("example", SCRIPTS + EXAMPLES, ids=lambda path: path.stem)
def test_it_fits_a_screen(example: Path) -> None:
    """And there are the six that use collections."""
    assert len(example.read_text().splitlines()) <= _SCREEN
    assert len(EXAMPLES) == 6


@pytest.fixture(scope="module")
def shared_runs(request: pytest.FixtureRequest) -> Iterator[Callable[..., Run]]:
    """What the examples print: those that are asked for run three at a time, as each mostly waits."""
    asked = [item.callspec.params for item in request.session.items if "shared_runs" in names_of(item)]
    with ThreadPoolExecutor(3) as threads:
        runs = {arguments: threads.submit(run, *arguments) for arguments in map(arguments_of, asked)}
        yield lambda *arguments: runs[arguments].result()


def names_of(item: Any) -> Sequence[str]:
    return item.fixturenames if item.fspath == __file__ and not lacks(item.callspec.params["example"]) else ()


def arguments_of(params: dict[str, Any]) -> tuple[str, ...]:
    executor = ("--executor", params["executor"]) if "executor" in params else ()
    return str(params["example"]), *executor


def run(*arguments: str) -> Run:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["thread", "process"])
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_it_prints_what_it_ends_with(shared_runs: Callable[..., Run], example: Path, executor: str) -> None:
    """Whatever the slots are."""
    assert example.read_text().partition("\n# Prints:\n")[0].endswith("main(parser.parse_args().executor)\n")
    prints_what_it_ends_with(example, shared_runs(str(example), "--executor", executor))


@pytest.mark.slow
@pytest.mark.parametrize("example", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_prints_what_it_ends_with(shared_runs: Callable[..., Run], example: Path) -> None:
    """Those that are no guides to collections; an optional library may be missing."""
    if missing := lacks(example):
        pytest.skip(f"needs {', '.join(missing)}")
    prints_what_it_ends_with(example, shared_runs(str(example)))


def prints_what_it_ends_with(example: Path, done: Run) -> None:
    printed = example.read_text().partition("\n# Prints:\n")[2]
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [line.removeprefix("# ") for line in printed.splitlines()]

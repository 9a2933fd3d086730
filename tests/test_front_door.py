"""README, docs and examples are what they say."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import skyward_dask as sky

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "examples" / "guides" / "14_worker_executors.py"


def snippet(first: int, last: int) -> str:
    return "\n".join(GUIDE.read_text().splitlines()[first - 1 : last])


def test_the_guides_lines_are_where_the_docs_show_them() -> None:
    """Each snippet holds one thing, whole."""
    functions = {n.name: n for n in ast.parse(GUIDE.read_text()).body if isinstance(n, ast.FunctionDef)}
    task = functions["cpu_burn"]
    assert task.decorator_list[0].lineno >= 10 and (task.end_lineno or 99) <= 21
    assert 'executor="thread"' in snippet(28, 40) and 'executor="process"' not in snippet(28, 40)
    assert 'executor="process"' in snippet(42, 53)
    page = (ROOT / "docs" / "worker_executors.md").read_text()
    assert all(f":lines: {lines}" in page for lines in ("10-21", "28-40", "42-53"))


@pytest.mark.slow
def test_the_guide_runs() -> None:
    """And ends with what it measured."""
    command = [sys.executable, str(GUIDE), "--slots", "2", "--seconds", "0.2", "--rounds", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
    thread, process, ratio = done.stdout.splitlines()
    assert thread.startswith("thread:") and process.startswith("process:")
    assert "iterations" in process and "% CPU utilisation" in process
    assert ratio.startswith("process / thread: × ") and "is expected on " in ratio


def test_the_readme_has_its_two_commands() -> None:
    """The continuous integration runs the second one as it stands."""
    lines = (ROOT / "README.md").read_text().splitlines()
    commands = [line for line in lines if line.startswith("python3 -m venv")]
    assert len(commands) == 2
    assert "14_worker_executors.py" in commands[0] and "pytest" in commands[1]


def test_the_public_names_are_typed_and_there() -> None:
    """The stub and the lazy table name the same things, and each can be had."""
    stub = ast.parse((ROOT / "skyward_dask" / "__init__.pyi").read_text())
    typed = {alias.asname for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    # `import *` must not take the builtins' names away
    assert typed - {"dask_setup", "dict", "set"} == set(sky.__all__)
    assert all(getattr(sky, name) is not None for name in sky.__all__)


def test_importing_the_package_imports_no_dask() -> None:
    """A child imports it on its way."""
    program = "import sys, skyward_dask; print({'dask', 'distributed', 'click'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"

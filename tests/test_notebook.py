"""The notebook in examples/ runs in a real kernel, and shows what it has stored."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[1] / "examples" / "notebook.ipynb"
EXECUTE = """
import sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
nbclient.NotebookClient(notebook, timeout=200, startup_timeout=200, kernel_name="python3").execute()
nbformat.write(notebook, sys.argv[2])
"""


@pytest.mark.slow
def test_the_notebook_runs_in_a_real_kernel(tmp_path: Path) -> None:
    """A kernel runs an event loop in its main thread, which isn't the client's."""
    executed = tmp_path / "executed.ipynb"
    command = [sys.executable, "-c", EXECUTE, str(NOTEBOOK), str(executed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert shown(executed) == shown(NOTEBOOK)


def shown(notebook: Path) -> list[str]:
    """What the code cells show, but for those that are tagged as varying from run to run."""
    cells = [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]
    return [
        "".join(map(text, cell["outputs"]))
        for cell in cells
        if "varies" not in cell["metadata"].get("tags", ())
    ]


def text(output: dict[str, Any]) -> str:
    lines = output["text"] if output["output_type"] == "stream" else output["data"]["text/plain"]
    return "".join(lines)

"""The README and the docs are executed: their Python runs, and prints what its comments say."""

from __future__ import annotations

import builtins
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import dask.config
import jsonschema
import pytest
import yaml
from click import Command
from distributed import Client
from distributed.cli import dask_scheduler

import skyward_dask as sky
from skyward_dask.config import Worker
from skyward_dask.extension.command import main as dask_worker

ROOT = Path(__file__).parents[1]
HOME = "https://github.com/skyward-dask/skyward_dask"
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def names(paths: list[Path]) -> Any:
    return pytest.mark.parametrize("page", paths, ids=lambda path: path.stem)


@pytest.fixture(autouse=True)
def what_it_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare each line that is printed with the comment behind the `print`."""
    plain = builtins.print

    def compare(*values: object, **options: Any) -> None:
        frame = sys._getframe(1)
        if source := frame.f_globals.get("__source__"):
            line = source[frame.f_lineno - 1]
            if "  # " in line:
                assert " ".join(map(str, values)) == line.rpartition("  # ")[2], line
        plain(*values, **options)

    monkeypatch.setattr(builtins, "print", compare)


@names([page for page in PAGES if blocks(page, "python") and page.stem not in ("README", "index")])
def test_the_python_of_a_page_runs(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From its first block to its last, in one namespace, like a notebook's cells.

    The tutorial's local cluster has a worker process of its own; other pages' worker is in this one, which is
    quicker.
    """
    if page.stem != "first_steps":
        monkeypatch.setattr("dask.distributed.Client", partial(Client, processes=False, protocol="tcp"))
    namespace: dict[str, Any] = {"__name__": "__main__"}
    try:
        for block in blocks(page, "python"):
            namespace["__source__"] = block.splitlines()
            exec(compile(block, str(page), "exec"), namespace)
    finally:
        for value in list(namespace.values()):
            if isinstance(value, Client):
                value.close()


def test_the_readme_can_be_pasted_and_run(tmp_path: Path) -> None:
    """As a script, without anything around it."""
    (block, *_) = blocks(README, "python")
    (tmp_path / "pasted.py").write_text(block)
    command = [sys.executable, str(tmp_path / "pasted.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
    assert done.stdout.strip() == block.rpartition("  # ")[2].strip()


def test_the_index_and_the_readme_show_the_same_lines() -> None:
    """The first thing that anybody sees."""
    assert blocks(README, "python")[0] == blocks(ROOT / "docs" / "index.md", "python")[0]


def test_every_public_name_is_in_the_reference_and_every_error_in_troubleshooting() -> None:
    """By the name under which users meet it."""
    reference = (ROOT / "docs" / "reference.md").read_text()
    assert {"dict", "set", *sky.__all__} <= set(
        re.findall(r"^\.\. auto[a-z]+:: (\w+)$", reference, re.MULTILINE)
    )
    errors = {name for name in sky.__all__ if is_error(getattr(sky, name))} - {"SkywardError"}
    told = (ROOT / "docs" / "troubleshooting.md").read_text()
    assert errors <= set(re.findall(r"^### `(\w+)`$", told, re.MULTILINE))


def is_error(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, sky.SkywardError)


@names([page for page in PAGES if "github.com/skyward-dask" in page.read_text()])
def test_links_to_the_repository_lead_somewhere(page: Path) -> None:
    """They are absolute: the README is the package's description, too."""
    text = page.read_text()
    for path in re.findall(rf"{HOME}/(?:blob|tree|raw)/main/([^)#\s]+)", text):
        assert (ROOT / path).exists(), path
    if page == README:
        assert not re.findall(r"\]\((?!https://)", text)


@names([page for page in PAGES if blocks(page, "console")])
def test_options_on_command_lines_exist(page: Path) -> None:
    """Those of workers and of schedulers."""
    known = {"worker": dask_worker, "scheduler": dask_scheduler.main}
    for line in "\n".join(blocks(page, "console")).splitlines():
        if found := re.search(r"\bdask[ -](worker|scheduler)\b(.*)", line):
            assert set(re.findall(r"--[a-z-]+", found[2])) <= options(known[found[1]]), line


def options(command: Command) -> set[str]:
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}


@names([page for page in PAGES if blocks(page, "yaml")])
def test_configuration_is_valid(page: Path) -> None:
    """By the schema, and by the one who reads it."""
    schema = yaml.safe_load((Path(sky.__file__).parent / "skyward-schema.yaml").read_text())
    for block in blocks(page, "yaml"):
        configured = yaml.safe_load(block)
        jsonschema.validate(configured, schema)
        with dask.config.set(configured):
            Worker.from_config()

"""`Worker` and its configuration: what can't be meant is refused with the valid values."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import dask.config
import jsonschema
import pytest
import yaml

import skyward_dask as sky

PACKAGE = Path(sky.__file__).parent


def test_defaults() -> None:
    """Threads, as many as the dask worker has."""
    worker = sky.Worker()
    assert (worker.concurrency, worker.executor, worker.kind) == (None, "auto", "thread")
    assert repr(worker) == "Worker()"


def test_equal_workers_are_one_key() -> None:
    """Hashable over the sorted items of `env`, picklable, comparable."""
    one = sky.Worker(executor="process", env={"A": "1", "B": "2"}, pre_import=["json"])
    two = sky.Worker(executor="process", env={"B": "2", "A": "1"}, pre_import=("json",))
    assert one == two and hash(one) == hash(two) and pickle.loads(pickle.dumps(one)) == one
    assert repr(sky.Worker(concurrency=4, executor="process")) == "Worker(concurrency=4, executor='process')"


def test_it_is_frozen() -> None:
    """A node's configuration is a value; so is what it was made from."""
    env = {"A": "1"}
    worker = sky.Worker(executor="process", env=env)
    env["A"] = "2"
    assert worker.env["A"] == "1"
    with pytest.raises(AttributeError):
        worker.concurrency = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"executor": "banana"}, "'auto', 'thread', 'process'"),
        ({"executor": ["process"]}, "'auto', 'thread', 'process'"),
        ({"concurrency": 0}, "whole number from 1"),
        ({"concurrency": -1}, "whole number from 1"),
        ({"concurrency": True}, "whole number from 1"),
        ({"concurrency": "4"}, "whole number from 1"),
        ({"concurrency": 2.0}, "whole number from 1"),
        ({"executor": "process", "pre_import": "numpy"}, "names of modules"),
        ({"executor": "process", "pre_import": [1]}, "names of modules"),
        ({"executor": "process", "env": {"A": 1}}, "mapping of str to str"),
        ({"executor": "process", "env": "A=1"}, "mapping of str to str"),
        ({"executor": "process", "env": {"A=B": "1"}}, "an '=' in one"),
        ({"executor": "process", "env": {"": "1"}}, "empty name"),
        ({"executor": "process", "env": {"A": "\0"}}, "null byte"),
        ({"executor": "process", "initializer": "no"}, "function without arguments"),
        ({"executor": "process", "timeout": 0}, "seconds above 0"),
        ({"executor": "process", "timeout": "soon"}, "seconds above 0"),
        ({"executor": "process", "timeout": True}, "seconds above 0"),
        ({"executor": "process", "timeout": float("nan")}, "seconds above 0"),
        ({"executor": "process", "timeout": ""}, "seconds above 0"),
        ({"executor": "process", "timeout": 10**400}, "seconds above 0"),
        ({"executor": "process", "memory_limit": " "}, "bytes from 1"),
        ({"executor": "process", "memory_limit": 0}, "bytes from 1"),
        ({"executor": "process", "memory_limit": "much"}, "bytes from 1"),
        ({"executor": "process", "max_tasks_per_child": 0}, "whole number from 1"),
        ({"timeout": 1}, "executor='process'"),
        ({"memory_limit": "1GiB"}, "executor='process'"),
        ({"max_tasks_per_child": 1}, "executor='process'"),
        ({"pre_import": ("json",)}, "executor='process'"),
        ({"executor": "thread", "env": {"A": "1"}}, "executor='process'"),
        ({"executor": "auto", "initializer": print}, "executor='process'"),
    ],
)
def test_what_cannot_be_meant_is_refused(fields: dict[str, Any], names: str) -> None:
    """Each error lists what is valid."""
    with pytest.raises(sky.ConfigurationError, match=names):
        sky.Worker(**fields)


def test_configuration() -> None:
    """The namespace `skyward.worker`; what is given beats it."""
    settings = {
        "skyward.worker.executor": "process",
        "skyward.worker.concurrency": 3,
        "skyward.worker.pre-import": "json, wave",
        "skyward.worker.initializer": "gc:collect",
        "skyward.worker.env": {"A": "1"},
        "skyward.worker.timeout": "2 minutes",
        "skyward.worker.memory-limit": "1 kiB",
        "skyward.worker.max-tasks-per-child": 7,
        "skyward.worker.grace": "1s",
    }
    with dask.config.set(settings):
        worker = sky.Worker.from_config(concurrency=5)
    import gc

    assert worker == sky.Worker(5, "process", 120, 1024, 7, gc.collect, ("json", "wave"), {"A": "1"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"skyward.worker.executer": "process"}, "no setting 'executer'.*executor, concurrency, timeout"),
        ({"skyward.worker.concurrency": "many"}, "whole number from 1"),
        ({"skyward.worker": 3}, "mapping"),
        ({"skyward.executor": "process"}, "skyward has no setting 'executor'; it has worker"),
        ({"skyward.shared-memory.size": 3}, "shared-memory has no setting 'size'; it has threshold"),
        ({"skyward.worker.executor": "process", "skyward.worker.initializer": "no.where"}, "module:function"),
    ],
)
def test_bad_configuration_is_refused(settings: dict[str, Any], message: str) -> None:
    """With the setting's name and what it can be."""
    with dask.config.set(settings), pytest.raises(sky.ConfigurationError, match=message):
        sky.Worker.from_config()


def test_a_plugin_needs_a_worker() -> None:
    """Not the name of an executor."""
    with pytest.raises(sky.ConfigurationError, match="such as Worker"):
        sky.SkywardPlugin("process")  # type: ignore[arg-type]


@pytest.mark.parametrize("section", ["skyward", "skyward.worker", "skyward.worker.env"])
def test_a_plain_value_for_a_section_is_refused(section: str) -> None:
    """Dask's defaults would take its place, and nobody would hear of it."""
    program = "import skyward_dask as sky; sky.SkywardPlugin()"
    env = os.environ | {f"DASK_{section.replace('.', '__').upper()}": "process"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False
    )
    name = section.removeprefix("skyward.worker.")
    assert done.returncode == 1 and f"{name}='process' can't be meant" in done.stderr


def test_the_shipped_defaults_fit_their_schema() -> None:
    """And give a plain Worker."""
    defaults = yaml.safe_load((PACKAGE / "skyward.yaml").read_text())
    jsonschema.validate(defaults, yaml.safe_load((PACKAGE / "skyward-schema.yaml").read_text()))
    with dask.config.set(defaults):
        assert sky.Worker.from_config() == sky.Worker()


def test_options_refuse_unknown_executors() -> None:
    """Before anything is submitted."""
    with pytest.raises(sky.ConfigurationError, match="'thread' or 'process'"), sky.options(executor="gpu"):
        pass

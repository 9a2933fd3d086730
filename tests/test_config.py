"""`Worker` and its configuration: what is invalid is refused, with the valid values."""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import dask.config
import jsonschema
import numpy as np
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
    numpys = sky.Worker(np.int64(4), "process", memory_limit=np.int64(2**30))  # type: ignore[arg-type]
    assert type(numpys.concurrency) is type(numpys.memory_limit) is int
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
        ({"executor": "processes"}, "must be one of 'auto', 'thread', 'process', not 'processes'"),
        ({"executor": ["process"]}, "'auto', 'thread', 'process'"),
        ({"concurrency": 0}, "must be a positive integer"),
        ({"concurrency": -1}, "must be a positive integer"),
        ({"concurrency": True}, "must be a positive integer"),
        ({"concurrency": "4"}, "must be a positive integer"),
        ({"concurrency": 2.0}, "must be a positive integer"),
        ({"executor": "process", "pre_import": "numpy"}, "sequence of module names"),
        ({"executor": "process", "pre_import": [1]}, "sequence of module names"),
        ({"executor": "process", "env": {"A": 1}}, "mapping of names to strings, or to functions"),
        ({"executor": "process", "env": "A=1"}, "mapping of names to strings, or to functions"),
        ({"executor": "process", "env": {"A=B": "1"}}, "without empty names, '=' in a name"),
        ({"executor": "process", "env": {"": "1"}}, "without empty names"),
        ({"executor": "process", "env": {"A": "\0"}}, "null bytes"),
        ({"executor": "process", "initializer": "no"}, "initializer must be a function .* not 'no'"),
        ({"executor": "process", "health_check": True}, "health_check must be a function .* not True"),
        ({"executor": "process", "timeout": 0}, "positive number of seconds"),
        ({"executor": "process", "timeout": "soon"}, "positive number of seconds"),
        ({"executor": "process", "timeout": True}, "positive number of seconds"),
        ({"executor": "process", "timeout": float("nan")}, "positive number of seconds"),
        ({"executor": "process", "timeout": ""}, "positive number of seconds"),
        ({"executor": "process", "timeout": 10**400}, "positive number of seconds"),
        ({"executor": "process", "memory_limit": " "}, "positive number of bytes"),
        ({"executor": "process", "memory_limit": 0}, "positive number of bytes"),
        ({"executor": "process", "memory_limit": 10**400}, "positive number of bytes"),
        ({"executor": "process", "memory_limit": "much"}, "positive number of bytes"),
        ({"executor": "process", "max_tasks_per_child": 0}, "must be a positive integer"),
        ({"timeout": 1}, "executor='process'"),
        ({"memory_limit": "1GiB"}, "executor='process'"),
        ({"max_tasks_per_child": 1}, "executor='process'"),
        ({"pre_import": ("json",)}, "executor='process'"),
        ({"executor": "thread", "env": {"A": "1"}}, "executor='process'"),
        ({"executor": "auto", "initializer": print}, "executor='process'"),
        ({"health_check": print}, "executor='process'"),
    ],
)
def test_what_is_invalid_is_refused(fields: dict[str, Any], names: str) -> None:
    """Each error lists what is valid."""
    with pytest.raises(sky.ConfigurationError, match=names):
        sky.Worker(**fields)


@pytest.mark.parametrize(
    ("mistake", "instead"),
    [
        (
            lambda: sky.Worker(nthreads=4),
            "Worker: .*'nthreads'; it takes concurrency, executor",
        ),
        (lambda: sky.install(None, executor="process"), r"install\(client, Worker\(executor='process'"),
        (lambda: sky.resize(None, slots=8), "takes client, concurrency, workers"),
        (lambda: sky.install(None, 2, "process"), r"too many .*install\(client, Worker"),
        (lambda: sky.check(), "missing .*'client'; it takes client, timeout"),
        (lambda: sky.dict("d", a=1), r"fill it with update\(\)"),
        (lambda: sky.barrier("b", parties=2), "n is the number of parties"),
        (lambda: sky.lock("l", timeout=3), r"acquire\(timeout="),
        (lambda: sky.SkywardPlugin(concurrency=4), r"SkywardPlugin\(Worker\("),
        (lambda: sky.Compute(n_workers=2), "'n_workers'; it takes nodes, worker, cluster"),
        (lambda: sky.Compute(1, executor="process"), r"Compute\(worker=Worker\("),
        (lambda: sky.options(retries=3), r"'retries'; .* dask\.annotate"),
        (lambda: sky.function(retries=3), r"submit\(f, x, retries"),
        (lambda: sky.gather(timeout=3), r"gather\(\.\.\.\)\.with_timeout"),
    ],
)
def test_arguments_that_do_not_exist(mistake: Any, instead: str) -> None:
    """The message says which do, and what to write."""
    with pytest.raises(sky.ConfigurationError, match=instead):
        mistake()


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
        "skyward.worker.health-check": "gc:isenabled",
        "skyward.worker.grace": "1s",
    }
    with dask.config.set(settings):
        worker = sky.Worker.from_config(concurrency=5)
    given = (5, "process", 120, 1024, 7, gc.collect, ("json", "wave"), {"A": "1"}, gc.isenabled)
    assert worker == sky.Worker(*given)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"skyward.worker.executer": "process"}, "no setting 'executer'.*executor, concurrency, timeout"),
        ({"skyward.worker.concurrency": "many"}, "must be a positive integer"),
        ({"skyward.worker": 3}, "skyward.worker must be a mapping"),
        ({"skyward": False}, "skyward must be a mapping"),
        ({"skyward.executor": "process"}, r"no setting 'executor'.*Did you mean skyward\.worker\.executor\?"),
        ({"skyward_worker_executor": "process"}, "skyward_worker_executor, which would be ignored"),
        ({"skyward-dask.worker.executor": "process"}, "skyward-dask, which would be ignored"),
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
    with pytest.raises(sky.ConfigurationError, match=r"such as Worker.* not 'process'"):
        sky.SkywardPlugin("process")  # type: ignore[arg-type]


def test_a_plugin_carries_the_users_functions() -> None:
    """Pickled, so that a scheduler without the user's modules can read the rest; what can't be is named."""
    factor = 2
    worker = sky.Worker(
        executor="process", env={"GPU": lambda slot: str(slot // factor)}, health_check=lambda: factor == 2
    )
    on_scheduler = pickle.loads(pickle.dumps(sky.SkywardPlugin(worker)))
    on_worker = pickle.loads(pickle.dumps(on_scheduler)).worker
    assert on_worker.env["GPU"](5) == "2" and on_worker.health_check()
    with pytest.raises(sky.SerializationError, match="the worker's initializer can't be pickled"):
        sky.SkywardPlugin(sky.Worker(executor="process", initializer=threading.Lock().acquire))


@pytest.mark.parametrize("section", ["skyward", "skyward.worker", "skyward.worker.env"])
def test_a_plain_value_for_a_section_is_refused(section: str) -> None:
    """Dask's defaults would take its place, and nobody would hear of it."""
    program = "import skyward_dask as sky; sky.SkywardPlugin()"
    env = os.environ | {f"DASK_{section.replace('.', '__').upper()}": "process"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False
    )
    name = section.removeprefix("skyward.worker.")
    assert done.returncode == 1 and f"{name} must be a mapping" in done.stderr


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

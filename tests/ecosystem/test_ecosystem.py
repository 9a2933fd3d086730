"""Other projects' own tests, with process slots switched on by configuration: what passes without us passes.

``SKYWARD_TEST_WITHOUT_US=1`` runs them without, to see what fails anyway.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.ecosystem.known import EXPLAINED, WITHOUT_US

ROOT = Path(__file__).parents[2]
CLUSTER, OWN = "tests.ecosystem.on_a_cluster", "distributed.utils_test"
#: Modules, the plugin that each runs with, and a choice of its tests.
SUITES = {
    "dask.tests.test_delayed": (CLUSTER, ""),
    "dask.bag.tests.test_bag": (CLUSTER, ""),
    "dask.array.tests.test_overlap": (CLUSTER, ""),
    "dask.dataframe.tests.test_rolling": (
        CLUSTER,
        # not the 336 variants of three things, nor what waits for ever without us too
        "not multiple_dataframes and not rolling_methods and not variable_chunks",
    ),
    "dask.tests.test_distributed": (OWN, "not zarr and not blockwise_array_creation"),
    "joblib.test.test_dask": (OWN, ""),
    "sklearn.ensemble.tests.test_bagging": (CLUSTER, "n_jobs or parallel"),
}
_SWITCHED_ON = {
    "DASK_SKYWARD__WORKER__EXECUTOR": "process",
    "DASK_DISTRIBUTED__WORKER__PRELOAD": '["skyward_dask"]',
}


@pytest.mark.ecosystem
@pytest.mark.timeout(900)
@pytest.mark.parametrize("module", SUITES)
def test_what_passes_without_us_passes_with_us(module: str, tmp_path: Path) -> None:
    """But for what is explained."""
    found = importlib.util.find_spec(module)
    assert found is not None and found.origin is not None, "pip install -e '.[test]'"
    plugin, choice = SUITES[module]
    report = tmp_path / "report.xml"
    command = [
        sys.executable, "-m", "pytest", found.origin, "-q", "-k", choice, "-W", "ignore", "-o", "addopts=",
        "-c", os.devnull, "-p", "no:cacheprovider", "-p", plugin, "--rootdir", str(tmp_path),
        # nobody's conftest above the package's: a virtual environment may lie in this repository
        "--confcutdir", str(Path(found.origin).parents[module.count(".")]),
        "--timeout", "120", "--junitxml", str(report),
    ]  # fmt: skip
    switched = {} if os.environ.get("SKYWARD_TEST_WITHOUT_US") else _SWITCHED_ON
    env = {**os.environ, **switched, "PYTHONPATH": str(ROOT)}
    output = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert report.exists(), output.stdout + output.stderr
    cases = list(ElementTree.parse(report).iter("testcase"))
    failed = {f"{module}::{case.get('name')}" for case in cases if case.find("failure") is not None}
    failed |= {f"{module}::{case.get('name')}" for case in cases if case.find("error") is not None}
    assert cases, output.stdout + output.stderr
    assert failed <= WITHOUT_US | EXPLAINED.keys(), output.stdout[-20_000:]

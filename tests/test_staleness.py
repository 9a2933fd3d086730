"""What changes a worker's process is seen by the next task in its slots."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import dask
import psutil
import pytest
from distributed import Client
from distributed.diagnostics.plugin import WorkerPlugin

import skyward_dask as sky

PATIENCE = 200


def run(client: Client, function: Any, *args: Any) -> Any:
    return client.submit(function, *args, pure=False).result(timeout=PATIENCE)


def answer() -> int:
    import uploaded_for_a_test

    return int(uploaded_for_a_test.answer)


def test_an_uploaded_module_is_seen_and_seen_again(shared_client: Client, tmp_path: Path) -> None:
    """Also when it has changed, by slots that had imported it before."""
    path = tmp_path / "uploaded_for_a_test.py"
    for number in (1, 2):
        path.write_text(f"answer = {number}")
        shared_client.upload_file(str(path))
        futures = shared_client.map(lambda _: answer(), range(8), pure=False)
        assert set(shared_client.gather(futures)) == {number}


def test_what_run_and_plugins_change_is_seen(shared_client: Client) -> None:
    """Environment, path and configuration."""

    class Setting(WorkerPlugin):
        name = "setting"

        def setup(self, worker: Any) -> None:
            os.environ["SET_BY_A_PLUGIN"] = "1"
            sys.path.append("/set/by/a/plugin")
            dask.config.set({"set-by-a-plugin": 1})

    shared_client.register_plugin(Setting())
    try:
        found = run(
            shared_client,
            lambda: (
                os.environ.get("SET_BY_A_PLUGIN"),
                "/set/by/a/plugin" in sys.path,
                dask.config.get("set-by-a-plugin", None),
            ),
        )
        assert found == ("1", True, 1)
    finally:
        shared_client.unregister_worker_plugin("setting")
    shared_client.run(lambda: os.environ.update(SET_BY_RUN="2"))
    assert run(shared_client, lambda: os.environ.get("SET_BY_RUN")) == "2"


def test_nothing_changed_nothing_is_replaced(shared_client: Client, executor: str, tmp_path: Path) -> None:
    """What tasks keep in their slots is lost only when it must be."""
    if executor == "thread":
        pytest.skip("threads are not replaced")

    def meet(folder: Path, me: int) -> int:
        (folder / str(me)).touch()
        while not (folder / str(1 - me)).exists():
            time.sleep(0.01)
        return os.getpid()

    pids = []
    for name in ("before", "after"):
        (folder := tmp_path / name).mkdir()
        futures = [shared_client.submit(meet, folder, me, pure=False) for me in range(2)]
        pids.append(set(shared_client.gather(futures)))
        shared_client.run(os.getpid)
    assert pids[0] == pids[1]


def test_the_workers_directory_may_be_gone(shared_client: Client, executor: str, tmp_path: Path) -> None:
    """Slots are set up there all the same, and started anew after their template's death."""
    before, gone = run(shared_client, os.getcwd), tmp_path / "gone"
    gone.mkdir()
    shared_client.run(os.chdir, str(gone))
    gone.rmdir()
    try:
        sky.install(shared_client, sky.Worker(concurrency=2, executor=executor))
        pid = run(shared_client, os.getpid)
        if executor == "process":
            psutil.Process(pid).parent().kill()
            while run(shared_client, os.getpid) == pid:
                pass  # it may have had a task before its worker heard of the death
    finally:
        shared_client.run(os.chdir, before)

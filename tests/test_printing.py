"""What tasks print appears where plain Dask shows it, once, line ends or not, and in the worker's log."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_PROGRAM = """
import os, sys
from pathlib import Path
from distributed import Client, LocalCluster
import skyward_dask as sky

def task(folder):
    print("a line")
    sys.stderr.write("a complaint, ")
    print("no end, ", end="")
    Path(folder, "go on").read_text()
    os.system("echo and a line of another process")

if __name__ == "__main__":
    folder, processes = sys.argv[1:]
    options = {"n_workers": 1, "processes": processes == "True", "dashboard_address": ":0"}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        sky.install(client, sky.Worker(concurrency=1, executor="process"))
        client.submit(task, folder, key="printing").result()
        (logs,) = client.get_worker_logs().values()
        with sky.output(client):
            client.submit(print, "watched", key="watching").result()
        client.submit(print, "on its own", key="unwatched").result()
        sky.install(client, sky.Worker(concurrency=1))
        with sky.output(client):
            client.submit(print, "in a thread", key="threaded").result()
        Path(folder, "log").write_text("\\n".join(text for _, text in reversed(logs)))
"""


def read_until(fd: int, last: str) -> str:
    """What comes up to some text; the program waits until it is seen."""
    text = ""
    while not text.endswith(last):
        data = os.read(fd, 4096)
        assert data, text
        text += data.decode()
    return text


@pytest.mark.slow
@pytest.mark.parametrize("processes", [True, False])
def test_prints(tmp_path: Path, processes: bool) -> None:
    """While the task runs; and each line once in the log, with the task's key. There is no other noise.

    What is watched from the same terminal appears there with its key, and once.
    """
    os.mkfifo(tmp_path / "go on")
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", _PROGRAM, str(tmp_path), str(processes)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0) as program:
        assert program.stdout is not None and program.stderr is not None
        assert read_until(program.stdout.fileno(), "no end, ") == "a line\nno end, "
        complaint = read_until(program.stderr.fileno(), "a complaint, ")
        (tmp_path / "go on").write_text("")
        rest, errors = program.communicate()
    assert rest.decode().splitlines() == [
        "and a line of another process",
        "watching: watched",
        "on its own",
        "threaded: in a thread",
    ]
    complaint += errors.decode()
    assert "a line" not in complaint  # the console doesn't repeat what is in the log
    assert "Warning" not in complaint  # a process that ends as a program does leaves nothing open
    log = (tmp_path / "log").read_text().splitlines()
    records = [line.partition(" - ")[2] for line in log if "skyward_dask.task" in line]
    assert "skyward_dask.task - WARNING - printing: a complaint, " in records
    text = [line.partition("INFO - printing: ")[2] for line in records if "INFO" in line]
    assert text[0] == "a line" and "".join(text[1:]) == "no end, and a line of another process"

"""A real scheduler and two real workers, as processes that a user's commands start.

```
 harness ── dask scheduler
         ── dask worker (nanny ──) worker ── template ── child, child
```
"""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from distributed import Client

#: Of each worker.
SLOTS = 2
WORKERS = 2
_ROOT = str(Path(__file__).parents[2])
_MARK = "SKYWARD_CHAOS"
#: Dask's profiler keeps an hour of stacks: what else grows could not be seen beside it.
_QUIET = {"DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False"}
#: What a slot's process, or the template that it was forked from, has on its command line.
_OURS = ("skyward_dask.slots.child.template", "skyward_dask.slots.child.process")
#: Seconds for a command to end, and for what is left of it to go.
_PATIENCE = 200.0
_LAST_PATIENCE = 60.0


@dataclass(slots=True)
class Farm:
    """The processes of one run.

    Attributes
    ----------
    directory : Path
        Where they write, their logs too.
    nannies : bool
        Whether workers have one.
    """

    directory: Path
    nannies: bool
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    commands: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _pids: dict[str, int] = field(default_factory=dict)

    def start(self) -> Client:
        """Start all; returns a client once the workers have joined."""
        file = str(self.directory / "scheduler.json")
        self._launch("scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", file)
        client = Client(scheduler_file=file)
        nanny = "--nanny" if self.nannies else "--no-nanny"
        ours = ("--preload", "skyward_dask", "--executor", "process", "--concurrency", str(SLOTS))
        assert client.scheduler is not None
        for _ in range(WORKERS):
            self._launch("worker", str(client.scheduler.address), "--no-dashboard", nanny, *ours)
        client.wait_for_workers(WORKERS, timeout=_PATIENCE)
        return client

    def _launch(self, *command: str) -> None:
        log = self.directory / f"{command[0]}-{len(self.commands)}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "dask", *command],
                env={**os.environ, **_QUIET, _MARK: self.mark, "PYTHONPATH": _ROOT},
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        self.commands.append(process)

    def stop(self) -> list[str]:
        """End all by the commands' own ways; returns what didn't end."""
        for command in reversed(self.commands):
            command.terminate()
            with suppress(subprocess.TimeoutExpired):
                command.wait(_PATIENCE)
        _, left = psutil.wait_procs(list(self.marked()), _LAST_PATIENCE)
        words = [f"left behind: {describe(process)}" for process in left]
        for process in left:
            with suppress(psutil.Error):
                process.kill()
        return words

    def strays(self) -> list[psutil.Process]:
        """What was started by one of the others, and is nobody's now."""
        family = {command.pid for command in self.commands}
        for command in self.commands:
            family |= {child.pid for child in psutil.Process(command.pid).children(recursive=True)}
        return [process for process in self.marked() if process.pid not in family]

    def marked(self) -> Iterator[psutil.Process]:
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(_MARK) == self.mark:
                    yield process

    def logs(self) -> Iterator[str]:
        """The lines of all logs."""
        for path in sorted(self.directory.glob("*.log")):
            with path.open(errors="replace") as file:
                yield from (f"{path.name}: {line.rstrip()}" for line in file)

    def workers(self, client: Client) -> dict[str, psutil.Process]:
        """Those that have joined, by address: nobody harms one that has yet to."""
        addresses = client.run_on_scheduler(_addresses)
        self._pids = {address: pid for address, pid in self._pids.items() if address in addresses}
        for address in addresses:
            if address not in self._pids:
                self._pids.update(client.run(os.getpid, workers=[address]))
        return {address: psutil.Process(pid) for address, pid in self._pids.items() if psutil.pid_exists(pid)}


def _addresses(dask_scheduler: Any) -> list[str]:
    return list(dask_scheduler.workers)


def templates(worker: psutil.Process) -> list[psutil.Process]:
    return [process for process in worker.children() if is_ours(process)]


def children(worker: psutil.Process) -> list[psutil.Process]:
    """The processes of its slots."""
    return [process for template in templates(worker) for process in template.children() if is_ours(process)]


def is_ours(process: psutil.Process) -> bool:
    """Whether it is a template or a slot's process, and alive."""
    with suppress(psutil.Error):
        return any(word in argument for argument in process.cmdline() for word in _OURS)
    return False


def describe(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {process.status()} of {process.ppid()}: {' '.join(process.cmdline())[-80:]}"
    except psutil.Error:
        return f"{process.pid}, which is gone"

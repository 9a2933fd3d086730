"""Starts the local cluster of a `Compute`; if that fails, the last line that the user sees says why."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import NamedTemporaryFile

from dask.system import CPU_COUNT
from distributed import Client, LocalCluster

from skyward_dask.config import Worker
from skyward_dask.errors import ConfigurationError, SkywardError
from skyward_dask.extension.client.control import install
from skyward_dask.extension.tracebacks import chain

#: Environment variable: the file in which a local cluster's processes can say why they end.
_REASON_FILE = "SKYWARD_DASK_REASON_FILE"
_UNGUARDED = (
    "this script starts a local cluster as it is imported, and each worker process imports it: put what it "
    'does under `if __name__ == "__main__":`.'
)


def start_local_cluster(nodes: int | tuple[int, int], worker: Worker, stack: ExitStack) -> Client:
    """A client of a cluster that lives as long as the stack is open."""
    _refuse_unguarded_script()
    fewest, most = nodes if isinstance(nodes, tuple) else (nodes, nodes)
    slots = worker.concurrency or max(1, CPU_COUNT // most)
    with _reasons():
        cluster = stack.enter_context(
            LocalCluster(n_workers=fewest, threads_per_worker=slots, processes=True, dashboard_address=":0")
        )
    client: Client = stack.enter_context(Client(cluster, set_as_default=False))
    install(client, replace(worker, concurrency=slots))
    if most > fewest:
        cluster.adapt(minimum=fewest, maximum=most)
    return client


@contextmanager
def _reasons() -> Iterator[None]:
    """Raise the reason why a local cluster can't start, instead of Dask's "Nanny failed to start"."""
    with NamedTemporaryFile("r") as file:
        os.environ[_REASON_FILE] = file.name
        try:
            yield
        except RuntimeError as error:
            if reason := file.read():
                raise ConfigurationError(reason) from None
            for link in chain(error):
                if isinstance(link, SkywardError):  # a worker's, which Dask's configuration gives slots
                    raise link from None
            raise
        finally:
            del os.environ[_REASON_FILE]


def _refuse_unguarded_script() -> None:
    # set while multiprocessing imports the main script in a process that it spawns
    if not getattr(multiprocessing.current_process(), "_inheriting", False):
        return
    if (file := Path(os.environ.get(_REASON_FILE, ""))).is_file():
        file.write_text(_UNGUARDED)
        sys.exit(1)  # the process that waits for this one says it once, for all of them
    raise ConfigurationError(_UNGUARDED)

"""Opens the session of a `Compute`, or finds the one of a call without any."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from distributed import Client, get_client

from skyward_dask.config import Worker
from skyward_dask.errors import ConfigurationError, OperatorError
from skyward_dask.extension.client.control import install, installed, uninstall
from skyward_dask.extension.client.local_cluster import start_local_cluster
from skyward_dask.extension.client.session import Session, is_in_task


def open_session(nodes: int | tuple[int, int], worker: Worker | None, cluster: object | None) -> Session:
    """Start a local cluster, or connect to an existing one; if that fails, nothing stays open."""
    with ExitStack() as stack:
        if cluster is None:
            client = start_local_cluster(nodes, Worker.from_config() if worker is None else worker, stack)
        else:
            client = stack.enter_context(_connected(cluster))
            if worker is not None:
                _lend(client, worker, stack)
        stack.enter_context(client.as_current())  # collections that are opened in the block find it
        return Session(client, stack.pop_all())


def current_session() -> Session:
    """For ``f(x) >> skyward_dask`` where no `Compute` is open: the current client's.

    Raises
    ------
    OperatorError
        There is none.
    """
    find = get_client if is_in_task() else Client.current
    try:
        return Session(find())
    except ValueError:
        raise OperatorError(
            "nothing is open that the call could be sent to: open a skyward_dask.Compute, or create a "
            "dask.distributed.Client, first."
        ) from None


def check_cluster(cluster: object) -> None:
    """Refuse anything that is neither a cluster nor an address."""
    if not isinstance(cluster, str) and not isinstance(getattr(cluster, "scheduler_address", None), str):
        hint = ": a Client's is client.scheduler.address" if isinstance(cluster, Client) else ""
        raise ConfigurationError(
            f"cluster must be a Dask cluster or the address of a scheduler, not {cluster!r}{hint}."
        )


def _connected(cluster: Any) -> Client:
    if getattr(cluster, "asynchronous", False):
        raise ConfigurationError(
            "this thread runs the event loop of cluster, and opening a Compute waits for it: open it in "
            "another thread, or use an asynchronous Client instead."
        )
    client: Client = Client.__new__(Client)
    try:
        Client.__init__(client, cluster, set_as_default=False)
    except BaseException as error:
        client.close()  # otherwise the interpreter waits a minute for it at exit
        if isinstance(error, ValueError):
            raise ConfigurationError(
                f"cluster={cluster!r} is not the address of a scheduler: {error}. A valid one is "
                "'tcp://10.0.0.5:8786'."
            ) from None
        raise
    return client


def _lend(client: Client, worker: Worker, stack: ExitStack) -> None:
    """Change the slots of a cluster that isn't ours, and restore them at the end."""
    previous = installed(client)
    install(client, worker)
    if previous is None:
        stack.callback(uninstall, client)
    else:
        stack.callback(install, client, previous)

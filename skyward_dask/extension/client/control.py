"""`install`, `resize` and `uninstall`: slots on a running cluster."""

from __future__ import annotations

from collections.abc import Iterable
from textwrap import indent
from typing import Any

from distributed import Client
from distributed.protocol.pickle import dumps, loads

from skyward_dask.arguments import takes_only
from skyward_dask.config import Worker
from skyward_dask.errors import ConfigurationError, InstallError
from skyward_dask.extension.connection import checked, connected
from skyward_dask.extension.worker.plugin import Removal, SkywardPlugin


@takes_only("Slots are configured by a Worker: install(client, Worker(executor='process', concurrency=4)).")
def install(client: Client, worker: Worker | None = None) -> None:
    """Give every worker of the cluster these slots, those that join later too.

    Parameters
    ----------
    client : distributed.Client
    worker : Worker, optional
        The configuration of each node; defaults to Dask's configuration (``skyward.worker``).

    Returns
    -------
    None
        With an asynchronous client, an awaitable of None. When it is done, `client.nthreads()` and the
        dashboard show the new slots.

    Raises
    ------
    InstallError
        The scheduler lacks the package, or slots couldn't be set up on some workers, which the message
        names. These keep the slots they had, the others have the new ones, and workers that join later get
        the old ones.

    Examples
    --------
    >>> install(client, Worker(concurrency=4, executor="process"))  # doctest: +SKIP

    Notes
    -----
    A second call replaces the first. Running tasks finish in the slots where they started.
    """
    return checked(client).sync(_install, client, SkywardPlugin(worker))  # type: ignore[no-any-return]  # or an awaitable


@takes_only("Only the number of slots changes; install changes the rest.")
def resize(client: Client, concurrency: int, workers: Iterable[str] | None = None) -> None:
    """Change the number of slots; their kind stays the same.

    Parameters
    ----------
    client : distributed.Client
    concurrency : int
        Task slots of each node.
    workers : iterable of str, optional
        Addresses or names of workers; defaults to all, those that join later included.

    Returns
    -------
    None
        With an asynchronous client, an awaitable of None. When it is done, `client.nthreads()` and the
        dashboard show the new number.

    Raises
    ------
    ConfigurationError
        The number is invalid.
    InstallError
        Some workers have no skyward_dask slots, or can't be reached; the message names them. They keep what
        they had; the others have the new number.

    Examples
    --------
    >>> resize(client, concurrency=8)  # doctest: +SKIP

    Notes
    -----
    If the number is lowered, running tasks above it finish first. A worker that its nanny restarts keeps the
    number, until the next `install`, `resize` or `uninstall`.
    """
    wanted = Worker(concurrency=concurrency).concurrency
    if wanted is None:
        raise ConfigurationError("concurrency must be a positive integer here, not None.")
    if isinstance(workers, str):
        raise ConfigurationError(f"workers must be a list of addresses or names, not {workers!r}.")
    chosen = None if workers is None else list(workers)
    return checked(client).sync(_resize, client, wanted, chosen)  # type: ignore[no-any-return]  # or an awaitable


def uninstall(client: Client) -> None:
    """Give every worker Dask's own executor back; workers that join later follow their own flags.

    Parameters
    ----------
    client : distributed.Client

    Returns
    -------
    None
        With an asynchronous client, an awaitable of None.

    Raises
    ------
    InstallError
        Some workers couldn't be reached; the message names them.
    """
    return checked(client).sync(_uninstall, client)  # type: ignore[no-any-return]  # or an awaitable


def installed(client: Client) -> Any:
    """The configuration for workers that join, or None; an awaitable with an asynchronous client."""
    return checked(client).sync(_installed, client)


async def _install(client: Client, plugin: SkywardPlugin) -> None:
    scheduler = await connected(client)
    _raise_for(await scheduler.skyward_install(plugin=dumps(plugin)), "set up")


async def _resize(client: Client, slots: int, workers: list[str] | None) -> None:
    if workers == []:
        return
    scheduler = await connected(client)
    _raise_for(await scheduler.skyward_resize(slots=slots, workers=workers), "changed")


async def _uninstall(client: Client) -> None:
    scheduler = await connected(client)
    _raise_for(await scheduler.skyward_uninstall(removal=dumps(Removal())), "given back")


async def _installed(client: Client) -> Worker | None:
    scheduler = await connected(client)
    pickled = await scheduler.skyward_installed()
    return None if pickled is None else loads(pickled).worker


def _raise_for(failures: dict[str, str], what: str) -> None:
    if failures:
        named = "\n".join(f"  {worker}: {indent(text, '    ').lstrip()}" for worker, text in failures.items())
        raise InstallError(
            f"slots couldn't be {what} on {len(failures)} worker(s), which keep what they had:\n{named}"
        )

"""`check`: whether a cluster's slots are set up correctly, as a frozen dataclass that can be printed."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from distributed import Client

from skyward_dask import __version__
from skyward_dask.arguments import takes_only
from skyward_dask.config import parse_timeout
from skyward_dask.extension.client.tables import as_html
from skyward_dask.extension.connection import checked, connected

#: The packages whose versions must be the same everywhere.
_PACKAGES = ("python", "skyward_dask", "dask", "distributed", "cloudpickle")
#: Seconds in which each slot should have taken a task.
_PATIENCE = 10.0


@dataclass(frozen=True, slots=True, repr=False)
class WorkerCheck:
    """One worker.

    Attributes
    ----------
    versions : dict
        Of the packages that must be the same everywhere; None for one that isn't installed.
    executor : str or None
        ``"thread"`` or ``"process"``; None if the worker has no skyward_dask slots.
    features : tuple of str
        What its platform offers of ``fork``, ``memfd``, ``pidfd`` and ``subreaper``.
    slots : dict
        For each process slot, by index, what is wrong with it; empty if a task went through.
    """

    versions: dict[str, str | None]
    executor: str | None
    features: tuple[str, ...]
    slots: dict[int, str]

    def __repr__(self) -> str:
        return f"<{_in_words(self)}>"


@dataclass(frozen=True, slots=True, repr=False)
class Check:
    """The result of `check`.

    Attributes
    ----------
    client, scheduler : dict
        Versions, as in `WorkerCheck`.
    workers : dict
        `WorkerCheck` by address.
    problems : tuple of str
        What is wrong, why, and what to do; empty if all is well.
    """

    client: dict[str, str | None]
    scheduler: dict[str, str | None]
    workers: dict[str, WorkerCheck]
    problems: tuple[str, ...]

    def __repr__(self) -> str:
        lines = [f"{address}: {_in_words(worker)}" for address, worker in self.workers.items()]
        return "\n".join([*lines, *self._verdict()])

    def _repr_html_(self) -> str:
        rows = [
            (address, worker.executor or "none", len(worker.slots), " ".join(worker.features))
            for address, worker in self.workers.items()
        ]
        verdict = "".join(f"<p>{html.escape(line)}</p>" for line in self._verdict())
        return as_html(("worker", "executor", "slots tried", "platform"), rows) + verdict

    def _verdict(self) -> tuple[str, ...]:
        return self.problems or ("all is well",)


@takes_only("A Dask cluster object has a client: check(Client(cluster)).")
def check(client: Client, timeout: float | str = _PATIENCE) -> Check:
    """Compare versions, look at what each worker's platform offers, and run one task in each process slot.

    Parameters
    ----------
    client : distributed.Client
    timeout : float or str
        How long to wait for a busy slot before it is skipped: seconds, or text such as ``"5s"``.

    Returns
    -------
    Check
        With an asynchronous client, an awaitable of it.

    Examples
    --------
    >>> print(check(client))  # doctest: +SKIP
    tcp://10.0.0.5:40331: process, 4 slots; fork memfd pidfd subreaper
    all is well
    """
    return checked(client).sync(_check, client, parse_timeout(timeout) or _PATIENCE)  # type: ignore[no-any-return]  # or an awaitable


async def _check(client: Client, timeout: float) -> Check:
    scheduler = await connected(client)
    versions = await client.get_versions(packages=list(_PACKAGES))  # type: ignore[misc]
    answer = await scheduler.skyward_check(timeout=timeout)
    answers: dict[str, dict[str, Any]] = answer["workers"]
    found = {address: (answers.get(address, {}), known) for address, known in versions["workers"].items()}
    workers = {address: _worker(*both) for address, both in found.items()}
    ours = _versions(versions["client"], __version__)
    its = _versions(versions["scheduler"], answer["version"])
    reasons = {address: told["reason"] for address, told in answers.items() if "reason" in told}
    return Check(ours, its, workers, tuple(_problems(ours, its, workers, reasons)))


def _worker(told: Mapping[str, Any], known: Mapping[str, Any]) -> WorkerCheck:
    return WorkerCheck(
        _versions(known, told.get("version")),
        told.get("executor"),
        tuple(told.get("features", ())),
        dict(told.get("slots", ())),
    )


def _versions(found: Mapping[str, Any] | None, own: str | None) -> dict[str, str | None]:
    """The installed versions; `own` is what our package reports: in a zip file, it isn't installed."""
    known = {**found["packages"], **found["host"]} if found else {}
    known["skyward_dask"] = own or known.get("skyward_dask")
    return {package: _short(known.get(package)) for package in _PACKAGES}


def _short(version: object) -> str | None:
    return None if version is None else str(version).split()[0].removesuffix(".final.0")


def _problems(
    ours: dict[str, str | None],
    its: dict[str, str | None],
    workers: Mapping[str, WorkerCheck],
    reasons: Mapping[str, str],
) -> Iterator[str]:
    if its != ours:
        yield f"scheduler: {_difference(its, ours)}"
    for address, worker in workers.items():
        if worker.versions != ours:
            yield f"{address}: {_difference(worker.versions, ours)}"
        if worker.executor is None:
            yield f"{address}: it has no skyward_dask slots{_remedy(reasons.get(address))}"
        for index, wrong in worker.slots.items():
            if wrong:
                yield f"{address}: slot {index}: {wrong}"


def _remedy(reason: str | None) -> str:
    if reason is not None:
        return f", and can't have any: {reason}."
    return (
        ". Call skyward_dask.install(client, …), or start it with --preload skyward_dask; any other "
        "--preload makes Dask ignore the configured ones."
    )


def _difference(theirs: dict[str, str | None], ours: dict[str, str | None]) -> str:
    differing = [f"{p} {theirs[p] or 'missing'} (client: {ours[p]})" for p in ours if theirs[p] != ours[p]]
    return f"other versions than the client's: {', '.join(differing)}. Install the same ones everywhere."


def _in_words(worker: WorkerCheck) -> str:
    slots = f", {len(worker.slots)} slots" if worker.slots else ""
    return f"{worker.executor or 'no skyward_dask slots'}{slots}; {' '.join(worker.features)}".rstrip("; ")

"""A worker whose slots can't be set up closes, and takes its nanny and their command with it."""

from __future__ import annotations

from functools import partial

from distributed import Worker

from skyward_dask.extension.command_end import end_with
from skyward_dask.extension.private import close_once_started, run_in_nanny


def close_with_error(worker: Worker, error: BaseException) -> None:
    """Close a worker and its nanny; a command that runs them ends with this error."""
    reason = f"the worker can't set up its slots, and has closed: {error}"
    end_with(reason)
    # a nanny answers only once its worker has started
    tell = partial(run_in_nanny, worker, end_with, reason) if worker.nanny else None
    close_once_started(worker, reason="skyward-setup-failed", before=tell)

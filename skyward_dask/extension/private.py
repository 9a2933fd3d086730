"""Every private name of distributed that the package uses, each with its reason and a canary test."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from distributed import Status, Worker
from distributed.diagnostics.plugin import WorkerPlugin
from distributed.spill import SpillBuffer
from distributed.worker import _worker_cvar
from distributed.worker_memory import parse_memory_limit
from distributed.worker_state_machine import UnpauseEvent

#: What `get_worker()` reads: a child puts its façade there.
worker_context: ContextVar[Any] = _worker_cvar


def pending_plugins(worker: Worker) -> tuple[WorkerPlugin, ...]:
    """The plugins that are set up right before the worker registers."""
    return tuple(worker._pending_plugins)


def add_pending_plugin(worker: Worker, plugin: WorkerPlugin) -> None:
    """Have the plugin set up right before the worker registers: if that fails, the worker exits.

    `_pending_plugins` is replaced: with ``gen_cluster`` it is a list that all workers share.
    """
    worker._pending_plugins = (*worker._pending_plugins, plugin)


def is_registered(worker: Worker) -> bool:
    """Whether the worker has told the scheduler of itself, or is about to, beyond recall."""
    return hasattr(worker.state, "address")


def is_registering(worker: Worker) -> bool:
    """Whether the worker has registered and is setting up the plugins that the scheduler told it of."""
    return worker.status == Status.running and not worker.periodic_callbacks["heartbeat"].is_running()


def compute_more(worker: Worker) -> None:
    """Have the state machine start tasks: it doesn't notice by itself that it has more slots."""
    if worker.state.running:
        worker.handle_stimulus(UnpauseEvent(stimulus_id="skyward-slots"))


def log_handler(worker: Worker) -> logging.Handler:
    """The handler behind ``client.get_worker_logs()``."""
    handler: logging.Handler = worker._deque_handler
    return handler


def automatic_memory_limit(nthreads: int) -> int | None:
    """What ``memory_limit="auto"`` means for so many threads, in bytes."""
    limit: int | None = parse_memory_limit("auto", nthreads, logger=logging.getLogger(__name__))
    return limit


def set_memory_limit(worker: Worker, limit: int) -> None:
    """Give a worker another limit, and its spill buffer the target that follows from it."""
    manager = worker.memory_manager
    data = manager.data
    if isinstance(data, SpillBuffer) and manager.memory_limit:
        data.fast.n = data.fast.n * limit / manager.memory_limit
    manager.memory_limit = limit


def set_memory_reading(worker: Worker, read: Callable[[], int]) -> None:
    """Have the worker's monitor, and with it spilling and pausing, take its memory from `read`."""
    vars(worker.monitor)["get_process_memory"] = read


def reset_memory_reading(worker: Worker) -> None:
    """Have the monitor read for itself again."""
    vars(worker.monitor).pop("get_process_memory", None)

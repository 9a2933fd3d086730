"""What is known of a cluster that hangs."""

from __future__ import annotations

import pprint
import sys
import threading
import traceback
from typing import Any

from distributed import Client

import skyward_dask as sky
from tests.chaos.farm import Farm, describe
from tests.chaos.ledger import Ledger


def dump(farm: Farm, client: Client, ledger: Ledger) -> str:
    """All that the harness, the scheduler and the workers say."""
    looks = {
        "without an outcome": lambda: list(ledger.open.values()),
        "processes": lambda: [describe(process) for process in farm.marked()],
        "tasks of the scheduler": lambda: client.run_on_scheduler(_tasks),
        "statistics": lambda: sky.statistics(client),
        "call stacks": lambda: client.call_stack(keys=list(ledger.open)),
        "threads of the workers": lambda: client.run(_threads, on_error="return"),
    }
    return "\n".join(f"--- {name}\n{_look(look)}" for name, look in looks.items())


def _look(look: Any) -> str:
    try:
        value = look()
    except Exception as error:  # the rest is still to be seen
        return f"{error!r}"
    return pprint.pformat(value, width=110)


def _tasks(dask_scheduler: Any) -> list[str]:
    return [f"{key}: {task.state} on {task.processing_on}" for key, task in dask_scheduler.tasks.items()]


def _threads() -> list[str]:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return [
        f"{names.get(number)}: {' < '.join(_places(frame))}"
        for number, frame in sys._current_frames().items()
    ]


def _places(frame: Any) -> list[str]:
    stack = traceback.extract_stack(frame)[::-1]
    return [f"{place.name} {place.filename.rpartition('/')[2]}:{place.lineno}" for place in stack[:12]]

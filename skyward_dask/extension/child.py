"""Dask's side in a slot's process: a task runs there as it would in a thread of its worker."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from time import time
from typing import Any

import dask
from dask._task_spec import GraphNode
from distributed.utils import set_thread_state

from skyward_dask.extension.parcel import seal
from skyward_dask.extension.private import worker_context
from skyward_dask.extension.streams import refuse_generator
from skyward_dask.slots.child import Link


@dataclass(frozen=True, slots=True)
class Introduction:
    """What a child is told of its worker when it starts."""

    address: str
    name: Any
    id: str
    local_directory: str
    scheduler: str
    config: dict[str, Any]


class ShufflePlugin:
    """The worker's P2P plugin, as far as tasks use it; each call is carried out in the worker."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def add_partition(self, *args: Any, **kwargs: Any) -> Any:
        return self._link.call("shuffle.add_partition", *args, **kwargs)

    def get_output_partition(self, *args: Any, **kwargs: Any) -> Any:
        return self._link.call("shuffle.get_output_partition", *args, **kwargs)

    def barrier(self, *args: Any, **kwargs: Any) -> Any:
        return self._link.call("shuffle.barrier", *args, **kwargs)


class ChildWorker:
    """What ``get_worker()`` returns in a process slot: the worker, as far as a task can reach it.

    Attributes
    ----------
    address : str
    name
    id : str
    local_directory : str
    plugins : dict
        ``"shuffle"``, whose calls go to the worker.

    Notes
    -----
    What a task or an `initializer` sets on it stays in the slot's process.
    """

    def __init__(self, introduction: Introduction, link: Link) -> None:
        self.address = introduction.address
        self.name = introduction.name
        self.id = introduction.id
        self.local_directory = introduction.local_directory
        self.plugins = {"shuffle": ShufflePlugin(link)}

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"get_worker().{name} lives in the worker's own process, and this task runs in a process slot. "
            "Run the task with `with skyward_dask.options(executor='thread')` to reach it."
        )

    def __repr__(self) -> str:
        return f"<ChildWorker of {self.address}>"

    def _get_client(self, *args: Any, **kwargs: Any) -> Any:
        # a ValueError: dask.compute() in a task then computes here, with dask's own scheduler
        raise ValueError(
            "a task in a process slot has no client. Run it with "
            "`with skyward_dask.options(executor='thread')` to submit tasks from it."
        )


@dataclass(slots=True)
class _Here:
    """The façade of this process: there is one worker to a child."""

    worker: ChildWorker | None = None
    scheduler: str = ""


_here = _Here()


def start(argument: bytes, link: Link) -> None:
    """Introduce the worker; called once in each child, before its first import of the user's."""
    introduction: Introduction = pickle.loads(argument)
    dask.config.update(dask.config.config, introduction.config)
    _here.worker = ChildWorker(introduction, link)
    _here.scheduler = introduction.scheduler
    worker_context.set(_here.worker)


def run_task(
    spec: GraphNode, data: dict[Any, Any], key: Any, names: tuple[Any, ...], *attached: object
) -> Any:
    """Compute a task in this process: `attached` are more of its dependencies, of those names."""
    data.update(zip(names, attached, strict=True))
    del attached
    state = {"scheduler": _here.scheduler, "worker": _here.worker}
    with set_thread_state(start_time=time(), execution_state=state, key=key):
        return seal(refuse_generator(spec(data), key))

"""What `get_worker()` returns in a process slot: the worker, as far as a task can reach it from there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from distributed import Client
from distributed.security import Security
from distributed.worker_state_machine import SecedeEvent

from skyward_dask.extension.child.client import ChildClient
from skyward_dask.extension.child.secede import ChildExecutor
from skyward_dask.extension.child.transport import ChildTransport
from skyward_dask.extension.log_records import Levels
from skyward_dask.extension.private import task_of_thread
from skyward_dask.slots.child.link import Link


@dataclass(frozen=True, slots=True)
class Introduction:
    """What a child is told about its worker when it starts; Dask's configuration is pickled."""

    address: str
    name: Any
    id: str
    local_directory: str
    scheduler: str
    security: Security
    config: bytes
    levels: Levels


class ChildWorker:
    """The worker of a task in a process slot.

    Attributes
    ----------
    address, contact_address : str
    name
    id : str
    local_directory : str
    security : distributed.Security
    scheduler
        The scheduler: its ``address``, and its RPC calls over the child's own connection.
    loop : tornado.ioloop.IOLoop
        The loop of the child's client, in a thread of the child.
    executor
        Dask's own ``secede`` and ``rejoin`` act on it.
    data : Mapping
        What the worker holds; each access is a request, each value a copy.
    plugins : Mapping
        The worker's plugins; calls of their methods are carried out in the worker.

    Notes
    -----
    Attributes that a task or an `initializer` sets on it stay in the slot's process.
    """

    def __init__(self, introduction: Introduction, link: Link) -> None:
        self.address = self.contact_address = introduction.address
        self.name = introduction.name
        self.id = introduction.id
        self.local_directory = introduction.local_directory
        self.security = introduction.security
        self.executor = ChildExecutor(link)
        self.data = WorkerData(link)
        self.plugins = WorkerPlugins(link)
        self._link = link
        self.collections = ChildTransport(link)
        self._nested = ChildClient(introduction.scheduler, introduction.security)
        self.scheduler = SchedulerFacade(self._nested)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"get_worker().{name} lives in the worker's own process, and this task runs in a process slot. "
            "Run the task with `with skyward_dask.options(executor='thread')` to reach it."
        )

    def __repr__(self) -> str:
        return f"<ChildWorker of {self.address}>"

    # --- what Dask's client side asks of a worker ---------------------------------------------------------

    @property
    def loop(self) -> Any:
        return self._nested.loop

    io_loop = loop

    @property
    def client(self) -> Client:
        """The child's client, which is connected on first use."""
        return self._nested.get()

    @property
    def present_client(self) -> Client | None:
        """The child's client, if a task has asked for it already."""
        return self._nested.present

    @property
    def rpc(self) -> Any:
        """Connections to other workers and to the scheduler."""
        return self._nested.rpc

    def _get_client(self, timeout: Any = None) -> Client:
        """What ``get_client()`` and ``worker_client()`` call."""
        client = self._nested.get(timeout)
        self.log_event("worker-get-client", {"client": client.id, "timeout": timeout})
        return client

    def get_current_task(self) -> Any:
        """The key of the running task."""
        return task_of_thread.key

    def log_event(self, topic: Any, msg: Any) -> None:
        """Log an event, as the worker would."""
        self._link.call("log_event", topic, msg)

    def update_data(self, data: Mapping[Any, Any]) -> Any:
        """Put values into the worker's memory; `Client.scatter` does it."""
        return self._link.call("update_data", data)

    def handle_stimulus(self, *stimuli: Any) -> None:
        """Ignore the event that Dask's ``secede`` sends last: the worker has been told already."""
        for stimulus in stimuli:
            if not isinstance(stimulus, SecedeEvent):
                self.__getattr__("handle_stimulus")


class SchedulerFacade:
    """The scheduler as a worker sees it; it connects only when it is called."""

    def __init__(self, nested: ChildClient) -> None:
        self._nested = nested
        self.address = nested.scheduler

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._nested.rpc(self.address), name)


class WorkerData(Mapping[Any, Any]):
    """The worker's data, read-only."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def __getitem__(self, key: Any) -> Any:
        return self._link.call("values", [key])[key]

    def __contains__(self, key: object) -> bool:
        # Client.gather asks this for each key; between runs nobody could answer
        return self._link.is_open and key in self._link.call("keys")

    def __iter__(self) -> Iterator[Any]:
        return iter(self._link.call("keys"))

    def __len__(self) -> int:
        return len(self._link.call("keys"))


class WorkerPlugins(Mapping[str, Any]):
    """The worker's plugins by name."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._shuffle = ShuffleFacade(link)

    def __getitem__(self, name: str) -> Any:
        if name == "shuffle":  # each P2P task asks for it, and it always exists
            return self._shuffle
        if name not in self._link.call("plugins"):
            raise KeyError(name)
        return PluginFacade(self._link, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._link.call("plugins"))

    def __len__(self) -> int:
        return len(self._link.call("plugins"))


class ShuffleFacade:
    """The worker's P2P plugin, as far as tasks use it; each call is carried out in the worker."""

    def __init__(self, link: Link) -> None:
        self.add_partition = partial(link.call, "shuffle", "add_partition")
        self.get_output_partition = partial(link.call, "shuffle", "get_output_partition")
        self.barrier = partial(link.call, "shuffle", "barrier")


class PluginFacade:
    """A plugin in the worker: its methods run there, its other attributes are copies."""

    def __init__(self, link: Link, name: str) -> None:
        self._link = link
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        is_method, value = self._link.call("plugin", self._name, attribute)
        method: Callable[..., Any] = partial(self._link.call, "call_plugin", self._name, attribute)
        return method if is_method else value

"""The requests that a task in a child can make to its worker, and how the worker carries them out.

```
 child                                   worker's loop
 Link.call(name, …) ── Ask ──────▶ Requests.serve(name, …) ── at once
                                                           ├─ later: a future
                                                           └─ in a thread (P2P, plugins): a future
```
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, Future
from contextvars import copy_context
from functools import partial
from typing import Any

import distributed
from distributed import Worker as DaskWorker
from distributed.client import futures_of
from distributed.metrics import time

from skyward_dask.errors import InstallError
from skyward_dask.extension import private
from skyward_dask.extension.collections.worker_collections import WorkerCollections
from skyward_dask.extension.log_records import handle
from skyward_dask.extension.registration import Nodes
from skyward_dask.extension.streams.places import Ticket
from skyward_dask.extension.task_run import TaskRun
from skyward_dask.extension.worker.child_reading import ChildReadings
from skyward_dask.extension.worker.child_stream import ChildProducer
from skyward_dask.extension.worker.profile import add_samples
from skyward_dask.extension.worker.scheduler_link import nodes
from skyward_dask.extension.worker.streams import WorkerStreams
from skyward_dask.shared.asks import Ask, Pending, Spec

#: The methods of its worker's P2P plugin that a task can call.
_SHUFFLE_CALLS = frozenset({"add_partition", "barrier", "get_output_partition"})


class Requests:
    """The requests of one run.

    Parameters
    ----------
    worker : distributed.Worker
    run : TaskRun
    threads : concurrent.futures.Executor
        For calls that may block.
    streams : WorkerStreams

    Attributes
    ----------
    context : contextvars.Context
        The task's own: its metrics go to whoever measures it.
    shuffled : bool
        Whether the task was a part of a P2P shuffle.
    producer : ChildProducer or None
        Has the child step the task's generator, once the task has turned out to yield.
    """

    def __init__(self, worker: DaskWorker, run: TaskRun, threads: Executor, streams: WorkerStreams) -> None:
        self._run, self._threads = run, threads
        self._readings = ChildReadings(streams)
        self.producer: ChildProducer | None = None
        self._begun = time()
        self.context = copy_context()
        self.shuffled = False
        self._worker = worker
        self._held: list[distributed.Future[Any]] = []
        self._asked = False
        self._asks: dict[tuple[str, int], Pending] = {}

    def serve(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Carry out one request; see `skyward_dask.slots.runs.Request`."""
        if name not in _REQUESTS:
            raise InstallError(f"a task asked its worker for {name!r}, which it doesn't offer")
        return _REQUESTS[name](self, *args, **kwargs)

    # --- the slot ------------------------------------------------------------------------------------

    def secede(self) -> None:
        """Continue outside the slot, as with Dask's own secede.

        A run that is repeated, because its child's template ended, may have seceded before. A task that
        secedes twice in one run gets a KeyError in the child.
        """
        pool, run = self._run.pool, self._run.run
        if pool is not None and run is not None:
            if not self._run.is_stream:  # otherwise its task is finished
                private.secede(self._worker, self._run.key, self._begun)
            pool.secede(run)

    def rejoin(self) -> Any:
        """Wait for a free slot."""
        pool, run = self._run.pool, self._run.run
        return pool.rejoin(run) if pool is not None and run is not None else None

    def again(self) -> None:
        """The run is repeated in another child: give back what it held in the lost one."""
        self.end()
        if self._asked:
            WorkerCollections.of(self._worker).renew(self._run.key)

    # --- streams -------------------------------------------------------------------------------------

    def stream_opened(self) -> Any:
        """The task has a generator; the answer comes when there is a reader."""
        assert self.producer is not None
        return self.producer.opened()

    def stream_wait(self, items: int, is_held: bool) -> Any:
        """The generator waits for its reader."""
        assert self.producer is not None
        return self.producer.waits(items, is_held)

    def stream_read(self, number: int, ticket: Ticket, may_rest: bool) -> Any:
        """The task waits for another stream's items."""
        assert self._run.pool is not None and self._run.run is not None
        answer = self._readings.read(self._run.pool, self._run.run, number, ticket, may_rest)
        if may_rest and not self._run.is_stream and not answer.done():
            slots, key = WorkerStreams.of(self._worker).slots, self._run.key
            slots.wait(key)
            answer.add_done_callback(lambda _: slots.go_on(key))
        return answer

    def stream_close(self, number: int, ticket: Ticket | None) -> None:
        self._readings.close(number, ticket)

    # --- collections ---------------------------------------------------------------------------------

    def collection(self, spec: Spec, ask: Ask, call_id: tuple[str, int]) -> Pending:
        """Send a request to a collection on behalf of the run."""
        self._asked = True
        collections = WorkerCollections.of(self._worker)
        caller = collections.caller_of(self._run, self._run.slot)
        pending = collections.switchboard.begin(spec, ask, caller)
        if ask.binds:
            self._asks[call_id] = pending
            pending.add_done_callback(partial(self._forget_failed, call_id))
        return pending

    def _forget_failed(self, call_id: tuple[str, int], pending: Future[Any]) -> None:
        if pending.exception() is not None:
            self._asks.pop(call_id, None)

    def took(self, call_id: tuple[str, int]) -> None:
        """The task has received the answer."""
        if (pending := self._asks.pop(call_id, None)) is not None:
            WorkerCollections.of(self._worker).switchboard.took(pending)

    def withdraw(self, call_id: tuple[str, int], expired: bool) -> None:
        """The task gives up a call; if the call has timed out, the task still takes an answer on its way."""
        pending = self._asks.get(call_id) if expired else self._asks.pop(call_id, None)
        if pending is not None:
            WorkerCollections.of(self._worker).switchboard.withdraw(pending, expired)

    def end(self) -> None:
        """The child has died, or has ended its run: give back what was on its way to it."""
        self._readings.end()
        for call_id in reversed(list(self._asks)):
            self.withdraw(call_id, expired=False)

    def destroy_collection(self, spec: Spec) -> Future[None]:
        return WorkerCollections.of(self._worker).destroy(spec)

    # --- what the child reports --------------------------------------------------------------------

    def profile(self, samples: dict[str, Any] | None) -> None:
        if samples:
            add_samples(self._worker, self._run.key, samples)

    def log(self, values: dict[str, Any], is_chosen: bool) -> None:
        handle(values, is_chosen)

    # --- the cluster ---------------------------------------------------------------------------------

    def instance(self) -> asyncio.Future[tuple[int | None, Nodes]]:
        """The task's slot, and the nodes of the cluster."""
        return asyncio.ensure_future(self._instance())

    async def _instance(self) -> tuple[int | None, Nodes]:
        run = self._run.run
        slot = self._run.slot if run is not None and run.slotted else None  # it may have seceded
        return slot, await nodes(self._worker)

    # --- the worker ----------------------------------------------------------------------------------

    def log_event(self, topic: Any, message: Any) -> None:
        self._worker.log_event(topic, message)

    def shuffle(self, call: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the P2P plugin for one of its tasks; it may wait for the disk."""
        if call not in _SHUFFLE_CALLS:
            raise InstallError(f"a task asked P2P in its worker for {call!r}, which it doesn't offer")
        self.shuffled = True
        return self._in_thread(getattr(self._worker.plugins["shuffle"], call), *args, **kwargs)

    def plugin(self, name: str, attribute: str) -> tuple[bool, Any]:
        """Whether an attribute of a plugin can be called; if it can't, its value."""
        value = getattr(self._worker.plugins[name], attribute)
        return (True, None) if callable(value) else (False, value)

    def call_plugin(self, plugin: str, method: str, *args: Any, **kwargs: Any) -> Any:
        return self._in_thread(getattr(self._worker.plugins[plugin], method), *args, **kwargs)

    def plugins(self) -> list[str]:
        return list(self._worker.plugins)

    # --- its data ----------------------------------------------------------------------------------------

    def keys(self) -> list[Any]:
        return list(self._worker.data)

    def values(self, keys: Iterable[Any]) -> dict[Any, Any]:
        """The values of those of the keys that the worker has."""
        data = self._worker.data
        return {key: data[key] for key in keys if key in data}

    def update_data(self, data: Mapping[Any, Any]) -> Any:
        return self._worker.update_data(dict(data))

    def _in_thread(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Future[Any]:
        """Call a function that may block, in a thread that Dask takes for the task's."""

        def call() -> Any:
            with private.task_thread(self._worker, self._run.key):
                return function(*args, **kwargs)

        return self._threads.submit(self.context.copy().run, call)

    # --- futures in results ----------------------------------------------------------------------------

    def hold(self, keys: Iterable[Any]) -> Future[str]:
        """Have the worker's client want these keys, which are in the run's result; returns its id."""
        return self._in_thread(self._hold, list(keys))

    def _hold(self, keys: list[Any]) -> str:
        client = distributed.get_client()
        self._held += [distributed.Future(key, client) for key in keys]
        return str(client.id)

    def bind(self, result: Any) -> None:
        """Make the futures in a result the worker's own: they live as long as the result."""
        if self._held:
            for future in futures_of(result):
                future.bind_client(self._held[0].client)


_REQUESTS: Mapping[str, Callable[..., Any]] = {
    "secede": Requests.secede,
    "rejoin": Requests.rejoin,
    "instance": Requests.instance,
    "log_event": Requests.log_event,
    "shuffle": Requests.shuffle,
    "plugin": Requests.plugin,
    "call_plugin": Requests.call_plugin,
    "plugins": Requests.plugins,
    "keys": Requests.keys,
    "values": Requests.values,
    "update_data": Requests.update_data,
    "hold": Requests.hold,
    "profile": Requests.profile,
    "log": Requests.log,
    "collection": Requests.collection,
    "took": Requests.took,
    "withdraw": Requests.withdraw,
    "destroy_collection": Requests.destroy_collection,
    "stream_opened": Requests.stream_opened,
    "stream_wait": Requests.stream_wait,
    "stream_read": Requests.stream_read,
    "stream_close": Requests.stream_close,
}

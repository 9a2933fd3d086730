"""What a task in a child may ask its worker for, and how the worker does it.

```
 child                                   worker, in the thread that waits for the run
 Link.call(name, …) ── REQUEST ──▶ Requests.serve(name, …) ── its own work at once
                                                           └─ the loop's work: a Future, answered later
```

The slot's thread must hear of its child's death at any time: it carries out what takes no time, as
Dask's own secede, and leaves what waits to the worker's loop.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any

import distributed
from distributed import Worker as DaskWorker
from distributed.client import futures_of
from distributed.metrics import context_meter
from distributed.threadpoolexecutor import thread_state

from skyward_dask.errors import InstallError
from skyward_dask.extension.attending import Attendant
from skyward_dask.extension.records import handle
from skyward_dask.extension.running import TaskRun
from skyward_dask.shared.asks import Ask, Pending, Spec

#: What a task may ask of its worker's P2P plugin.
_SHUFFLE_CALLS = frozenset({"add_partition", "barrier", "get_output_partition"})


class Requests:
    """The requests of one run.

    Parameters
    ----------
    worker : distributed.Worker
    run : TaskRun
    on_profile : callable
        Takes what the child has sampled of the task.

    Attributes
    ----------
    shuffled : bool
        Whether the task was a part of a P2P shuffle.
    """

    def __init__(
        self, worker: DaskWorker, run: TaskRun, on_profile: Callable[[dict[str, Any]], None]
    ) -> None:
        self._run = run
        self._on_profile = on_profile
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
        """Dask's own secede, in the thread that it is about."""
        # A run that is repeated, because its child's template ended, has left before; a task that secedes
        # twice in one run gets its KeyError in the child.
        if threading.current_thread() in thread_state.executor._threads:
            distributed.secede()
        self._run.secede()

    def rejoin(self) -> Future[None]:
        """Dask's own rejoin, but that nobody waits for it here."""
        joined: Future[None] = Future()
        executor = thread_state.executor
        with executor._rejoin_lock:
            executor._rejoin_list.append((threading.current_thread(), _Joined(joined)))
        executor.submit(_wake)
        thread_state.proceed = True
        return joined

    def again(self) -> None:
        """The run goes to another child: what it held in the lost one is given back."""
        self.end()
        if self._asked:
            Attendant.of(self._worker).renew(self._run.key)

    # --- collections ---------------------------------------------------------------------------------

    def collection(self, spec: Spec, ask: Ask, call_id: tuple[str, int]) -> Pending:
        """Ask a collection in the name of the run."""
        self._asked = True
        attendant = Attendant.of(self._worker)
        caller = attendant.caller_of(self._run, self._run.slot)
        pending = attendant.switchboard.begin(spec, ask, caller, call_id)
        if ask.binds:
            self._asks[call_id] = pending
            pending.add_done_callback(self._forget_failed)
        return pending

    def _forget_failed(self, pending: Future[Any]) -> None:
        assert isinstance(pending, Pending)
        if pending.exception() is not None:
            self._asks.pop(pending.id, None)

    def took(self, call_id: tuple[str, int]) -> None:
        """The task has the answer."""
        if (pending := self._asks.pop(call_id, None)) is not None:
            Attendant.of(self._worker).switchboard.took(pending)

    def withdraw(self, call_id: tuple[str, int], expired: bool) -> None:
        """The task gives a call up; if its time-out is over, it takes an answer that is on its way."""
        pending = self._asks.get(call_id) if expired else self._asks.pop(call_id, None)
        if pending is not None:
            Attendant.of(self._worker).switchboard.withdraw(pending, expired)

    def end(self) -> None:
        """The child is gone, or has done its run: what was on its way there is given back."""
        for call_id in list(self._asks):
            self.withdraw(call_id, expired=False)

    def destroy_collection(self, spec: Spec) -> Future[None]:
        return Attendant.of(self._worker).destroy(spec)

    # --- what the child has to tell --------------------------------------------------------------------

    def report(self, metrics: list[tuple[Any, float, str]], samples: dict[str, Any] | None) -> None:
        """What the child has measured becomes the task's, as if its thread had done it."""
        for label, value, unit in metrics:
            context_meter.digest_metric(label, value, unit)
        self.profile(samples)

    def profile(self, samples: dict[str, Any] | None) -> None:
        if samples:
            self._on_profile(samples)

    def log(self, values: dict[str, Any]) -> None:
        handle(values)

    # --- the worker ----------------------------------------------------------------------------------

    def log_event(self, topic: Any, message: Any) -> None:
        self._worker.log_event(topic, message)

    def shuffle(self, call: str, *args: Any, **kwargs: Any) -> Any:
        """What P2P's tasks ask of their plugin; it expects a task's thread, and may wait for the disk."""
        if call not in _SHUFFLE_CALLS:
            raise InstallError(f"a task asked P2P in its worker for {call!r}, which it doesn't offer")
        self.shuffled = True
        function: Callable[..., Any] = getattr(self._worker.plugins["shuffle"], call)
        return function(*args, **kwargs)

    def plugin(self, name: str, attribute: str) -> tuple[bool, Any]:
        """Whether an attribute of a plugin is to be called; if it isn't, its value."""
        value = getattr(self._worker.plugins[name], attribute)
        return (True, None) if callable(value) else (False, value)

    def call_plugin(self, plugin: str, method: str, *args: Any, **kwargs: Any) -> Any:
        return getattr(self._worker.plugins[plugin], method)(*args, **kwargs)

    def plugins(self) -> list[str]:
        return list(self._worker.plugins)

    # --- its data: on the loop, where all of Dask's own accesses are ------------------------------------

    def keys(self) -> Future[list[Any]]:
        return self._on_loop(lambda: list(self._worker.data))

    def values(self, keys: Iterable[Any]) -> Future[dict[Any, Any]]:
        """Those of the keys that the worker has, with their values."""
        data = self._worker.data
        return self._on_loop(lambda: {key: data[key] for key in keys if key in data})

    def update_data(self, data: Mapping[Any, Any]) -> Future[Any]:
        return self._on_loop(partial(self._worker.update_data, dict(data)))

    def _on_loop(self, function: Callable[[], Any]) -> Future[Any]:
        outcome: Future[Any] = Future()

        def run() -> None:
            try:
                outcome.set_result(function())
            except Exception as error:  # the task that asked gets it
                outcome.set_exception(error)

        self._worker.loop.add_callback(run)
        return outcome

    # --- futures in results ----------------------------------------------------------------------------

    def hold(self, keys: Iterable[Any]) -> str:
        """Have the worker want these keys, which are in the run's result; returns its client's id."""
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
}


class _Joined:
    """In the place of the `threading.Event` that a thread of Dask's sets when it makes room."""

    def __init__(self, outcome: Future[None]) -> None:
        self.set = partial(outcome.set_result, None)


def _wake() -> None:
    """Run by an idle thread, which then sees that another one wants to rejoin."""

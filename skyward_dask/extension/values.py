"""What a worker holds for its slots, and how tasks get it: by reference, closed, or as a view of their own.

```
 child's result ── take ──▶ worker.data: an array over shared memory, its form on the shelf
                                       : a list of many objects, as a closed parcel
 worker.data ── attach ──▶ a child: forms              own_views ──▶ a thread task: private views
             ── get_data ──▶ another worker, the client: the values themselves
```
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from typing import Any

from distributed import Worker as DaskWorker
from distributed.comm.core import Comm

from skyward_dask.errors import SerializationError, SkywardError
from skyward_dask.extension.memory import SharedMemory
from skyward_dask.extension.parcel import Foreign, Parcel
from skyward_dask.extension.routing import Place, Reason, RoutedTask
from skyward_dask.extension.shelf import may_have_buffers
from skyward_dask.slots.forms import Form
from skyward_dask.slots.pickling import unpicklable

#: Tasks that hand a value on as it is.
_PASSING = frozenset({Reason.ALIAS, Reason.DATA})


class Values:
    """A node's values.

    Parameters
    ----------
    worker : distributed.Worker
    memory : SharedMemory
    is_routing : callable
        Whether the node still has the worker: who takes it over doesn't know of parcels.

    Notes
    -----
    `attach`, `take` and `own_views` are called in slots' threads, the rest on the worker's loop.
    """

    def __init__(self, worker: DaskWorker, memory: SharedMemory, is_routing: Callable[[], bool]) -> None:
        self._worker = worker
        self._memory = memory
        self._is_routing = is_routing
        self._parcels: set[Any] = set()

    # --- to a child and back ---------------------------------------------------------------------------

    def attach(self, data: Mapping[Any, Any]) -> tuple[dict[Any, Any], dict[Any, Form]]:
        """A task's dependencies: small values, and forms of those that may be shared."""
        small, attached = {}, {}
        for key, value in data.items():
            if self._memory.is_large(key):
                attached[key] = self._form(key, value)
            else:
                small[key] = value
        return small, attached

    def _form(self, key: Any, value: object) -> Form:
        try:
            return self._memory.shelf.form(key, value)
        except SkywardError:
            raise
        except Exception as error:
            raise unpicklable([(f"the result of task {key!r}, an argument", value)], error) from error

    def take(self, key: Any, form: Form, type_in_slot: Callable[[Form], str]) -> Any:
        """The value of a result that came from a child.

        What can't be unpickled here stays closed, if `type_in_slot` can tell its type: then other tasks can
        have it.
        """
        try:
            value = form.load()
        except SerializationError as error:
            value = self._foreign(key, form, type_in_slot, error)
        if not isinstance(value, Parcel):
            if form.is_shared:
                self._memory.shelf.keep(key, value, form)
            return value
        if not self._is_routing():
            return _open_if_possible(value)
        self._parcels.add(key)
        return value

    def _foreign(
        self, key: Any, form: Form, type_in_slot: Callable[[Form], str], error: SerializationError
    ) -> Foreign:
        if not self._worker.address.startswith("inproc"):  # whose client would be handed the closed one
            with suppress(Exception):  # a slot's process can't unpickle it either: the error stands
                name = f"the result of task {key!r}, of type {type_in_slot(form)},"
                return Foreign(name, form.nbytes, form.views())
        raise error

    # --- to tasks of this process ------------------------------------------------------------------------

    def own_views(self, task: RoutedTask, data: Mapping[Any, Any], in_processes: bool) -> Mapping[Any, Any]:
        """The dependencies of a task that doesn't leave the worker: what slots share, it may write to."""
        if task.route.reason in _PASSING:
            return data
        # on the loop there is no time to copy anything
        shares = in_processes and task.route.place is Place.THREAD
        return {key: self._own_view(key, value, shares) for key, value in data.items()}

    def _own_view(self, key: Any, value: Any, shares: bool) -> Any:
        if isinstance(value, Parcel):
            return value.open()
        shelf = self._memory.shelf
        form = shelf.kept(key, value)
        if form is None and shares and self._memory.is_large(key) and may_have_buffers(value):
            with suppress(Exception):  # it can't be pickled: then no other slot computes with it
                form = shelf.form(key, value)
        return value if form is None or len(form.parts) == 1 else self._memory.own_view(form)

    # --- to others, and gone -----------------------------------------------------------------------------

    async def get_data(self, comm: Comm, keys: Collection[Any], **options: Any) -> Any:
        """As the worker's own; who asks from this process gets the object itself, and so no parcel."""
        if comm.peer_address.startswith("inproc"):
            self._open(self._parcels.intersection(keys))
        return await self._worker.get_data(comm, keys, **options)

    def forget(self, key: Any) -> None:
        """The worker doesn't hold the value any more."""
        self._memory.shelf.forget(key)
        self._parcels.discard(key)

    def open_all(self) -> None:
        """Hold plain values from now on."""
        self._open(set(self._parcels))

    def _open(self, keys: Iterable[Any]) -> None:
        data = self._worker.data
        for key in keys:
            if isinstance(value := data.get(key), Parcel):
                data[key] = _open_if_possible(value)
        self._parcels.difference_update(keys)


def _open_if_possible(parcel: Parcel) -> Any:
    with suppress(SerializationError):  # nobody here can have it; who fetches it sees the error
        return parcel.open()
    return parcel

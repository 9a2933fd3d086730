"""The values that a worker holds for its slots, which tasks get by reference, closed, or as private views.

```
 child's result ── take ──▶ worker.data: an array over shared memory, its form on the shelf
                                       : a list of many objects, as a closed parcel
 worker.data ── forms ───▶ a child                    own_views ──▶ a thread task: private views
             ── get_data ──▶ another worker, the client: the values themselves
```
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from itertools import islice
from typing import Any

from distributed import Worker as DaskWorker
from distributed.comm.core import Comm
from distributed.protocol.serialize import to_serialize

from skyward_dask.errors import SerializationError, SkywardError
from skyward_dask.extension.parcel import Foreign, Parcel
from skyward_dask.extension.streams.stream import Stream
from skyward_dask.extension.worker.routing import Place, Reason, Route
from skyward_dask.extension.worker.shared_memory import SharedMemory
from skyward_dask.slots.memory.forms import Form
from skyward_dask.slots.pickling import unpicklable

#: Why tasks run that pass a value on unchanged.
_PASSING = frozenset({Reason.ALIAS, Reason.DATA})
#: Builtin types whose instances pickle into the stream: there is nothing in them to share.
_PLAIN = (str, bytes, int, float, complex, bool, type(None), bytearray)
#: Number of a container's elements that are checked for buffers, and of all elements in it.
_LOOKS, _ALL_LOOKS = 100, 10_000


class Values:
    """A node's values.

    Parameters
    ----------
    worker : distributed.Worker
    memory : SharedMemory
    is_routing : callable
        Whether the node still routes the worker's tasks: whatever takes over after it doesn't know parcels.

    Notes
    -----
    `forms`, `take` and `own_views` may be called in any thread, the rest on the worker's loop.
    """

    def __init__(self, worker: DaskWorker, memory: SharedMemory, is_routing: Callable[[], bool]) -> None:
        self._worker = worker
        self._memory = memory
        self._is_routing = is_routing
        self._parcels: set[Any] = set()

    # --- to a child and back ---------------------------------------------------------------------------

    def split(self, data: Mapping[Any, Any]) -> tuple[dict[Any, Any], dict[Any, Any]]:
        """Split a task's dependencies into small values and those that are worth a form."""
        small: dict[Any, Any] = {}
        large: dict[Any, Any] = {}
        for key, value in data.items():
            (large if self._memory.is_large(key) else small)[key] = value
        return small, large

    def has_to_be_made(self, large: Mapping[Any, Any]) -> bool:
        """Whether any of these values has no form yet."""
        return any(self._memory.shelf.kept(key, value) is None for key, value in large.items())

    def forms(self, large: Mapping[Any, Any]) -> tuple[Form, ...]:
        """The forms of values, made where necessary."""
        return tuple(self._form(key, value) for key, value in large.items())

    def _form(self, key: Any, value: object) -> Form:
        try:
            return self._memory.shelf.form(key, value)
        except SkywardError:
            raise
        except BaseException as error:
            raise unpicklable([(f"the result of task {key!r}, an argument", value)], error) from error

    def take(self, key: Any, form: Form) -> Any:
        """The value of a result that came from a child; raises what `Form.load` raises."""
        value = form.load()
        if not isinstance(value, Parcel):
            if form.is_shared:
                self._memory.shelf.keep(key, value, form)
            return value
        return self._closed(key, value)

    def foreign(self, key: Any, form: Form, kind: str) -> Any:
        """Keep a result closed that can't be unpickled here: other tasks can still use it."""
        name = f"the result of task {key!r}, of type {kind},"
        return self._closed(key, Foreign(name, form.nbytes, form.views()))

    def _closed(self, key: Any, value: Parcel) -> Any:
        if not self._is_routing():
            return _open_if_possible(value)
        self._parcels.add(key)
        return value

    # --- to tasks of this process ------------------------------------------------------------------------

    def own_views(
        self, route: Route, key: Any, data: Mapping[Any, Any], in_processes: bool
    ) -> Mapping[Any, Any]:
        """The dependencies of a task that runs in the worker; it may write to those that slots share, too."""
        if route.reason in _PASSING:
            return {k: self._closed(key, v) if isinstance(v, Parcel) else v for k, v in data.items()}
        shares = in_processes and route.place is Place.THREAD
        return {key: self._own_view(key, value, shares) for key, value in data.items()}

    def _own_view(self, key: Any, value: Any, shares: bool) -> Any:
        if (given := given_to_task(value)) is not value:
            return given
        shelf = self._memory.shelf
        form = shelf.kept(key, value)
        if form is None and shares and self._memory.is_large(key) and _may_have_buffers(value):
            with suppress(SkywardError):  # it can't be pickled: then no other slot computes with it
                form = self._form(key, value)
        return value if form is None or len(form.parts) == 1 else self._memory.own_view(form)

    # --- to others, and released ------------------------------------------------------------------------

    async def get_data(
        self, comm: Comm, keys: Collection[Any], serializers: list[str] | None = None, **options: Any
    ) -> Any:
        """As the worker's own; a peer in this process gets the object itself, so it must not be a parcel.

        Dask passes the serializers that the peer accepts to handlers that have a parameter of that name.
        """
        if comm.peer_address.startswith("inproc"):
            self.open(keys)
            comm = Copying(comm)  # type: ignore[assignment]  # as far as Dask uses it
        return await self._worker.get_data(comm, keys, serializers=serializers, **options)

    def forget(self, key: Any) -> None:
        """Forget a value that the worker no longer holds."""
        self._memory.shelf.forget(key)
        self._parcels.discard(key)

    def open(self, keys: Iterable[Any]) -> None:
        """Replace parcels of these keys by plain values: a task that no slot runs is about to get them."""
        self._open(self._parcels.intersection(keys))

    def open_all(self) -> None:
        """Replace all parcels by plain values."""
        self._open(set(self._parcels))

    def _open(self, keys: Iterable[Any]) -> None:
        data = self._worker.data
        for key in keys:
            if isinstance(value := data.get(key), Parcel):
                data[key] = _open_if_possible(value)
        self._parcels.difference_update(keys)


class Copying:
    """A connection within a process, which carries objects as they are: each reader needs its own stream."""

    def __init__(self, comm: Comm) -> None:
        self._comm = comm

    def __getattr__(self, name: str) -> Any:
        return getattr(self._comm, name)

    async def write(self, message: Any, **options: Any) -> Any:
        values = message.get("data", {})
        streams = {
            key: to_serialize(v.data.copy()) for key, v in values.items() if isinstance(v.data, Stream)
        }
        if streams:
            message = {**message, "data": {**values, **streams}}
        return await self._comm.write(message, **options)


def given_to_task(value: Any) -> Any:
    """What a task of this process gets: a parcel's contents, an own end of a stream, or the value itself."""
    if isinstance(value, Parcel):
        return value.open()
    return value.copy() if isinstance(value, Stream) else value


def _open_if_possible(parcel: Parcel) -> Any:
    with suppress(SerializationError):  # it can't be opened here; whoever fetches it sees the error
        return parcel.open()
    return parcel


def _may_have_buffers(value: object) -> bool:
    """Whether a value may hold arrays: False for plain data, judging by its first elements.

    A container may hold itself, or the same one many times: so the number of looks is limited.
    """
    left = [value]
    for _ in range(_ALL_LOOKS):
        if not left:
            return False
        value = left.pop()
        if isinstance(value, dict):
            left += islice(value.values(), _LOOKS)
        elif isinstance(value, (list, tuple, set, frozenset)):
            left += islice(value, _LOOKS)
        elif not isinstance(value, _PLAIN):
            return True
    return False

"""`SkywardPlugin`: the message that tells a worker which slots to have."""

from __future__ import annotations

import logging
import pickle
from dataclasses import replace
from uuid import uuid4

import cloudpickle
from distributed import Status
from distributed import Worker as DaskWorker
from distributed.diagnostics.plugin import WorkerPlugin

from skyward_dask.arguments import takes_only
from skyward_dask.config import Worker, check_worker
from skyward_dask.errors import SerializationError
from skyward_dask.extension.private import is_registering
from skyward_dask.extension.worker.failed_setup import close_with_error
from skyward_dask.extension.worker.node import Node

logger = logging.getLogger(__name__)

NAME = "skyward"
#: Fields of a `Worker` that are, or may contain, the user's functions.
_FUNCTIONS = ("initializer", "env", "health_check")


class SkywardPlugin(WorkerPlugin):
    """Give workers the slots that `worker` describes.

    Parameters
    ----------
    worker : Worker, optional
        The configuration of each node; defaults to Dask's configuration (``skyward.worker``).

    Examples
    --------
    >>> client.register_plugin(SkywardPlugin(Worker(concurrency=4, executor="process")))  # doctest: +SKIP

    Notes
    -----
    The plugin is only a message: several workers of a process may share one object, and it may be set up
    again before it is torn down. A worker's state is in its `Node`.
    """

    name = NAME

    @takes_only("Slots are configured by a Worker: SkywardPlugin(Worker(executor='process')).")
    def __init__(self, worker: Worker | None = None) -> None:
        if worker is not None:
            check_worker(worker)
        given = Worker.from_config() if worker is None else worker
        # these stay pickled: the scheduler only reads the rest, and may lack the user's modules
        functions = {name: getattr(given, name) for name in _FUNCTIONS}
        self._functions = {name: _pickled(name, f) for name, f in functions.items() if f not in (None, {})}
        self._worker = replace(given, initializer=None, env={}, health_check=None)
        # tells two plugins with the same slots apart: the later one overrides a `resize` in between
        self._token = uuid4().hex

    @property
    def worker(self) -> Worker:
        """The configuration of each node."""
        return replace(self._worker, **{name: pickle.loads(value) for name, value in self._functions.items()})

    @property
    def concurrency(self) -> int | None:
        return self._worker.concurrency

    async def setup(self, worker: DaskWorker) -> None:
        """Have the worker's node adopt this configuration; if it can't, nothing changes."""
        node = Node.of(worker) or Node(worker)
        try:
            await node.adopt(self, self.worker)
        except BaseException as error:
            await node.refuse(self)
            if is_registering(worker):
                logger.exception("This worker can't set up its cluster's slots, and closes")
                # a paused worker runs no task before it closes; Dask ignores exceptions of `setup` here
                worker.status = Status.paused
                close_with_error(worker, error)
            raise

    def teardown(self, worker: DaskWorker) -> None:
        """Mark the node: it is dismantled unless a setup that follows at once adopts it."""
        if node := Node.of(worker):
            node.disown(self)


def _pickled(name: str, value: object) -> bytes:
    try:
        pickled: bytes = cloudpickle.dumps(value)
    except Exception as error:
        raise SerializationError(
            f"the worker's {name} can't be pickled: {error!r}. It may hold a lock, a connection or an open "
            "file: create such things inside the function."
        ) from error
    return pickled


class Removal(WorkerPlugin):
    """Takes the place of `SkywardPlugin` to give a worker its own executor back."""

    name = NAME

    async def setup(self, worker: DaskWorker) -> None:
        if node := Node.of(worker):
            await node.dismantle()
        worker.plugins.pop(NAME, None)

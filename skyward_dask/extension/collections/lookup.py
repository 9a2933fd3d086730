"""Finding a collection: a client or a worker asks the scheduler's directory."""

from __future__ import annotations

import pickle
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any

from tornado.ioloop import IOLoop

from skyward_dask.errors import CollectionLost, SkywardError
from skyward_dask.extension.collections.directory_messages import Destroy, Message, Open, ask
from skyward_dask.extension.registration import introduce
from skyward_dask.shared.asks import Route, Spec


class Unregistered(CollectionLost):
    """The scheduler doesn't know the worker or client that asks."""

    def __init__(self, party: str) -> None:
        super().__init__(party)

    def __str__(self) -> str:
        return (
            f"the scheduler has lost the connection to {self.args[0]}: what it held is released, and it has "
            "to connect again before it can use collections."
        )


async def find_at_scheduler(
    scheduler: Any, spec: Spec, party: str, client: str = "", is_direct: bool = False, key: str = ""
) -> Route:
    """Where a collection lives; it is made if there is none of that name.

    Parameters
    ----------
    scheduler
        A connection to the scheduler.
    party : str
        The party that will make the calls.
    client : str
        The client's id if the party is a client; empty for a worker.
    is_direct : bool
        Whether the client reaches homes itself.
    key : str
        Unless it is empty, only the collection that has this home is looked for, and none is made.
    """
    await introduce(scheduler)
    found: Route = await answered(scheduler, Open(pickle.dumps(spec), party, client, is_direct, key))
    return found


def destroyed(
    loop: IOLoop, reach: Callable[[], Awaitable[Any]], spec: Spec, then: Callable[[Spec], None]
) -> Future[None]:
    """Have a collection destroyed; from any thread.

    Parameters
    ----------
    reach : callable
        Gives a connection to the scheduler.
    then : callable
        Called before anybody learns that the collection is destroyed.
    """
    outcome: Future[None] = Future()

    async def destroy() -> None:
        try:
            scheduler = await reach()
            await introduce(scheduler)
            await answered(scheduler, Destroy(pickle.dumps(spec)))
        except Exception as error:  # the caller gets it
            outcome.set_exception(error if isinstance(error, SkywardError) else _unreachable(spec, error))
        else:
            then(spec)
            outcome.set_result(None)

    loop.add_callback(destroy)
    return outcome


def _unreachable(spec: Spec, cause: Exception) -> CollectionLost:
    error = CollectionLost(
        f"{spec.kind} {spec.name!r} can't be destroyed: the scheduler doesn't answer, or this process is "
        "closing."
    )
    error.__cause__ = cause
    return error


async def answered(scheduler: Any, message: Message) -> Any:
    """Ask the directory; raises the error in its answer, which Dask would log if the directory raised it."""
    went_well, value = pickle.loads(await ask(scheduler, message))
    if not went_well:
        raise value
    return value

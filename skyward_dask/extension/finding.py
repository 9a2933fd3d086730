"""Finding a collection: the question of a client or a worker to the scheduler's directory."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from tornado.ioloop import IOLoop

from skyward_dask.extension.introducing import introduce
from skyward_dask.shared.asks import Route, Spec


async def find_at_scheduler(scheduler: Any, spec: Spec, party: str) -> Route:
    """Where a collection lives; it is made if there is none of that name.

    Parameters
    ----------
    scheduler
        A connection to the scheduler.
    party : str
        The worker's address, or the client's id.
    """
    await introduce(scheduler)
    found: Route = await ask(scheduler.skyward_open, spec=pickle.dumps(spec), party=party)
    return found


def destroyed(loop: IOLoop, scheduler: Any, spec: Spec, then: Callable[[Spec], None]) -> Future[None]:
    """Have a collection destroyed; from any thread. `then` is called before anybody hears of it."""
    outcome: Future[None] = Future()

    async def destroy() -> None:
        try:
            await introduce(scheduler)
            await ask(scheduler.skyward_destroy, spec=pickle.dumps(spec))
        except Exception as error:  # the caller's to see
            outcome.set_exception(error)
        else:
            then(spec)
            outcome.set_result(None)

    loop.add_callback(destroy)
    return outcome


async def ask(operation: Any, **arguments: Any) -> Any:
    """Ask the directory; raises what it raised, which Dask would log as an error of the scheduler's."""
    went_well, value = pickle.loads(await operation(**arguments))
    if not went_well:
        raise value
    return value

"""Routes: where the collections that this process uses live, according to the directory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from skyward_dask.shared.asks import Route, Spec

#: Opens a collection: the directory's `open`, over a connection to the scheduler.
Opener = Callable[[Spec], Coroutine[Any, Any, Route]]


class Routes:
    """The routes that one process knows.

    Parameters
    ----------
    opener : callable

    Notes
    -----
    `get` and `forget` may be called in any thread, the rest only on the loop.
    """

    def __init__(self, opener: Opener) -> None:
        self._open = opener
        self._routes: dict[str, Route] = {}
        self._opening: dict[Spec, asyncio.Task[Route]] = {}

    def get(self, spec: Spec) -> Route | None:
        """The route to a collection, if it is known, and has this kind and these options."""
        route = self._routes.get(spec.name)
        return None if route is None or spec.differs(route.kind, route.options) else route

    async def find(self, spec: Spec) -> Route:
        """Open a collection; simultaneous callers share one question to the directory."""
        task = self._opening.get(spec)
        if task is None:
            task = self._opening[spec] = asyncio.ensure_future(self._open(spec))
            task.add_done_callback(lambda _: self._opening.pop(spec))
        route = self._routes[spec.name] = await asyncio.shield(task)
        return route

    def forget(self, spec: Spec, route: Route | None = None) -> None:
        """Forget a route: the collection isn't there, or was destroyed."""
        if route is None or self._routes.get(spec.name) is route:
            self._routes.pop(spec.name, None)

    def forget_worker(self, address: str) -> None:
        """Forget all routes to a worker, so that the directory is asked again."""
        for name, route in list(self._routes.items()):
            if any(worker == address for worker, _ in route.homes):
                self._routes.pop(name, None)

    def clear(self) -> None:
        self._routes.clear()

"""Routes: where the collections that this process uses live, according to the directory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

from skyward_dask.shared.asks import Route, Spec

#: Opens a collection: the directory's `open`, over a connection to the scheduler. Unless it is empty, the key
#: is that of one of its homes.
Opener = Callable[[Spec, str], Coroutine[Any, Any, Route]]


class Routes:
    """The routes that one process knows.

    Notes
    -----
    `get` and `forget` may be called in any thread, the rest only on the loop.
    """

    def __init__(self, opener: Opener) -> None:
        self._open = opener
        self._routes: dict[str, Route] = {}
        self._opening: dict[Spec, tuple[str, asyncio.Task[Route]]] = {}
        # the epoch that each home has at least
        self._epochs: dict[str, int] = {}

    def get(self, spec: Spec) -> Route | None:
        """The route to a collection, if it is known, and has this kind and these options."""
        route = self._routes.get(spec.name)
        return None if route is None or spec.differs(route.kind, route.options) else route

    async def find(self, spec: Spec, key: str = "") -> Route:
        """Open a collection; simultaneous callers share one question to the directory, and stay in line."""
        while True:
            asked, task = self._opening.get(spec) or self._ask(spec, key)
            if task.done():  # it is about to be dropped: waiting for it wouldn't let that happen
                asked, task = self._ask(spec, key)
            if asked != key:
                with suppress(Exception):  # whoever has asked gets it
                    await asyncio.shield(task)
                continue
            route = await asyncio.shield(task)
            if not self._is_old(route):
                self._routes[spec.name] = route
                return route

    def _ask(self, spec: Spec, key: str) -> tuple[str, asyncio.Task[Route]]:
        task = asyncio.ensure_future(self._open(spec, key))
        self._opening[spec] = key, task
        task.add_done_callback(partial(self._drop, spec))
        return key, task

    def _drop(self, spec: Spec, task: asyncio.Task[Route]) -> None:
        if (found := self._opening.get(spec)) is not None and found[1] is task:
            del self._opening[spec]

    def _is_old(self, route: Route) -> bool:
        """Whether the directory has said since that another worker may be the host."""
        epochs = zip(route.homes, route.epochs, strict=False)
        return any(epoch < self._epochs.get(key, 0) for (_, key), epoch in epochs)

    def fence(self, key: str, epoch: int) -> None:
        """Another worker may become the host of this home: forget routes to it."""
        self._epochs[key] = epoch
        for name, route in list(self._routes.items()):
            if any(found == key for _, found in route.homes):
                self._routes.pop(name, None)

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

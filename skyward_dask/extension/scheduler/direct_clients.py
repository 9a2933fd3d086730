"""Clients that reach homes themselves, and not through the scheduler (``direct_to_workers=True``)."""

from __future__ import annotations

import asyncio

from distributed import Scheduler

from skyward_dask.extension.collections.directory_messages import Fence, Fenced, as_operation, handler


class DirectClients:
    """Has these clients take no more answers from hosts that have been replaced."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        # what each client hasn't confirmed yet, by home and epoch
        self._clients: dict[str, dict[tuple[str, int], asyncio.Future[None]]] = {}
        scheduler.handlers[Fenced.op] = handler(Fenced, self._fenced)

    def add(self, client: str) -> None:
        self._clients.setdefault(client, {})

    def remove(self, client: str) -> None:
        """A client has left: nobody waits for it."""
        for asked in self._clients.pop(client, {}).values():
            asked.cancel()

    async def fence(self, message: Fence, patience: float) -> None:
        """Tell all of them, and wait until they have confirmed it or left, for some seconds at most."""
        loop, about = asyncio.get_running_loop(), (message.key, message.epoch)
        asked = {client: loop.create_future() for client in self._clients}
        for client, answer in asked.items():
            self._clients[client][about] = answer
            self._scheduler.client_send(client, as_operation(message))
        if asked:
            await asyncio.wait(asked.values(), timeout=patience)
        for client in asked.keys() & self._clients.keys():
            self._clients[client].pop(about, None)  # it may have left and come back

    def _fenced(self, message: Fenced) -> None:
        asked = self._clients.get(message.client, {}).get((message.key, message.epoch))
        if asked is not None and not asked.done():
            asked.set_result(None)

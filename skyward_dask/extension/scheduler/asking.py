"""Asks workers about collections, for some seconds or as long as they are in the cluster."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

from distributed import Scheduler

from skyward_dask.extension.collections.directory_messages import Message, ask

logger = logging.getLogger("distributed.scheduler.skyward")  # as in `seats`

#: Seconds for workers to answer, say that they take no more answers from an old host: busy ones take one or
#: two, and one that is stopped is not waited for.
ANSWER = 5.0
#: Seconds before a worker is asked again whose connection broke.
_PAUSE = 0.2


class Asking:
    """Asks workers.

    Parameters
    ----------
    scheduler : distributed.Scheduler
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    async def all(self, workers: Iterable[str], message: Message) -> list[Any]:
        """The answers of those of the workers that give one in time."""
        asked = [asyncio.ensure_future(self._once(worker, message)) for worker in workers]
        if not asked:
            return []
        done, late = await asyncio.wait(asked, timeout=ANSWER)
        for task in late:
            task.cancel()
        return [answer for task in done if (answer := task.result()) is not None]

    async def _once(self, worker: str, message: Message) -> Any:
        """The worker's answer; None if it gives none."""
        try:
            return await ask(self._scheduler.rpc(worker), message)
        except Exception:
            logger.debug("%s doesn't answer %s", worker, message, exc_info=True)
            return None

    async def insist(self, worker: str, message: Message) -> Any:
        """Ask a worker until it answers; None if it leaves the cluster, which is dealt with there."""
        while worker in self._scheduler.workers:
            try:
                return await ask(self._scheduler.rpc(worker), message)
            except OSError:  # the connection broke, or couldn't be made; the worker may be there all the same
                await asyncio.sleep(_PAUSE)
            except Exception:
                logger.exception("%s can't obey %s", worker, message)
                break
        return None

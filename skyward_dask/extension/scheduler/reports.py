"""What nodes have told of their slots: with Dask's heartbeats, and else when they are asked.

A heartbeat comes twice a second (`heartbeat-interval`; more rarely from hundreds of workers), and no report
is older. Who wants everything in it that the scheduler knows by itself asks for `up_to_date`: then a node is
asked if tasks are there, or if something has happened that its report can't have.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from distributed import Scheduler
from distributed.scheduler import WorkerState

_Report = dict[str, Any]


class Reports:
    """The scheduler's extension, in Dask's sense, to which the heartbeats of nodes lead.

    Parameters
    ----------
    scheduler : distributed.Scheduler

    Attributes
    ----------
    latest : dict of dict
        By worker's address.
    events : int
        How many events nodes have logged: starts, crashes, kills, …
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.latest: dict[str, _Report] = {}
        self.events = 0
        self._heard: dict[str, int] = {}
        self._known: dict[str, int] = {}

    def heartbeat(self, ws: WorkerState, report: _Report) -> None:
        """A heartbeat has come; called by Dask.

        A worker sends one when the one before it is answered. So it has everything that the scheduler knew as
        that one came, and not all of what has come since.
        """
        self.latest[ws.address] = report
        self._known[ws.address] = self._heard.get(ws.address, -1)
        self._heard[ws.address] = self._moment()

    def forget(self, worker: str) -> None:
        """What the worker has told is void: it is gone, or has other slots now."""
        for about in (self.latest, self._heard, self._known):
            about.pop(worker, None)

    async def up_to_date(self, nodes: Iterable[str]) -> dict[str, _Report]:
        """The reports of these nodes, with all that the scheduler knows of at this moment."""
        nodes, moment = list(nodes), self._moment()
        # an empty list would mean all workers to Dask
        if behind := [node for node in nodes if self._is_behind(node, moment)]:
            message = {"op": "skyward_statistics"}
            answers = await self._scheduler.broadcast(msg=message, workers=behind, on_error="return")
            for node in behind:
                self.forget(node)
                # one that is leaving may not answer, or no longer as a node
                if isinstance(answer := answers[node], dict) and "slots" in answer:
                    self.latest[node], self._known[node] = answer, moment
        return {node: self.latest[node] for node in nodes if self.latest.get(node)}

    def _is_behind(self, node: str, moment: int) -> bool:
        ws = self._scheduler.workers.get(node)
        return ws is None or bool(ws.processing) or self._known.get(node, -1) < moment

    def _moment(self) -> int:
        """Grows with each thing that happens."""
        return self._scheduler.transition_counter + self.events

"""Nodes' reports about their slots: with Dask's heartbeats, or when they are asked.

A heartbeat comes twice a second (`heartbeat-interval`; less often from hundreds of workers), and no report is
older than that. `up_to_date` returns reports that include everything that the scheduler itself knows: it asks
a node if tasks are there, or if something has happened that the node's last report can't include.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from distributed import Scheduler
from distributed.scheduler import WorkerState

_Report = dict[str, Any]


class Reports:
    """The scheduler's extension, in Dask's sense, that receives the heartbeats of nodes.

    Attributes
    ----------
    latest : dict of dict
        The last report of each node, by worker address.
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
        """Take the report of a heartbeat; called by Dask.

        A worker sends a heartbeat only after the previous one was answered. So its report includes everything
        that the scheduler knew when the previous one came, but not all that has happened since.
        """
        self.latest[ws.address] = report
        self._known[ws.address] = self._heard.get(ws.address, -1)
        self._heard[ws.address] = self._moment()

    def forget(self, worker: str) -> None:
        """Drop the worker's report: it has left, or has other slots now."""
        for about in (self.latest, self._heard, self._known):
            about.pop(worker, None)

    async def up_to_date(self, nodes: Iterable[str]) -> dict[str, _Report]:
        """The reports of these nodes, including everything that the scheduler knows at this moment."""
        nodes, moment = list(nodes), self._moment()
        # an empty list would mean all workers to Dask
        if behind := [node for node in nodes if self._is_behind(node, moment)]:
            message = {"op": "skyward_statistics"}
            answers = await self._scheduler.broadcast(msg=message, workers=behind, on_error="return")
            for node in behind:
                self.forget(node)
                # a worker that is leaving may not answer, or may no longer be a node
                if isinstance(answer := answers[node], dict) and "slots" in answer:
                    self.latest[node], self._known[node] = answer, moment
        return {node: self.latest[node] for node in nodes if self.latest.get(node)}

    def _is_behind(self, node: str, moment: int) -> bool:
        ws = self._scheduler.workers.get(node)
        return ws is None or bool(ws.processing) or self._known.get(node, -1) < moment

    def _moment(self) -> int:
        """A number that grows with each transition of a task and each event of a slot."""
        return self._scheduler.transition_counter + self.events

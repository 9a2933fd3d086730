"""The scheduler's side: it keeps slot counts correct, and carries out `install` so that it fails cleanly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distributed import Scheduler
from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.protocol.pickle import loads
from distributed.scheduler import WorkerState

from skyward_dask import __version__
from skyward_dask.extension.batching import Pace
from skyward_dask.extension.registration import NAME, NODE, ON_NODE, TOPIC, Nodes
from skyward_dask.extension.scheduler.answers import failure, looked, to_look
from skyward_dask.extension.scheduler.directory import Directory
from skyward_dask.extension.scheduler.output_relay import OutputRelay
from skyward_dask.extension.scheduler.pinned import fail_orphans
from skyward_dask.extension.scheduler.reports import Reports
from skyward_dask.extension.scheduler.retirement import Retirement
from skyward_dask.extension.scheduler.slot_counts import SlotCounts
from skyward_dask.extension.scheduler.slot_overrides import SlotOverrides
from skyward_dask.extension.scheduler.streams import SchedulerStreams


class SkywardSchedulerPlugin(SchedulerPlugin):
    """Keeps the scheduler's slot counts, and answers clients and nodes.

    Notes
    -----
    Installed by whoever comes first: a preload, `install`, or the first worker that has slots. The
    configuration for workers that join is Dask's own entry in ``scheduler.worker_plugins``.
    """

    name = NAME

    async def start(self, scheduler: Scheduler) -> None:
        self.attach(scheduler)

    def attach(self, scheduler: Scheduler) -> None:
        """Answer clients and nodes from now on."""
        self.scheduler = scheduler
        self.overrides = SlotOverrides(NAME)
        self._slots = SlotCounts(scheduler)
        self.directory = Directory(scheduler)
        self._retirement = Retirement(scheduler, self.directory)
        self._pace = Pace()
        self._nodes: set[str] = set()
        self.reports = Reports(scheduler)
        self._streams = SchedulerStreams(scheduler)
        self._relay = OutputRelay(scheduler, self._nodes)
        scheduler.extensions[NAME] = self.reports
        scheduler.handlers["skyward_resize"] = self.resize
        scheduler.handlers["skyward_told"] = self.slots_told
        scheduler.handlers["skyward_slots"] = self.take_slots
        scheduler.handlers["skyward_install"] = self.install
        scheduler.handlers["skyward_uninstall"] = self.uninstall
        scheduler.handlers["skyward_installed"] = self.installed
        scheduler.handlers["skyward_statistics"] = self.statistics
        scheduler.handlers["skyward_check"] = self.check
        scheduler.handlers["skyward_has_slots"] = self.has_slots
        scheduler.handlers["skyward_nodes"] = self.nodes

    # --- slots ----------------------------------------------------------------------------------------

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        """Set the slot count of a worker that joins, before anything is scheduled on it."""
        if scheduler.workers[worker].extra.get(NODE):
            self._note_node(worker, True)
        pickled = scheduler.worker_plugins.get(NAME)
        slots = self.overrides.slots_of(scheduler, scheduler.workers[worker].name)
        if slots is None and pickled:
            slots = loads(pickled).concurrency
        if slots:
            self._slots.set(scheduler.workers[worker], slots)

    def remove_worker(self, scheduler: Scheduler, worker: str, **kwargs: Any) -> None:
        """A worker has left, and with it the homes of collections that lived there, and its tasks."""
        self._nodes.discard(worker)
        self.reports.forget(worker)
        self._slots.forget(worker)
        self.directory.remove_worker(worker)
        fail_orphans(scheduler)
        self._streams.remove_worker(worker)

    def update_graph(
        self, scheduler: Scheduler, *, annotations: Mapping[str, Mapping[Any, Any]], **kwargs: Any
    ) -> None:
        """Tasks have come: one that is for a node alone may be too late."""
        if ON_NODE in annotations:
            scheduler.loop.add_callback(fail_orphans, scheduler)  # when Dask has found no worker for them

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        """A task has changed its state."""
        self._streams.transition(key, finish)

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        """A client has left: release what it held."""
        self.directory.remove_client(client)
        self._relay.remove_client(client)

    def log_event(self, topic: str, msg: Any) -> None:
        """Count the events of slots."""
        self.reports.events += topic == TOPIC

    async def before_close(self) -> None:
        """The scheduler ends, and with it all collections."""
        self.directory.close()

    def restart(self, scheduler: Scheduler) -> None:
        """The cluster restarts: its collections end."""
        self.directory.clear()

    def valid_workers_downscaling(
        self, scheduler: Scheduler, workers: list[WorkerState]
    ) -> list[WorkerState]:
        """Those of these workers that `adapt` may close."""
        return self._retirement.spare_hosts(workers)

    def take_slots(self, worker: str, slots: int, is_node: bool) -> None:
        """A worker reports how many slots it has now, and whether they are ours."""
        if worker in self.scheduler.workers:  # it may have left, and its count with it
            self.reports.forget(worker)
            self._note_node(worker, is_node)
            self._slots.set(self.scheduler.workers[worker], slots)

    def _note_node(self, worker: str, is_node: bool) -> None:
        (self._nodes.add if is_node else self._nodes.discard)(worker)
        (self._pace.hasten if is_node else self._pace.restore)(self.scheduler.stream_comms[worker])
        if is_node:
            self._relay.introduce(worker)

    async def slots_told(self, name: Any) -> int | None:
        """How many slots a worker should have according to `resize`; None if it wasn't resized."""
        return self.overrides.slots_of(self.scheduler, name)

    async def resize(self, slots: int, workers: list[str] | None) -> dict[str, str]:
        """Change slot counts; returns what went wrong, by worker. These workers keep their old count."""
        scheduler = self.scheduler
        chosen = [self._address(worker) for worker in workers or scheduler.workers]
        if missing := [worker for worker in chosen if worker not in scheduler.workers]:
            return dict.fromkeys(missing, "there is no such worker")
        without = [worker for worker in chosen if worker not in self._nodes]
        looked_at = await self._look(without)
        no_slots = "it has no skyward_dask slots: call install first"
        failures = {worker: found.get("reason", no_slots) for worker, found in looked_at.items()}
        nodes = [worker for worker in chosen if worker in self._nodes]
        answers = await self._broadcast(nodes, {"op": "skyward_resize", "slots": slots})
        failures |= {worker: failure(answer) for worker, answer in answers.items() if answer != "OK"}
        done = {a: scheduler.workers[a] for a in chosen if a in scheduler.workers and a not in failures}
        if done:
            self.overrides.remember(scheduler, slots, done if workers or failures else None)
        await self._slots.wait_told()
        return failures

    def _address(self, worker: str) -> str:
        """The address of a worker; text that is neither a worker's name nor an address stays as it is."""
        try:
            return self.scheduler.coerce_address(worker)
        except (ValueError, OSError):
            return worker

    # --- install and uninstall ----------------------------------------------------------------------

    async def install(self, plugin: bytes) -> dict[str, str]:
        """Install the plugin on every worker; returns what went wrong, by worker.

        If anything did, workers that join later get the old plugin.
        """
        plugins = self.scheduler.worker_plugins
        previous = plugins.get(NAME)
        plugins[NAME] = plugin
        failures = await self._add(plugin)
        if failures and previous is None:
            plugins.pop(NAME, None)
        elif failures and previous is not None:
            plugins[NAME] = previous
        return failures

    async def uninstall(self, removal: bytes) -> dict[str, str]:
        """Give every worker its own executor back; workers that join follow their own flags."""
        self.scheduler.worker_plugins.pop(NAME, None)
        failures = await self._add(removal)
        return {worker: text for worker, text in failures.items() if worker in self._nodes}

    async def installed(self) -> bytes | None:
        """The pickled plugin for workers that join, if there is one."""
        pickled: bytes | None = self.scheduler.worker_plugins.get(NAME)
        return pickled

    async def _add(self, plugin: bytes) -> dict[str, str]:
        message = {"op": "plugin-add", "plugin": plugin, "name": NAME}
        answers = await self._broadcast(list(self.scheduler.workers), message)
        await self._slots.wait_told()
        return {worker: text for worker, answer in answers.items() if (text := failure(answer))}

    async def has_slots(self) -> bool | None:
        """Whether any worker has slots of ours; None if there are no workers."""
        return bool(self._nodes) if self.scheduler.workers else None

    async def nodes(self) -> Nodes:
        """The address, the host and the slots of each worker, in the order in which they joined."""
        joined = map(self.scheduler.workers.__getitem__, self.scheduler.aliases.values())
        return [(ws.address, ws.host, self._slots.of(ws)) for ws in joined]

    # --- looking ------------------------------------------------------------------------------------

    async def statistics(self) -> dict[str, Any]:
        """The report of each node; workers without slots have none."""
        return await self.reports.up_to_date(self._nodes)

    async def check(self, timeout: float) -> dict[str, Any]:
        """What each worker says about its slots, and the version of the package here."""
        without = [worker for worker in self.scheduler.workers if worker not in self._nodes]
        workers = await self._ask({"op": "skyward_check", "timeout": timeout})
        return {"version": __version__, "workers": workers | await self._look(without)}

    async def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        answers = await self._broadcast(list(self._nodes), message)
        # a worker that is leaving may not answer, or may no longer be a node
        return {worker: a for worker, a in answers.items() if isinstance(a, dict) and "slots" in a}

    async def _look(self, without: list[str]) -> dict[str, Any]:
        """For workers without slots: their version of the package, or why they can't have slots."""
        answers = await self._broadcast(without, to_look())
        return {worker: looked(answer) for worker, answer in answers.items()}

    async def _broadcast(self, workers: list[str], message: dict[str, Any]) -> dict[str, Any]:
        if not workers:  # Dask would take it for all workers
            return {}
        answers: dict[str, Any] = await self.scheduler.broadcast(
            msg=message, workers=workers, on_error="return"
        )
        return answers


def attach(scheduler: Scheduler) -> None:
    """Install the scheduler's side, once; in the scheduler's process."""
    if NAME not in scheduler.plugins:
        plugin = SkywardSchedulerPlugin()
        plugin.attach(scheduler)
        scheduler.add_plugin(plugin)

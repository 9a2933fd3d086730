"""A worker's part in collections: the homes that live in it, the calls of its tasks, and which runs end.

```
 state machine ── transition ──▶ a run ends ── what it may hold ──▶ homes forget it
 directory ── Found, End ─▶ homes come and go
           ── Know, Gone ─▶ homes take a party's calls, or give back what its callers hold
```
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from itertools import count
from time import time
from typing import Any

from distributed import Worker as DaskWorker
from distributed.diagnostics.plugin import WorkerPlugin
from distributed.utils import sync

from skyward_dask.extension import private
from skyward_dask.extension.collections.directory_messages import (
    SIZES,
    End,
    Fence,
    Fill,
    Found,
    GiveWay,
    Gone,
    Know,
    Lead,
    Leave,
    Message,
    Report,
    ask,
    handler,
    standby_actor,
)
from skyward_dask.extension.collections.homes import Homes
from skyward_dask.extension.collections.links import Links, OnLoop
from skyward_dask.extension.collections.lookup import destroyed, find_at_scheduler
from skyward_dask.extension.collections.routes import Routes
from skyward_dask.extension.collections.standbys import Standbys
from skyward_dask.extension.collections.switchboard import Switchboard
from skyward_dask.extension.patches import Patches
from skyward_dask.extension.task_run import TaskRun, current
from skyward_dask.shared.asks import Spec
from skyward_dask.shared.events import Caller, Close, Forget
from skyward_dask.shared.home import Home
from skyward_dask.shared.standby import Standby

logger = logging.getLogger(__name__)

#: The plugin's name in `worker.plugins`, where the state machine finds it and calls `transition`.
NAME = "skyward-collections"
#: Seconds for copies to move from a worker that closes: a nanny gives it four, or eight after a signal.
_LEAVE = 3.0
_RUNNING = ("executing", "long-running")
#: The actor whose ``async def`` method runs in this context.
_acting: ContextVar[Any] = ContextVar("skyward_actor", default=None)
#: The id of the worker that carries out a task in this context, the task's key, and its run.
_executing: ContextVar[tuple[object, Any, str]] = ContextVar("skyward_executing", default=(None, None, ""))


class WorkerCollections(WorkerPlugin):
    """What one worker does for collections.

    Notes
    -----
    Created when a task of the worker first uses a collection, or when a collection is placed there.
    """

    name = NAME

    def __init__(self, worker: DaskWorker) -> None:
        self._worker = worker
        self._numbers = count(1)
        self._runs = {
            key: self._new_run(key) for key, ts in worker.state.tasks.items() if ts.state in _RUNNING
        }
        self._live = set(self._runs.values())
        self._streams: dict[int, str] = {}  # what the runs of tasks that are streams by now are called
        self._standbys = Standbys(worker.loop, partial(ask, worker.scheduler), self._place_standby)
        self._homes = Homes(self._standbys.news)
        self._routes = Routes(lambda spec, key: find_at_scheduler(worker.scheduler, spec, worker.id, key=key))
        self._links = Links(
            worker.address,
            self._homes,
            worker.rpc,
            OnLoop(worker.loop),
            on_lost=self._routes.forget_worker,
            on_copy=self._standbys.take,
        )
        self._standbys.homes, self._standbys.links = self._homes, self._links
        # the homes that are actors here, and the standbys, with their epochs, by the actors' keys
        self._actors: dict[str, str] = {}
        self._followers: dict[str, tuple[str, int]] = {}
        self.switchboard = Switchboard(worker.id, worker.loop, self._routes, self._links, self._is_live)
        self._execute_actor = worker.handlers["actor_execute"]
        self._patches = Patches()
        private.before_execute(self._patches, worker, self._executes)
        self._patches.entry(worker.handlers, "actor_execute", self._act)
        # these handlers stay as long as the worker lives: a message that comes late is no error
        worker.plugins[NAME] = self
        worker.handlers["skyward_wire"] = self._links.accept
        for kind, take in _ANSWERED.items():
            worker.handlers[kind.op] = handler(kind, partial(take, self))
        worker.stream_handlers[Gone.op] = handler(Gone, self._gone)

    @classmethod
    def of(cls, worker: DaskWorker) -> WorkerCollections:
        """The worker's own, which is created on first use; from any thread."""
        found = worker.plugins.get(NAME)
        if found is None:
            if threading.get_ident() != worker.thread_id:
                return sync(worker.loop, cls._of_on_loop, worker)
            found = cls(worker)
        assert isinstance(found, cls)
        return found

    @classmethod
    async def _of_on_loop(cls, worker: DaskWorker) -> WorkerCollections:
        return cls.of(worker)

    # --- who calls ---------------------------------------------------------------------------------------

    def caller(self) -> Caller:
        """The caller in this thread or coroutine; its `run` is empty if no run is known.

        Raises
        ------
        CancelledError
            The run isn't wanted any more, but continues in a thread, which can't be stopped.
        """
        if (run := current.get()) is not None:
            return self.caller_of(run)
        who, key, begun = _executing.get()
        if who == self._worker.id:
            return self._caller_for(key, begun=begun)
        actor = private.actor_in_this_thread(self._worker) or _acting.get()
        if actor is not None:
            return Caller(self._worker.id, f"actor {actor}", place=self._worker.address)
        # on a worker without slots of ours, a run that had begun before a collection was first used there
        key = getattr(private.task_of_thread, "key", None) or private.key_of_this_coroutine(self._runs)
        return Caller(self._worker.id, place=self._worker.address) if key is None else self._caller_for(key)

    def caller_of(self, run: TaskRun, slot: int | None = None) -> Caller:
        """The caller for a run of a task; raises as `caller` does."""
        if run.stopped:
            raise CancelledError(f"task {run.key!r} was cancelled")
        if not run.is_stream:
            return self._caller_for(run.key, slot)
        if (name := self._streams.get(id(run))) is None:
            name = self._streams[id(run)] = self._new_run(run.key)
            self._live.add(name)
        return Caller(self._worker.id, name, str(run.key), slot, self._worker.address)

    @staticmethod
    def end_stream(worker: DaskWorker, run: TaskRun) -> None:
        """A run that went on as a stream has ended: what it held is free."""
        found = worker.plugins.get(NAME)
        if isinstance(found, WorkerCollections) and (name := found._streams.pop(id(run), None)) is not None:
            found._end_run(name)

    def _caller_for(self, key: Any, slot: int | None = None, begun: str = "") -> Caller:
        run = self._runs.get(key)
        if run is None or run != (begun or run):
            raise CancelledError(f"task {key!r} has ended, or was cancelled")
        return Caller(self._worker.id, run, str(key), slot, self._worker.address)

    def _executes(self, key: Any) -> None:
        """Note the run in the task's context: a copy of the context, in any thread, stands for the run."""
        _executing.set((self._worker.id, key, self._runs.get(key, "")))

    async def _act(self, actor: Any = None, function: Any = None, **rest: Any) -> Any:
        """Dask's handler, in a context that knows which actor it is for."""
        _acting.set(actor)
        return await self._execute_actor(actor=actor, function=function, **rest)

    # --- runs and homes come and go ------------------------------------------------------------------------

    def _new_run(self, key: Any) -> str:
        return f"{key}#{next(self._numbers)}"

    def _is_live(self, run: str) -> bool:
        return run in self._live or not run or run.startswith("actor ")

    def renew(self, key: Any) -> None:
        """The run is repeated in another child: give back what it held in the lost one; from any thread."""
        run = self._runs.get(key)
        if run is not None:
            self._runs[key] = self._new_run(key)
            self._live.add(self._runs[key])
            self._worker.loop.add_callback(self._end_run, run)

    def _end_run(self, run: str) -> None:
        self._live.discard(run)
        self.switchboard.forget_run(run)

    def transition(self, key: Any, start: str, finish: str, **kwargs: Any) -> None:
        """A task has changed its state; called by the state machine."""
        if finish == "executing":
            self._runs[key] = self._new_run(key)
            self._live.add(self._runs[key])
        elif start in _RUNNING and finish not in _RUNNING:
            if (run := self._runs.pop(key, None)) is not None:
                self._end_run(run)
        elif start == "memory":
            self.switchboard.forget_run(f"actor {key}")
            self._close(self._actors.pop(key, ""))
            self._standbys.end(*self._followers.pop(key, ("", 0)))

    async def teardown(self, worker: DaskWorker) -> None:
        """The worker closes, and its homes end."""
        await self._move_away()
        self._patches.undo()
        reason = (
            f"the worker at {worker.address} is closing: the collections on it end, and its tasks can't "
            "reach others any more."
        )
        self._homes.end_all(Close(reason, time()))
        self._standbys.close()
        self.switchboard.close(reason)
        self._links.close()

    async def _move_away(self) -> None:
        """Have the copies here moved, if the worker closes by itself: a signal, its nanny."""
        stream = self._worker.batched_stream
        if not (self._actors or self._followers) or stream is None or stream.closed():
            return  # it has been retired, or the scheduler has ended
        with suppress(Exception):  # then a standby takes over as for a worker that is lost
            async with asyncio.timeout(_LEAVE):
                await ask(self._worker.scheduler, Leave(self._worker.address))

    def _found(self, message: Found) -> str:
        for key, kind, options in message.homes:
            self._place(key, key, Home(kind, options), 1)
        return "OK"

    def _place(
        self, key: str, actor: str, home: Home, epoch: int, standby: str = "", chosen: int = 0
    ) -> None:
        self._homes.add(key, home, epoch, standby, chosen)
        self._actors[actor] = key
        private.place_actor(self._worker, actor, home)
        self._worker.extensions[SIZES] = self

    def _place_standby(self, key: str, standby: Standby) -> None:
        actor = standby_actor(key, standby.epoch)
        self._followers[actor] = key, standby.epoch
        private.place_actor(self._worker, actor, standby)
        self._worker.extensions[SIZES] = self

    def heartbeat(self) -> dict[str, int]:
        """About how many bytes the copies here have, by the actors' keys; called by Dask."""
        try:
            homes, standbys = self._homes.nbytes(), self._standbys.nbytes()
            sizes = {actor: homes.get(key, 0) for actor, key in self._actors.items()}
            sizes |= {actor: standbys.get(found, 0) for actor, found in self._followers.items()}
            private.weigh_actors(self._worker, sizes)
        except Exception:  # otherwise Dask would close the worker, and its results would be lost
            logger.exception("The sizes of the collections of %s aren't reported", self._worker.address)
            return {}
        return sizes

    def _end(self, message: End) -> str:
        for key in message.keys:  # Dask releases the actors later
            self._standbys.end(key)
            self._close(key)
        return "OK"

    def _fill(self, message: Fill) -> bool:
        return self._homes.fill(message.key, message.epoch, message.worker, message.kept)

    def _fence(self, message: Fence) -> tuple[str, list[str]]:
        """Answers with this worker's party, and its runs that may hold something there."""
        if self._homes.depose(message.key, message.epoch):
            self._forget_actors(message.key)
        return self._worker.id, self.switchboard.fence(message.key, message.epoch)

    async def _give_way(self, message: GiveWay) -> bool:
        gave_way = await self._standbys.give_way(message.key, message.epoch, message.chosen)
        if gave_way:
            self._forget_actors(message.key)
        return gave_way

    def _forget_actors(self, home: str) -> None:
        """This home isn't here any more: it doesn't end when Dask releases what it was to it."""
        self._actors = {actor: key for actor, key in self._actors.items() if key != home}

    def _lead(self, message: Lead) -> str:
        if message.actor in self._actors:
            return "OK"  # the answer was lost
        home = self._standbys.promote(message.key, message.epoch)
        if home is None:
            return "its standby isn't in step"
        self._place(message.key, message.actor, home, message.epoch, message.standby, message.chosen)
        self._homes.keep_only(message.key, message.parties, message.runs)
        return "OK"

    def _close(self, key: Any) -> None:
        reason = "the collection was destroyed, or its cluster restarted."
        self._homes.end(key, Close(reason, time()))

    def _know(self, message: Know) -> str:
        self._homes.know(message.party)
        return "OK"

    def _gone(self, message: Gone) -> None:
        try:
            self._routes.forget_worker(message.worker)
            self._links.cut(message.worker)
            self._homes.forget(Forget(message.party, at=time()))
        except Exception:  # otherwise Dask would close the worker, and its results would be lost
            logger.exception("What %s held couldn't be released", message.worker or message.party)

    def destroy(self, spec: Spec) -> Future[None]:
        """End a collection; from any thread."""
        return destroyed(self._worker.loop, self._reach, spec, self.switchboard.destroyed)

    async def _reach(self) -> Any:
        return self._worker.scheduler

    def _report(self, message: Report) -> dict[str, dict[str, int]]:
        standbys = {key: {"standby_nbytes": size} for (key, _), size in self._standbys.nbytes().items()}
        return standbys | self._homes.statistics()


#: The messages of the directory that get an answer, and the methods that take them.
_ANSWERED: dict[type[Message], Callable[[WorkerCollections, Any], object]] = {
    Found: WorkerCollections._found,
    Fill: WorkerCollections._fill,
    Fence: WorkerCollections._fence,
    GiveWay: WorkerCollections._give_way,
    Lead: WorkerCollections._lead,
    End: WorkerCollections._end,
    Know: WorkerCollections._know,
    Report: WorkerCollections._report,
}

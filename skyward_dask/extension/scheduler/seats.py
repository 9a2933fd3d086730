"""Seats: which worker is the host of a home, and which one its standby. All that is decided is decided here.

Each decision has an epoch of its own (docs/internals.md has the states, the messages and the races).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import suppress
from time import monotonic
from typing import Any

from distributed import Scheduler
from distributed.scheduler import WorkerState

from skyward_dask.extension import private
from skyward_dask.extension.collections.directory_messages import (
    Fence,
    Fill,
    GiveWay,
    Join,
    Lead,
    Part,
    standby_actor,
)
from skyward_dask.extension.registration import TOPIC
from skyward_dask.extension.scheduler.asking import ANSWER, Asking
from skyward_dask.extension.scheduler.direct_clients import DirectClients
from skyward_dask.extension.scheduler.parties import Parties
from skyward_dask.extension.scheduler.placement import CLIENT, Placement
from skyward_dask.extension.scheduler.seat import Seat

#: A child of the scheduler's own logger: ``client.get_scheduler_logs()`` shows its records.
logger = logging.getLogger("distributed.scheduler.skyward")

#: Seconds between two looks for workers that could be standbys where there is none: nothing announces that a
#: worker is ready, or is no longer paused.
_LOOK = 0.2
#: Seconds for a standby to come in step before its host leaves.
_MOVE = 300.0
_TEXTS = {
    "in-step": "%s on %s has a standby on %s",
    "failover": "%s: its host was lost, and its standby on %s has taken over, in %.2f s",
    "move": "%s has moved to %s, in %.2f s",
}


class Seats:
    """The seats of all collections.

    Parameters
    ----------
    scheduler : distributed.Scheduler
    parties : Parties
    clients : DirectClients
    placement : Placement
    asking : Asking
    abandon : callable
        Has the scheduler take no more answers from a home, by its key.
    on_lost : callable
        Told of a seat whose standby could not take over.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        parties: Parties,
        clients: DirectClients,
        placement: Placement,
        asking: Asking,
        abandon: Callable[[str], None],
        on_lost: Callable[[Seat], None],
    ) -> None:
        self._scheduler, self._parties, self._placement = scheduler, parties, placement
        self._clients, self._asking = clients, asking
        self._abandon, self._on_lost = abandon, on_lost
        self._seats: dict[str, Seat] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    def add(self, seats: Iterable[Seat]) -> None:
        """Give new homes their standbys."""
        if not self._seats:
            self._spawn(self._complete())
        for seat in seats:
            self._seats[seat.key] = seat
            self._spawn(self._bring_up(seat))

    def remove(self, seats: Iterable[Seat]) -> None:
        """These homes have ended."""
        for seat in seats:
            self._seats.pop(seat.key, None)
            seat.change(lost=True)
            self._placement.release([seat.actor, *seat.followers])

    def heartbeat(self, ws: WorkerState, sizes: dict[str, int]) -> None:
        """A worker says how many bytes its copies have, by the actors' keys; called by Dask."""
        try:
            for actor, size in sizes.items():
                task = self._scheduler.tasks.get(actor)
                if task is not None and task in ws.actors:
                    task.set_nbytes(size)
        except Exception:  # otherwise the worker would get it, and close
            logger.exception("The sizes of the collections on %s can't be noted", ws.address)

    def close(self) -> None:
        """The scheduler ends: decide nothing any more."""
        for task in self._tasks:
            task.cancel()

    def _spawn(self, coroutine: Awaitable[Any]) -> asyncio.Task[Any]:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("A collection's standby couldn't be arranged", exc_info=error)

    def is_host(self, worker: str, key: str) -> bool:
        """Whether a home is at this worker, as far as has been decided."""
        seat = self._seats.get(key)
        return seat is not None and seat.host == worker

    # --- what hosts propose ------------------------------------------------------------------------------

    def join(self, message: Join) -> bool:
        """Note that a standby is in step; refused if its epoch has passed."""
        seat = self._seats.get(message.key)
        if seat is None or (seat.host, seat.epoch) != (message.worker, message.epoch):
            return False
        if not (joins := seat.successor or seat.standby):
            return False
        before = seat.followers
        seat.change(standby=joins, chosen=seat.epoch, successor="", is_in_step=True)
        self._placement.release([actor for actor in before if actor not in seat.followers])
        self._tell("in-step", seat)
        return True

    def part(self, message: Part) -> bool:
        """Find another standby, without which the host goes on; refused if another is the host."""
        seat = self._seats.get(message.key)
        if seat is None or seat.host != message.worker:
            return False
        if seat.standby and seat.chosen == message.epoch:
            self._spawn(self._bring_up(seat, {seat.standby}))
        elif seat.successor and seat.epoch == message.epoch:
            self._spawn(self._replace(seat, {seat.successor}))
        return True

    # --- standbys ----------------------------------------------------------------------------------------

    async def _bring_up(self, seat: Seat, without: Collection[str] = (), needed: bool = False) -> None:
        """Choose a standby, unless no other worker can be it, and have it filled."""
        wanted = needed or seat.replicas
        standby = self._placement.standby_for(seat.host, without) if wanted else ""
        if seat.lost or not (standby or seat.standby):
            return
        before, epoch = seat.followers, seat.epoch + 1
        seat.change(epoch=epoch, standby=standby, chosen=epoch, successor="", is_in_step=False)
        self._placement.release(before)
        if await self._fill(seat, standby):
            await self._bring_up(seat, {*without, standby}, needed)

    async def _replace(self, seat: Seat, without: Collection[str]) -> None:
        """Have another standby filled, if there is a worker for it; meanwhile the old one stays."""
        if not seat.is_in_step:
            await self._bring_up(seat, without)
            return
        successor = self._placement.standby_for(seat.host, {*without, seat.standby})
        if seat.lost or not (successor or seat.successor):
            return
        before = seat.followers[1:]
        seat.change(epoch=seat.epoch + 1, successor=successor)
        self._placement.release(before)
        if await self._fill(seat, successor, seat.chosen):
            await self._replace(seat, {*without, successor})

    async def _fill(self, seat: Seat, standby: str, kept: int = 0) -> bool:
        """Have a standby filled as has just been decided; returns whether another has to be chosen."""
        epoch = seat.epoch
        if standby:
            private.know_actor(self._scheduler, standby_actor(seat.key, epoch), standby, CLIENT)
        refuses = bool(standby) and await self._refuses(standby)
        if seat.epoch != epoch or refuses:
            return seat.epoch == epoch
        await self._asking.insist(seat.host, Fill(seat.key, epoch, standby, kept))
        return False

    async def _complete(self) -> None:
        """Give homes that have no standby one as soon as there is a worker for it."""
        while self._seats:
            await asyncio.sleep(_LOOK)
            for seat in list(self._seats.values()):
                if seat.replicas and not (seat.standby or seat.is_moving or seat.lost):
                    self._spawn(self._bring_up(seat))  # the others don't wait for it

    async def _refuses(self, standby: str) -> bool:
        """Whether a worker can't be a standby, or doesn't say so in time: a host may wait for one."""
        try:
            async with asyncio.timeout(ANSWER):
                return bool(await self._placement.invite(standby))
        except TimeoutError:
            return True

    # --- hosts -------------------------------------------------------------------------------------------

    def remove_worker(self, worker: str) -> list[Seat]:
        """A worker has left; returns the seats that are lost with it."""
        lost = []
        for seat in list(self._seats.values()):
            if seat.host == worker:
                if seat.is_in_step and self._placement.is_there(seat.standby):
                    self._spawn(self._take_over(seat, "failover"))
                else:
                    lost.append(seat)
            elif worker in (seat.standby, seat.successor):
                self._spawn(self._do_without(seat, {worker}))
        return lost

    async def _do_without(self, seat: Seat, workers: Collection[str]) -> None:
        """Find others for a standby and a successor that are lost, or leave."""
        while seat.is_moving and not seat.lost:  # there is a host, or soon will be, that has to know
            await seat.changed.wait()
        if seat.standby in workers:
            await self._bring_up(seat, workers)
        elif seat.successor in workers:
            await self._replace(seat, workers)

    async def _change_places(self, seat: Seat) -> bool:
        """Make the standby the host, and the host its standby; returns whether that was possible."""
        if not seat.replicas:
            await self._take_over(seat, "move")
            return True
        host, epoch = seat.host, seat.epoch + 1
        follower = standby_actor(seat.key, epoch)
        private.know_actor(self._scheduler, follower, host, CLIENT)
        seat.change(epoch=epoch, is_moving=True)
        gave_way = await self._asking.insist(host, GiveWay(seat.key, epoch, seat.chosen))
        if gave_way and seat.epoch == epoch and not seat.lost:
            await self._take_over(seat, "move", host)
            return True
        self._placement.release([follower])
        if seat.host == host:
            seat.change(is_moving=False)
        return False

    def _take_over(self, seat: Seat, why: str, standby: str = "") -> Awaitable[None]:
        """Decide now that the standby is the host; returns what makes it so.

        `standby`, if it isn't empty, has become the next one in the epoch that ends, and has all.
        """
        epoch, old, own = seat.epoch + 1, [seat.actor, *seat.followers], f"{seat.key}-{seat.epoch + 1}"
        seat.change(
            epoch=epoch, host=seat.standby, standby=standby, chosen=epoch - 1, successor="", actor=own
        )
        seat.change(is_in_step=bool(standby), is_moving=True)
        self._abandon(seat.key)
        return self._lead(seat, old, why)

    async def _lead(self, seat: Seat, old: list[str], why: str) -> None:
        begun, host, answer = monotonic(), seat.host, None
        runs = await self._fence(seat)
        if seat.host == host and not seat.lost and host in self._scheduler.workers:
            answer = await self._ask_to_lead(seat, runs)
        self._placement.release(old)
        if seat.lost or seat.host != host:  # it was destroyed meanwhile; or its new host was lost, too
            return
        if answer == "OK":
            seat.change(is_moving=False, moves=seat.moves + 1, took=monotonic() - begun)
            self._tell(why, seat)
            if not seat.standby:
                await self._bring_up(seat)
        elif seat.is_in_step and self._placement.is_there(seat.standby):
            await self._take_over(seat, "failover")
        else:
            self._on_lost(seat)

    async def _ask_to_lead(self, seat: Seat, runs: dict[str, list[str]]) -> Any:
        private.know_actor(self._scheduler, seat.actor, seat.host, CLIENT)
        parties = self._parties.all()
        lead = Lead(seat.key, seat.epoch, seat.actor, parties, runs, seat.standby, seat.chosen)
        answer = await self._asking.insist(seat.host, lead)
        self._parties.tell_of_gone(parties)  # it may have heard of those who have left before this
        return answer

    async def _fence(self, seat: Seat) -> dict[str, list[str]]:
        """Have nobody read at the old host any more; returns the live runs of each worker that answers."""
        fence = Fence(seat.key, seat.epoch)
        workers, _ = await asyncio.gather(
            self._asking.all(self._parties.present(), fence), self._clients.fence(fence, ANSWER)
        )
        return dict(workers)

    # --- workers that leave ------------------------------------------------------------------------------

    async def vacate(self, workers: Collection[str]) -> None:
        """Move all copies off these workers, as far as there is room elsewhere."""
        seats = list(self._seats.values())
        await asyncio.gather(*(self._move(seat, set(workers)) for seat in seats))
        # where there is no other worker, hosts go on alone: Dask retires no worker that has an actor
        await asyncio.gather(*(self._do_without(seat, workers) for seat in seats))

    async def _move(self, seat: Seat, workers: set[str]) -> None:
        """Move both copies of a home: another standby comes in step, is the host, and gets a new one."""
        tried: set[str] = set()  # each worker is filled once
        with suppress(TimeoutError):
            async with asyncio.timeout(_MOVE):
                while not seat.lost and workers & {seat.host, seat.standby}:
                    if not await self._step(seat, workers, tried):
                        return

    async def _step(self, seat: Seat, workers: set[str], tried: set[str]) -> bool:
        """Do what comes next, or wait for it; returns False if no other worker can take a copy."""
        workers = workers | self._placement.avoided  # two that leave would give a home to each other for ever
        if seat.is_moving or seat.successor or (seat.standby not in {*workers, ""} and not seat.is_in_step):
            await seat.changed.wait()
        elif seat.is_in_step and seat.standby not in workers:
            # it can't be left half done; if the host stays, that's because something has just been decided
            if not await asyncio.shield(self._spawn(self._change_places(seat))):
                await asyncio.sleep(_LOOK)
        else:
            without = workers | tried
            if seat.is_in_step:
                await self._replace(seat, without)
            else:
                await self._bring_up(seat, without, needed=seat.host in workers)
            tried |= {seat.successor, seat.standby} - workers
            return bool(seat.successor or seat.standby not in {*workers, ""})
        return True

    def _tell(self, event: str, seat: Seat) -> None:
        details = (seat.standby,) if event == "in-step" else (seat.took,)
        logger.info(_TEXTS[event], seat.name, seat.host, *details)
        told = {"action": event, "collection": seat.name, "host": seat.host, "standby": seat.standby}
        self._scheduler.log_event(TOPIC, told | ({} if event == "in-step" else {"seconds": seat.took}))

"""The standbys in this process, and the standbys elsewhere of the homes in this process.

```
 Homes ── on_news ──▶ Standbys ── Copy ──▶ Standbys ──▶ Standby, in another worker
       ◀─ confirmed ─          ◀─ Reply ──
                               ── Join, Part ──▶ directory
```
"""

from __future__ import annotations

import asyncio
import logging
import pickle
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from time import monotonic

from tornado.ioloop import IOLoop

from skyward_dask.extension.collections.directory_messages import Join, Part
from skyward_dask.extension.collections.homes import Homes
from skyward_dask.extension.collections.links import Links
from skyward_dask.settings import standby_timeout
from skyward_dask.shared.copying import Begin, Message
from skyward_dask.shared.home import Home
from skyward_dask.shared.standby import Standby
from skyward_dask.slots.aside import Tasks

logger = logging.getLogger(__name__)

#: Bytes per second that even a slow connection carries.
_SLOWEST = 20e6
#: Seconds after which the directory is asked again, if the connection broke.
_AGAIN = 0.2
TAKEN, REFUSED = b"1", b"0"


@dataclass(slots=True)
class _Lane:
    """What is under way to one standby in one epoch.

    Attributes
    ----------
    messages, bytes : int
        How many have no answer yet, and how long they are.
    heard, looked : float
        When the standby has last had nothing to say or has said something, and when that was looked at.
    """

    standby: str
    epoch: int
    messages: int = 0
    bytes: int = 0
    heard: float = 0.0
    looked: float = field(default_factory=monotonic)


class Standbys:
    """Copies homes to and fro, for one worker.

    Parameters
    ----------
    loop : tornado.ioloop.IOLoop
    propose : callable
        Sends the directory a message; returns whether it agrees.
    on_begin : callable
        Takes the key of a home, and its standby, which is new here.

    Notes
    -----
    `news` may be called in any thread, the rest only on the loop.
    """

    def __init__(
        self,
        loop: IOLoop,
        propose: Callable[[Join | Part], Awaitable[bool]],
        on_begin: Callable[[str, Standby], None],
    ) -> None:
        self._loop, self._propose, self._on_begin = loop, propose, on_begin
        self.homes: Homes
        self.links: Links
        self._standbys: dict[str, Standby] = {}
        self._lanes: dict[tuple[str, int], _Lane] = {}  # by home and epoch
        self._news: set[str] = set()
        self._proposals = Tasks()

    # --- standbys here -----------------------------------------------------------------------------------

    def take(self, key: str, data: bytes) -> bytes:
        """Take a message of the host; returns whether it was taken."""
        message: Message = pickle.loads(data)
        standby = self._standbys.get(key)
        if isinstance(message, Begin):
            self.homes.depose(key, message.epoch)  # this process may have had it before
            if key in self.homes or (standby is not None and standby.epoch >= message.epoch):
                return REFUSED
            self._begin(key, Standby.begin(message))
            return TAKEN
        return TAKEN if standby is not None and standby.take(message) else REFUSED

    def _begin(self, key: str, standby: Standby) -> None:
        self._standbys[key] = standby
        self._on_begin(key, standby)

    async def give_way(self, key: str, epoch: int, chosen: int) -> bool:
        """Have a home here become the standby of its standby; returns False if it stays the host."""
        told = asyncio.get_running_loop().create_future()
        if self.homes.give_way(key, epoch, chosen, partial(told.set_result, None)):
            await told
            if (home := self.homes.hand_over(key, epoch)) is not None:
                self._begin(key, Standby(home, epoch))
        standby = self._standbys.get(key)
        return standby is not None and standby.epoch == epoch

    def promote(self, key: str, epoch: int) -> Home | None:
        """The home that a standby has; None if it has no whole one."""
        standby = self._standbys.pop(key, None)
        return None if standby is None else standby.promote(epoch)

    def end(self, key: str, epoch: int | None = None) -> None:
        """This standby isn't needed any more; whichever there is of this home, if no epoch is given."""
        if (standby := self._standbys.get(key)) is not None and epoch in (None, standby.epoch):
            del self._standbys[key]

    def close(self) -> None:
        """The worker closes: propose nothing any more."""
        self._proposals.cancel()

    def nbytes(self) -> dict[tuple[str, int], int]:
        """About how many bytes each standby has, by home and epoch."""
        return {(key, standby.epoch): standby.nbytes for key, standby in self._standbys.items()}

    # --- standbys elsewhere ------------------------------------------------------------------------------

    def news(self, key: str) -> None:
        """A home may have something for its standby."""
        if key not in self._news:
            self._news.add(key)
            self._loop.add_callback(self._send, key)  # not at once: what has come with it goes with it

    def _send(self, key: str) -> None:
        self._news.discard(key)
        while (found := self.homes.next(key)) is not None:
            standby, message = found
            lane = self._lane(key, standby, message.epoch)
            data = pickle.dumps(message, protocol=5)
            lane.heard = lane.heard if lane.messages else monotonic()
            lane.messages, lane.bytes = lane.messages + 1, lane.bytes + len(data)
            self.links.copy(standby, key, data, partial(self._take_reply, key, lane, len(data)))

    def _lane(self, key: str, standby: str, epoch: int) -> _Lane:
        if (lane := self._lanes.get((key, epoch))) is None:
            lane = self._lanes[key, epoch] = _Lane(standby, epoch)
            self._watch(key, lane)
        return lane

    def _take_reply(self, key: str, lane: _Lane, size: int, reply: bytes | None) -> None:
        if (key, lane.epoch) not in self._lanes:
            return
        if reply != TAKEN:
            self._lost(key, lane, "refuses" if reply == REFUSED else "can't be reached")
            return
        lane.messages, lane.bytes, lane.heard = lane.messages - 1, lane.bytes - size, monotonic()
        is_in_step, told = self.homes.confirmed(key, lane.epoch)
        if is_in_step:
            self._proposals.spawn(self._join(key, lane.epoch))
        self._send(key)  # while callers are told, the standby takes the next message
        for tell, answer in told:
            tell(answer)

    def _watch(self, key: str, lane: _Lane) -> None:
        """Look from time to time whether the standby says anything."""
        if not self.homes.sends(key, lane.epoch):
            self._lanes.pop((key, lane.epoch), None)
            return
        now, patience = monotonic(), standby_timeout() + lane.bytes / _SLOWEST
        if now > lane.looked + patience:  # it was this process that stood still
            lane.heard = now
        if lane.messages and now > lane.heard + patience:
            self._lost(key, lane, "says nothing")
            return
        lane.looked = now
        self._loop.call_later(standby_timeout() / 4, self._watch, key, lane)

    def _lost(self, key: str, lane: _Lane, why: str) -> None:
        del self._lanes[key, lane.epoch]
        if self.homes.part(key, lane.epoch):
            logger.info("The standby of %s on %s %s", key, lane.standby, why)
            self._proposals.spawn(self._part(key, lane.epoch))

    async def _join(self, key: str, epoch: int) -> None:
        if await self._agrees(Join(key, epoch, self.links.address)):
            self.homes.granted(key, epoch)

    async def _part(self, key: str, epoch: int) -> None:
        if not await self._agrees(Part(key, epoch, self.links.address)):
            self.homes.depose(key)

    async def _agrees(self, proposal: Join | Part) -> bool:
        """Whether the directory agrees; it is asked until it answers, or the home isn't here any more."""
        while proposal.key in self.homes:
            try:
                return await self._propose(proposal)
            except Exception:  # the connection broke, or the scheduler has ended: then this worker closes
                logger.debug("The directory doesn't answer", exc_info=True)
                await asyncio.sleep(_AGAIN)
        return False

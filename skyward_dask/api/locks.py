"""A lock that tasks and clients of a cluster share."""

from __future__ import annotations

from dataclasses import dataclass

from skyward_dask.api.handles import Handle, Steps, both, checked_timeout, one, refuse_on_loop
from skyward_dask.errors import ConfigurationError
from skyward_dask.shared.asks import Ask
from skyward_dask.shared.events import Withdrawn


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock.

    Attributes
    ----------
    task : str or None
        The key of the task; None for a client or an actor.
    worker : str
        Its worker's address, or the client's id.
    slot : int or None
        The process slot it is running in.
    since : float
        Seconds since the epoch, by the clock of the lock's host.
    fence : int
        The number of this acquisition.
    """

    task: str | None
    worker: str
    slot: int | None
    since: float
    fence: int


class Lock(Handle):
    """A lock: see `lock`."""

    kind = "lock"

    def _acquire(self, blocking: bool = True, timeout: float = -1) -> Steps[bool]:
        """Acquire the lock; wait for it, first come, first served.

        Parameters
        ----------
        blocking : bool
            Whether to wait.
        timeout : float
            The most seconds to wait; -1 for no limit.

        Returns
        -------
        bool
            Whether the caller holds it now.
        """
        if not blocking:
            if timeout != -1:
                raise ConfigurationError("timeout must not be given with blocking=False, which doesn't wait.")
            return (yield Ask("acquire_nowait", binds=True)) is not None
        seconds = None if timeout == -1 else checked_timeout(timeout)
        try:
            yield Ask("acquire", binds=True, timeout=seconds)
        except Withdrawn:
            return False
        return True

    acquire, acquire_async = both(_acquire)

    def _release(self) -> Steps[None]:
        """Release the lock.

        Raises
        ------
        LockError
            The caller doesn't hold it.
        """
        yield Ask("release")

    release, release_async = both(_release)

    def _locked(self) -> Steps[bool]:
        """Whether somebody holds it."""
        return (yield Ask("holder", reads=True)) is not None

    locked, locked_async = both(_locked)

    def _holder(self) -> Steps[Holder | None]:
        """The holder; None if nobody holds it."""
        held = yield Ask("holder", reads=True)
        if held is None:
            return None
        caller = held.caller
        return Holder(caller.task, caller.place, caller.slot, held.since, held.fence)

    holder, holder_async = both(_holder)

    def _fence(self) -> Steps[int]:
        """The number of the last acquisition.

        It grows with each acquisition and is never used twice, whatever happens to the lock. Store it with
        what the lock guards, and refuse writes with a lower one.
        """
        return one(Ask("fence", reads=True))

    _get_fence, fence_async = both(_fence)

    @property
    def fence(self) -> int:
        """The number of the last acquisition, which grows; see `fence_async`."""
        return self._get_fence()

    def __enter__(self) -> Lock:
        refuse_on_loop(self, "with", "async with")
        self.acquire()
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    async def __aenter__(self) -> Lock:
        await self.acquire_async()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.release_async()

"""A barrier at which tasks and clients of a cluster meet."""

from __future__ import annotations

from skyward_dask.api.handles import Handle, Steps, both, checked_timeout, one
from skyward_dask.errors import BrokenBarrierError
from skyward_dask.shared.asks import Ask
from skyward_dask.shared.events import Withdrawn


class Barrier(Handle):
    """A barrier: see `barrier`."""

    kind = "barrier"

    def _wait(self, timeout: float | None = None) -> Steps[int]:
        """Wait until all parties have arrived, and return the arrival index, from 0.

        Raises
        ------
        BrokenBarrierError
            The barrier is broken, or breaks during the wait. It breaks for everybody when any party's
            `timeout` (in seconds) is over.
        """
        try:
            index: int = yield Ask("wait", binds=True, timeout=checked_timeout(timeout))
        except Withdrawn:
            raise BrokenBarrierError(
                f"not all parties of {self!r} arrived in {timeout} s: the barrier is broken for all until "
                "somebody calls reset()."
            ) from None
        return index

    wait, wait_async = both(_wait)

    def _parties(self) -> Steps[int]:
        """The number of parties that have to arrive."""
        return one(Ask("parties", reads=True))

    get_parties, parties_async = both(_parties)

    def _n_waiting(self) -> Steps[int]:
        """The number of parties that are waiting."""
        return one(Ask("n_waiting", reads=True))

    get_n_waiting, n_waiting_async = both(_n_waiting)

    def _broken(self) -> Steps[bool]:
        """Whether the barrier is broken."""
        return one(Ask("broken", reads=True))

    get_broken, broken_async = both(_broken)

    @property
    def parties(self) -> int:
        """The number of parties that have to arrive."""
        return self.get_parties()

    @property
    def n_waiting(self) -> int:
        """The number of parties that are waiting."""
        return self.get_n_waiting()

    @property
    def broken(self) -> bool:
        """Whether the barrier is broken."""
        return self.get_broken()

    def _abort(self) -> Steps[None]:
        """Break the barrier: those who wait, and those who arrive later, get `BrokenBarrierError`."""
        yield Ask("abort")

    abort, abort_async = both(_abort)

    def _reset(self) -> Steps[None]:
        """Restore the barrier: those who wait get `BrokenBarrierError`, and the next ones start afresh."""
        yield Ask("reset")

    reset, reset_async = both(_reset)

"""How soon messages between a scheduler and a node leave.

Dask gathers messages to a worker for 5 ms, and messages from it for 2 ms. A worker has only a few more
tasks under way than it has slots (`distributed.scheduler.worker-saturation`). So each slot waits for a batch
between two short tasks, and its core is idle meanwhile. A node that replaces N workers of one thread has
one stream instead of N, and would be slower than they are.

What a node of many slots reports can wait: it has other tasks meanwhile, and larger batches cost the
scheduler less. What it is given can't: larger batches of tasks keep its loop busy for longer.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

from distributed.batched import BatchedSend

#: Seconds for which messages are gathered: what a task costs at the scheduler, so that the messages of one
#: turn of its loop still leave together. (2,000 no-ops on two slots: 430 per second with Dask's own
#: intervals, 510 with half of them, 630 with this, 560 without any.)
INTERVAL = 0.0005
#: Seconds for which a node gathers messages, for each of its slots. (2,000 no-ops on 32 slots: 8 % more per
#: second with Dask's own interval than with the scheduler's.)
INTERVAL_PER_SLOT = INTERVAL / 2


class Pace:
    """Streams that have an interval of ours, and their original intervals.

    Notes
    -----
    Used only on the loop that the streams belong to.
    """

    def __init__(self) -> None:
        self._own: WeakKeyDictionary[BatchedSend, float] = WeakKeyDictionary()

    def hasten(self, stream: BatchedSend, interval: float = INTERVAL) -> None:
        """Have messages leave sooner, if they would be gathered for longer than `interval` seconds."""
        own = self._own.setdefault(stream, stream.interval)
        stream.interval = min(interval, own)

    def restore(self, stream: BatchedSend) -> None:
        """Give a stream its own interval back."""
        stream.interval = self._own.pop(stream, stream.interval)

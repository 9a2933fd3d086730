"""How much memory of its own a child has, with all that it started, and when to look again."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from skyward_dask.slots.trees import descendants

#: Bytes per second that a process may take at the most: huge pages touched for the first time (measured:
#: 10 GB/s, ordinary ones 2 GB/s). So a limit is overshot by little more than one look takes.
_FASTEST = 10e9
#: Seconds between two looks: no shorter, for a look costs 0.1 ms; no longer, for there may be several
#: processes that grow.
_SHORTEST, _LONGEST = 0.005, 0.1
_OWN = ("RssAnon:", "VmSwap:")


def own_memory(pid: int) -> int:
    """Bytes of anonymous and written pages of a process and of its descendants."""
    return sum(_own_pages(process) for process in (pid, *descendants(pid)))


def _own_pages(pid: int) -> int:
    with suppress(OSError, ValueError):  # it is gone, or there is no such file here
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(_OWN))
    return 0


def pause(limit: int, used: int) -> float:
    """Seconds that a process with so many bytes can't be over its limit for."""
    return min(_LONGEST, max(_SHORTEST, (limit - used) / _FASTEST))

"""How much memory of its own a child uses, with all that it started, and when to look again."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from skyward_dask.slots.trees import descendants

#: The most bytes per second that a process can take: huge pages touched for the first time (measured:
#: 10 GB/s, ordinary ones 2 GB/s). So a limit is exceeded by little more than what is taken during one look.
_FASTEST = 10e9
#: Seconds between two looks: no shorter, because a look costs 0.1 ms; no longer, because several processes
#: may grow at once.
_SHORTEST, _LONGEST = 0.005, 0.1
_OWN = ("RssAnon:", "VmSwap:")
_SHARED = "RssShmem:"
#: Bytes of shared pages from which we look whose they are: that costs a millisecond.
_LOOK_FROM = 1 << 20
#: A mapping's line in ``smaps``: its permissions, of which the last says whether others see what is written,
#: and what is mapped.
_MAPPING = re.compile(r"^[0-9a-f]+-[0-9a-f]+ ...(?P<kind>.) \S+ \S+ \d+ *(?P<name>.*)$", re.MULTILINE)
_PSS = re.compile(r"^Pss: +(\d+) kB$", re.MULTILINE)
#: The kernel's names for memory that has no file on a disk behind it.
_IN_MEMORY = ("/memfd:", "/dev/shm/", "/dev/zero", "/SYSV", "/run/shm/")
#: The pool's own mappings, whose pages belong to its worker: inputs, and results that are being written.
OURS = "/memfd:skyward-"


def own_memory(pid: int) -> int:
    """Bytes of anonymous and written pages of a process and of its descendants.

    Shared memory counts if it is mapped, each page once. What a task leaves in a file of /dev/shm without
    mapping it isn't counted, and neither are pages of the pool's segments.
    """
    return sum(_own_pages(process) for process in (pid, *descendants(pid)))


def _own_pages(pid: int) -> int:
    with suppress(OSError, ValueError):  # the process has ended, or there is no such file here
        found = {line.split()[0]: int(line.split()[1]) * 1024 for line in _status(pid) if line.endswith("kB")}
        own = sum(found.get(name, 0) for name in _OWN)
        return own + (_shared_pages(pid) if found.get(_SHARED, 0) >= _LOOK_FROM else 0)
    return 0


def _status(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/status").read_text().splitlines()


def _shared_pages(pid: int) -> int:
    """Bytes of shared memory that isn't the pool's; a page is divided among the processes that map it."""
    text = Path(f"/proc/{pid}/smaps").read_text()
    mappings = list(_MAPPING.finditer(text))
    ends = [mapping.start() for mapping in mappings[1:]] + [len(text)]
    total = 0
    for mapping, end in zip(mappings, ends, strict=True):
        name = mapping["name"]
        if mapping["kind"] == "s" and name.startswith(_IN_MEMORY) and not name.startswith(OURS):
            size = _PSS.search(text, mapping.end(), end)
            total += int(size[1]) * 1024 if size else 0
    return total


def pause(limit: int, used: int) -> float:
    """Seconds during which a process that now uses `used` bytes can't exceed its limit."""
    return min(_LONGEST, max(_SHORTEST, (limit - used) / _FASTEST))

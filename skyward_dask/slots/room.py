"""How much memory may still be had: the machine's and the control group's, whichever is less.

A memfd has no limit of its own, and pages that can't be had kill a process instead of failing a call: so one
asks before.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_OWN_GROUP = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")


def available() -> int | None:
    """Bytes that may still be had; None where nobody can tell."""
    return min(_limits(), default=None)


def _limits() -> Iterator[int]:
    if found := re.search(r"MemAvailable:\s+(\d+) kB", _read(_MEMINFO)):
        yield int(found[1]) * 1024
    for group in _groups():
        limit, used = _read(group / "memory.max").strip(), _read(group / "memory.current").strip()
        if limit.isdecimal() and used.isdecimal():
            yield int(limit) - int(used) + _reclaimable(group)


def _groups() -> Iterator[Path]:
    """The process's own control group and those above it (version 2)."""
    if found := re.search(r"^0::/(.*)$", _read(_OWN_GROUP), re.MULTILINE):
        group = _GROUPS / found[1]
        yield from (each for each in (group, *group.parents) if each.is_relative_to(_GROUPS))


def _reclaimable(group: Path) -> int:
    """Bytes of files' cached pages, which give way."""
    found = re.findall(r"^(?:in)?active_file (\d+)$", _read(group / "memory.stat"), re.MULTILINE)
    return sum(map(int, found))


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""

"""How much memory is still available: on the machine or in the control group, whichever is less.

A memfd has no limit of its own, and a lack of pages kills a process instead of failing a call: so we check
first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_OWN_GROUPS = Path("/proc/self/cgroup")


@dataclass(frozen=True, slots=True)
class _Hierarchy:
    """Where control groups say how much memory they may use, and how much they use.

    Attributes
    ----------
    own : Pattern
        Finds the process's own group in its list of them.
    root : Path
    limit, used : str
        Files of a group.
    cached : Pattern
        Finds the bytes of cached file pages, which can be reclaimed, in a group's ``memory.stat``.
    """

    own: re.Pattern[str]
    root: Path
    limit: str
    used: str
    cached: re.Pattern[str]

    def groups(self) -> Iterator[Path]:
        """The process's own group and those above it."""
        if found := self.own.search(_read(_OWN_GROUPS)):
            group = self.root / found[1]
            yield from (each for each in (group, *group.parents) if each.is_relative_to(self.root))

    def left(self, group: Path) -> int | None:
        """Bytes that a group may still use; None if it has no limit."""
        limit, used = _read(group / self.limit).strip(), _read(group / self.used).strip()
        if not (limit.isdecimal() and used.isdecimal()):
            return None
        return int(limit) - int(used) + sum(map(int, self.cached.findall(_read(group / "memory.stat"))))


_HIERARCHIES = (
    _Hierarchy(
        re.compile(r"^0::/(.*)$", re.MULTILINE),
        Path("/sys/fs/cgroup"),
        "memory.max",
        "memory.current",
        re.compile(r"^(?:in)?active_file (\d+)$", re.MULTILINE),
    ),
    # version 1, where "no limit" is a number beyond the memory of any machine
    _Hierarchy(
        re.compile(r"^\d+:(?:[^:]*,)?memory(?:,[^:]*)?:/(.*)$", re.MULTILINE),
        Path("/sys/fs/cgroup/memory"),
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        re.compile(r"^total_(?:in)?active_file (\d+)$", re.MULTILINE),
    ),
)


def available() -> int | None:
    """Bytes that are still available; None where that can't be found out."""
    return min(_limits(), default=None)


def _limits() -> Iterator[int]:
    if found := re.search(r"MemAvailable:\s+(\d+) kB", _read(_MEMINFO)):
        yield int(found[1]) * 1024
    for hierarchy in _HIERARCHIES:
        for group in hierarchy.groups():
            if (left := hierarchy.left(group)) is not None:
                yield left


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""

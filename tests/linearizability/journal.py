"""What callers did and saw, in files that outlive them: one each, with a line before and after each call.

All are on one machine, whose monotonic clock is one for all its processes.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.linearizability.checker import Operation
from tests.linearizability.models import with_deaths


class Journal:
    """The file of one caller.

    Parameters
    ----------
    folder : Path
    caller : str
    """

    def __init__(self, folder: Path, caller: str) -> None:
        self._fd = os.open(folder / caller, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        self._write(pid=os.getpid())

    def begins(self, kind: str, name: str, *arguments: Any) -> None:
        """It is about to call an operation of the collection of that kind."""
        self._write(kind=kind, name=name, arguments=arguments)

    def ends(self, result: Any = None) -> None:
        """The operation has returned."""
        self._write(result=result)

    def close(self) -> None:
        """It has nothing left to do, and holds nothing."""
        self._write(closed=True)
        os.close(self._fd)

    def _write(self, **what: Any) -> None:
        os.write(self._fd, json.dumps({"at": time.monotonic_ns(), **what}).encode() + b"\n")


def pid(folder: Path, caller: str) -> int | None:
    """The process that a caller was last seen in; None if it hasn't begun."""
    try:
        found = [line for line in _lines(folder / caller) if "pid" in line]
    except FileNotFoundError:
        return None
    return int(found[-1]["pid"]) if found else None


def histories(folder: Path, harms: Mapping[str, float]) -> dict[str, list[Operation]]:
    """For each kind what was done, and what the deaths of callers may have done.

    Parameters
    ----------
    harms : dict
        The moment from which on a caller was about to be killed or cancelled.
    """
    found: defaultdict[str, list[Operation]] = defaultdict(list)
    deaths: dict[str, float] = {}
    for path in sorted(folder.iterdir()):
        lines, caller = _lines(path), path.name
        if not any("closed" in line for line in lines):
            # one who is cancelled holds nothing any more, though it may still write of what it tries
            deaths[caller] = min([harms.get(caller, math.inf), *(line["at"] for line in lines[-1:])])
        for kind, operation in _operations(caller, lines):
            if not _is_doubtful(operation, deaths.get(caller, math.inf)):
                found[kind].append(operation)
    return {kind: with_deaths(kind, operations, deaths) for kind, operations in found.items()}


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def _operations(caller: str, lines: list[dict[str, Any]]) -> list[tuple[str, Operation]]:
    done: list[tuple[str, Operation]] = []
    for line in lines:
        if "kind" in line:
            begun = Operation(caller, line["name"], tuple(line["arguments"]), line["at"])
            done.append((line["kind"], begun))
        elif "result" in line:
            kind, begun = done[-1]
            done[-1] = kind, replace(begun, returned=line["at"], result=line["result"])
    return done


def _is_doubtful(operation: Operation, death: float) -> bool:
    """The number of a lock, asked for by one who may have lost it meanwhile: it may be the next holder's."""
    return operation.name == "fence" and operation.returned > death

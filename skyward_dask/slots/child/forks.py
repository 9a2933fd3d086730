"""Processes that a task forks: they are not slots, and live like any other process.

A fork has a copy of everything in its slot's process, including the sockets to the worker, where its messages
would be taken for the slot's. So it can't ask the worker for anything, and doesn't return into our code: it
ends where its task would return.
"""

from __future__ import annotations

import faulthandler
import os
import traceback
from types import TracebackType
from typing import NoReturn

from skyward_dask.slots.child.exits import exit_now, leave


class forks_end_here:  # noqa: N801  a block
    """A process that is forked in the block doesn't leave it: it ends, as a program does at its last line."""

    def __enter__(self) -> None:
        self._process = os.getpid()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if os.getpid() != self._process:
            _end(error)


def _end(error: BaseException | None) -> NoReturn:
    if isinstance(error, SystemExit):
        leave(error)
    if error is not None:
        traceback.print_exception(error)
    exit_now(0 if error is None else 1)


def become_ordinary(stack_signal: int) -> None:
    """Have a process that was just forked report a crash on its stderr, not as the slot's."""
    faulthandler.unregister(stack_signal)
    faulthandler.enable(2)

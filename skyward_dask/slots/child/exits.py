"""How a slot's process, or one that its task forked, exits: without finalizing its interpreter.

With distributed imported, finalization takes 100 ms, most of it to copy pages that are shared with the
template; multiprocessing's children skip it as well.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import traceback
from contextlib import suppress
from typing import NoReturn

#: The exit code that a shell reports for a program that Ctrl-C ended.
INTERRUPTED = 130


def end_as_a_program_does() -> NoReturn:
    """Wait for the tasks' threads, call what was registered with `atexit`, and exit."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    except BaseException:
        traceback.print_exc()
    exit_now(0)


def leave(leaving: SystemExit) -> NoReturn:
    """Exit with the code that Python would use, without its shutdown: threads of the task may still run."""
    code = leaving.code
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    exit_now(code or 0)


def exit_now(code: int) -> NoReturn:
    """Flush what was printed, and end this process without doing anything else."""
    flush()
    os._exit(code & 0xFF)


def flush() -> None:
    """Flush what was printed, wherever that goes."""
    for stream in (sys.stdout, sys.stderr):
        # a task may have closed them, or put something in their place that raises anything
        with suppress(BaseException):
            stream.flush()

"""How a slot's process, or one that its task forked, ends by itself: its interpreter isn't taken to pieces.

With distributed imported that takes 100 ms, most of it for copies of pages that the template has too;
multiprocessing's children leave it out as well.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import traceback
from contextlib import suppress
from typing import NoReturn

#: What a shell reports of a program that Ctrl-C ended.
INTERRUPTED = 130


def end_as_a_program_does() -> NoReturn:
    """Wait for the tasks' threads, and do what was registered for the end."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    except BaseException:
        traceback.print_exc()
    exit_now(0)


def leave(leaving: SystemExit) -> NoReturn:
    """Exit with the code that Python would, though not by its way: threads of the task may hang on."""
    code = leaving.code
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    exit_now(code or 0)


def exit_now(code: int) -> NoReturn:
    """End this process, and do nothing before but write out what was printed."""
    flush()
    os._exit(code & 0xFF)


def flush() -> None:
    """Write out what was printed, wherever that goes."""
    for stream in (sys.stdout, sys.stderr):
        # a task may have closed them, or put something in their place that raises anything
        with suppress(BaseException):
            stream.flush()

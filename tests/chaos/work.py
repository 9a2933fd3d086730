"""What the tasks of a chaos run do; imported by the workers."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from typing import NoReturn

from distributed import secede, worker_client

MIB = 2**20
#: What a memory hog may have, in bytes, and what it takes if nobody stops it: twice as much.
HOG_LIMIT = 150 * MIB
#: What a task that should have been stopped returns: the right value of none.
ESCAPED = -1
#: Seconds that a task lasts which is to be stopped, and what one leaves behind: longer than any drain.
_LONG = 300.0
#: Exit codes that Python itself never uses.
EXIT, LEFT_EXIT, FIRST_EXIT = 71, 72, 73


class Refusal(Exception):
    """An exception with an attribute of its own."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def value(number: int) -> int:
    return number


def sleep(number: int, seconds: float) -> int:
    time.sleep(seconds)
    return number


def spin(number: int, seconds: float) -> int:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    return number


def stall(number: int) -> int:
    """Last until stopped."""
    time.sleep(_LONG)
    return ESCAPED


def resist(number: int) -> int:
    """Last until killed: an interrupt doesn't end it."""
    with suppress(KeyboardInterrupt):
        time.sleep(_LONG)
    time.sleep(_LONG)
    return ESCAPED


def hog(number: int) -> int:
    held = [bytearray(os.urandom(MIB)) for _ in range(2 * HOG_LIMIT // MIB)]
    time.sleep(_LONG)
    return ESCAPED * len(held)


def leave(number: int) -> NoReturn:
    os._exit(EXIT)


def segfault(number: int) -> NoReturn:
    os.kill(os.getpid(), signal.SIGSEGV)
    raise SystemExit


def refuse(number: int) -> NoReturn:
    try:
        raise LookupError(number)
    except LookupError as error:
        raise Refusal(number) from error


def _litter() -> None:
    """A process in a session of its own, and a daemon: its parent is gone at once."""
    subprocess.Popen(["sleep", str(_LONG)], start_new_session=True)
    subprocess.run(["sh", "-c", f"setsid sleep {_LONG} &"], check=True)


def litter_and_leave(number: int) -> NoReturn:
    _litter()
    os._exit(LEFT_EXIT)


def litter_and_stall(number: int) -> int:
    _litter()
    return stall(number)


def leave_once(number: int, flag: str) -> int:
    """End the process the first time."""
    if os.path.exists(flag):
        return number
    with open(flag, "x"):
        os._exit(FIRST_EXIT)


def nest(number: int) -> int:
    """Have another task compute, outside of the slot meanwhile."""
    with worker_client() as client:
        half = client.submit(value, number // 2, pure=False)
        return number - number // 2 + int(half.result())


def step_aside(number: int, seconds: float) -> int:
    secede()
    time.sleep(seconds)
    return number


def add(one: int, other: int) -> int:
    return one + other

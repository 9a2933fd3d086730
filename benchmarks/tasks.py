"""What the contenders are given to do, where it needs no library.

Apart from the topics, because a process that runs a function imports its module: with a topic would come
Dask and all peers, which is time that a fresh process hasn't, and memory that is none of its own.
"""

import os
import signal
import time
from contextlib import suppress

LONG = 60.0
"""Seconds after which a slot is taken for lost."""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def come(folder: str, name: str) -> None:
    """Wait for the other one: both slots are at work."""
    begin(folder, name)
    deadline = time.monotonic() + LONG
    while len(os.listdir(folder)) < 2:
        if time.monotonic() > deadline:
            raise TimeoutError("nobody else came")
        time.sleep(0.0005)


def begin(folder: str, name: str = "begun") -> None:
    """Say that it has begun."""
    with open(os.path.join(folder, name), "w"):
        pass


def spin(folder: str) -> None:
    begin(folder)
    while True:
        pass


def spin_on(folder: str) -> None:
    """The same, whoever interrupts it."""
    begin(folder)
    while True:
        with suppress(KeyboardInterrupt):
            while True:
                pass


def whereabouts(seconds: float) -> int:
    """The process that this runs in."""
    time.sleep(seconds)
    return os.getpid()


def burn(iterations: int) -> int:
    """A tight loop that holds the interpreter's lock; the value keeps it from being optimised away."""
    value = 1
    for _ in range(iterations):
        value = (value * 1_103_515_245 + 12_345) % 2_147_483_648
    return value


def loop(lasting: float) -> None:
    end = time.perf_counter() + lasting
    while time.perf_counter() < end:
        pass


def call_in_c(lasting: float) -> int:
    """One call that holds the interpreter's lock for about so long."""
    return sum(range(int(lasting * 5e7)))


def dicts(records: int) -> list[dict]:
    return [{"id": n, "name": f"name {n}", "tags": ["a", n]} for n in range(records)]


def changed(bag: list[dict]) -> list[dict]:
    return [{**record, "id": record["id"] + 1} for record in bag]


def counted(bag: list[dict]) -> int:
    return sum(record["id"] % 2 for record in bag)

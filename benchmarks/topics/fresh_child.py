"""Start a fresh child, until it is ready."""

import multiprocessing
import subprocess
import sys
import threading
import time
from functools import partial

from benchmarks.goals import Goal, figure
from benchmarks.peers import POOL
from benchmarks.timing import Enter, Work, seconds
from skyward_dask.slots.executor import SlotPool

UNIT = "ms"
HIGHER_IS_BETTER = False
REFERENCE = "multiprocessing's forkserver"
RICH = f"{POOL}, distributed and pandas imported"
GOALS = [Goal("the pool, ms", figure(POOL), most=10), Goal("with large imports, ms", figure(RICH), most=10)]


def contenders(settings, enter):
    return {
        POOL: another_slot(enter, ()),
        RICH: another_slot(enter, ("distributed", "pandas")),
        REFERENCE: another_process("forkserver"),
        "multiprocessing's spawn": another_process("spawn"),
        "a new interpreter, cloudpickle imported": partial(interpreter, "import cloudpickle"),
        "a new interpreter, distributed and pandas imported": partial(
            interpreter, "import distributed, pandas"
        ),
    }


def another_slot(enter: Enter, pre_import: tuple[str, ...]) -> Work:
    """One more slot, until its child is ready; then one less."""
    started = threading.Semaphore(0)

    def hear(event: str, slot: int, pid: int) -> None:
        if event == "start":
            started.release()

    pool = enter(SlotPool(1, pre_import=pre_import, on_event=hear))
    started.acquire()

    def figure() -> float:
        taken = seconds(lambda: (pool.resize(2), started.acquire()))
        pool.resize(1)
        while any(slot.index for slot in pool.snapshots()):
            time.sleep(0.001)
        return 1e3 * taken

    return figure


def another_process(method: str) -> Work:
    context = multiprocessing.get_context(method)

    def start() -> None:
        event = context.Event()
        child = context.Process(target=event.set)
        child.start()
        event.wait()
        children.append(child)

    def figure() -> float:
        taken = seconds(start)
        children.pop().join()
        return 1e3 * taken

    children: list[multiprocessing.process.BaseProcess] = []
    return figure


def interpreter(program: str) -> float:
    command = [sys.executable, "-c", f"{program}\nprint(flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as started:
        taken = seconds(started.stdout.readline)
        started.stdin.write(b"\n")
        started.stdin.close()
    return 1e3 * taken

"""Start of a pool of eight.

In a new interpreter each time: from nothing to the first result; for ours also until all eight are ready.
What the interpreter itself takes, and its imports, is not counted.
"""

import subprocess
import sys
import threading
from functools import partial

from benchmarks.goals import Goal, figure
from benchmarks.peers import FORKSERVER, POOL, pools
from benchmarks.timing import seconds
from skyward_dask.slots.executor import SlotPool

UNIT = "ms"
HIGHER_IS_BETTER = False
REFERENCE = FORKSERVER
ALL = f"{POOL}, all eight"
GOALS = [Goal("all eight ready, ms", figure(ALL), most=700)]
SIZE = 8


def contenders(settings, enter):
    return {name: partial(in_a_new_interpreter, name) for name in (*pools(SIZE), ALL)}


def in_a_new_interpreter(name: str) -> float:
    command = [sys.executable, "-m", "benchmarks.topics.start", name]
    # what a pool says while it is ended at once is of no interest
    said = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    return float(said.stdout)


def to_first_result(name: str) -> float:
    manager = pools(SIZE)[name]
    taken = seconds(lambda: manager.__enter__().submit(abs, -1).result())
    manager.__exit__(None, None, None)
    return taken


def to_all_ready() -> float:
    ready = threading.Semaphore(0)

    def start() -> SlotPool:
        return SlotPool(SIZE, on_event=lambda event, slot, pid: ready.release())

    pools: list[SlotPool] = []
    taken = seconds(lambda: (pools.append(start()), [ready.acquire() for _ in range(SIZE)]))
    pools[0].shutdown()
    return taken


if __name__ == "__main__":
    chosen = sys.argv[1]
    print(1e3 * (to_all_ready() if chosen == ALL else to_first_result(chosen)))

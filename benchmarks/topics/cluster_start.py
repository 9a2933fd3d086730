"""Start of a local cluster of two workers.

In a new interpreter each time: until both workers have joined, and until a first task has run. What the
interpreter itself takes, and its imports, is not counted.
"""

import os
import subprocess
import sys
from contextlib import ExitStack
from functools import partial

from dask.distributed import Client, LocalCluster

from benchmarks.goals import Goal, difference
from benchmarks.timing import seconds

UNIT = "s"
HIGHER_IS_BETTER = False
PLAIN, SLOTS = "Dask", "skyward_dask, process slots"
TASK = "until a task has run"
REFERENCE = PLAIN
GOALS = [Goal("beyond Dask's own, s", difference(SLOTS, PLAIN), most=0.3)]
PRELOAD = {"DASK_DISTRIBUTED__WORKER__PRELOAD": "skyward_dask", "DASK_SKYWARD__WORKER__EXECUTOR": "process"}


def contenders(settings, enter):
    return {
        f"{who}{', ' + what if what else ''}": partial(in_a_new_interpreter, env, what)
        for who, env in ((PLAIN, {}), (SLOTS, PRELOAD))
        for what in ("", TASK)
    }


def in_a_new_interpreter(env: dict[str, str], what: str) -> float:
    command = [sys.executable, "-m", "benchmarks.topics.cluster_start", what]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, **env})
    return float(told.stdout)


def taken(what: str) -> float:
    with ExitStack() as stack:

        def start() -> None:
            cluster = stack.enter_context(
                LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0")
            )
            client = stack.enter_context(Client(cluster))
            client.wait_for_workers(2)
            if what == TASK:
                client.submit(int).result()

        return seconds(start)


if __name__ == "__main__":
    print(taken(sys.argv[1]))

"""A crawl that survives its workers: what it has seen is kept twice, and the worker that has it is killed."""

import argparse
import os
import signal
import time

import skyward_dask as sky

PAGES = 127


@sky.function
def fetch(page: int) -> None:
    """Note where a page leads; run again, as a task may be, it does no harm."""
    time.sleep(0.01)
    sky.set("seen").update(link for link in (2 * page + 1, 2 * page + 2) if link < PAGES)
    sky.set("done").add(page)


def kill_host(compute: sky.Compute) -> None:
    """Kill the worker that has the set, once another one has a copy of it."""
    while not (done := sky.collections(compute.client)["done"]).in_step:
        time.sleep(0.01)
    pids = compute.client.run(os.getpid, workers=list(done.hosts))
    os.kill(pids[done.hosts[0]], signal.SIGKILL)


def main(executor: str) -> None:
    with sky.Compute(nodes=2, worker=sky.Worker(concurrency=2, executor=executor)) as compute:
        seen, done = compute.set("seen"), compute.set("done")
        seen.add(0)
        while todo := set(seen) - set(done):
            fetching = [fetch(page) > compute for page in todo]
            if len(todo) == 32:
                kill_host(compute)
            for each in fetching:
                each.result()
        print("pages:", len(done))
        print("moves:", sky.collections(compute.client)["done"].moves)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executor", choices=("thread", "process"), default="process")
    main(parser.parse_args().executor)

# Prints:
# pages: 127
# moves: 1

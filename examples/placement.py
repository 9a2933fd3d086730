"""Run single tasks in a thread of the worker, the others in process slots, and see where they ran."""

import os

from dask.distributed import Client

import skyward_dask as sky


def pid():
    return os.getpid()


def main():
    with Client(n_workers=1, threads_per_worker=1, dashboard_address=":0") as client:
        sky.install(client, sky.Worker(concurrency=2, executor="process"))
        (worker,) = client.run(os.getpid).values()

        print("as configured, in the worker:", client.submit(pid, pure=False).result() == worker)
        with sky.options(executor="thread"):
            print("as annotated, in the worker:", client.submit(pid, pure=False).result() == worker)

        for (place, reason), count in sorted(sky.statistics(client).tasks.items()):
            print(f"{count} in a {place}: {reason}")


if __name__ == "__main__":
    main()

# Prints:
# as configured, in the worker: False
# as annotated, in the worker: True
# 1 in a child: plain
# 1 in a thread: annotated

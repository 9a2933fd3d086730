"""Give a running Dask cluster process slots; from then on it is plain Dask."""

import os

from dask.distributed import Client

import skyward_dask as sky


def square(x):
    return x * x


def pid(_):
    return os.getpid()


def main():
    # One worker, as there would be on each node.
    with Client(n_workers=1, threads_per_worker=1, dashboard_address=":0") as client:
        sky.install(client, sky.Worker(concurrency=2, executor="process"))

        print("squares:", client.gather(client.map(square, range(6))))
        print("slots of each worker:", list(client.nthreads().values()))

        workers = set(client.run(os.getpid).values())
        slots = set(client.gather(client.map(pid, range(20), pure=False)))
        print("tasks that ran in the worker's own process:", len(slots & workers))


if __name__ == "__main__":
    main()

# Prints:
# squares: [0, 1, 4, 9, 16, 25]
# slots of each worker: [2]
# tasks that ran in the worker's own process: 0

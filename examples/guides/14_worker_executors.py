"""Worker executors: the same CPU-bound work on thread slots, then on process slots, of one dask-worker."""

import argparse
import sys
import time

import skyward_dask as sky


@sky.function
def cpu_burn(seconds: float) -> int:
    """Keep a core busy with pure Python for `seconds`; give the number of iterations that were done."""
    deadline = time.perf_counter() + seconds
    iterations = 0
    value = 1
    while time.perf_counter() < deadline:
        for _ in range(10_000):  # between two looks at the clock, about half a millisecond
            value = (value * 1_103_515_245 + 12_345) % 2_147_483_648
        iterations += 10_000

    return iterations


def main() -> None:
    """Burn the same seconds on both executors, and print what each of them made of it."""
    slots, seconds, rounds = arguments()

    # Thread slots share one interpreter. Its lock lets one of them run Python at a time: the
    # iterations of one core, however many slots there are.
    threads = sky.Worker(concurrency=slots, executor="thread")
    with sky.Compute(nodes=1, worker=threads) as compute:
        sky.gather(*[cpu_burn(0.1) for _ in range(slots)]) >> compute  # warm up

        burns = [cpu_burn(seconds) for _ in range(rounds * slots)]
        clock = Clock(compute, slots)
        results = sky.gather(*burns, stream=True, ordered=False) >> compute
        iterations = sum(progress(results, total=len(burns)))
        utilisation = clock.utilisation()

        print(f"thread:  {iterations:>14,} iterations, {utilisation:4.0%} CPU utilisation")

    # A process slot has an interpreter, and a lock, of its own: as many cores as there are slots.
    processes = sky.Worker(concurrency=slots, executor="process")
    with sky.Compute(nodes=1, worker=processes) as compute:
        sky.gather(*[cpu_burn(0.1) for _ in range(slots)]) >> compute  # warm up

        burns = [cpu_burn(seconds) for _ in range(rounds * slots)]
        clock = Clock(compute, slots)
        results = sky.gather(*burns, stream=True, ordered=False) >> compute
        iterations = sum(progress(results, total=len(burns)))
        utilisation = clock.utilisation()

        print(f"process: {iterations:>14,} iterations, {utilisation:4.0%} CPU utilisation")


class Clock:
    """CPU seconds of the workers and all their descendants, over wall seconds times slots."""

    def __init__(self, compute, slots):
        self.compute, self.slots = compute, slots
        self.cpu, self.wall = self.cpu_seconds(), time.perf_counter()

    def cpu_seconds(self):
        return sum(self.compute.client.run(process_tree_cpu_seconds).values())

    def utilisation(self):
        """Ask while the cluster lives: its slots' processes end with it, and their CPU times too."""
        wall = time.perf_counter() - self.wall
        return (self.cpu_seconds() - self.cpu) / (wall * self.slots)


def process_tree_cpu_seconds():
    """What this process and its descendants have computed so far; runs on the worker."""
    import psutil  # where it runs

    worker = psutil.Process()
    times = [process.cpu_times() for process in (worker, *worker.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def progress(results, total):
    """Pass the results on as they come, with a bar on stderr if that is a terminal."""
    for done, result in enumerate(results, start=1):
        if sys.stderr.isatty():
            bar = "#" * (40 * done // total)
            print(f"\r[{bar:<40}] {done} of {total}", end="\n" if done == total else "", file=sys.stderr)
        yield result


def arguments():
    """Slots, seconds for one task, and tasks for each slot, from the command line."""
    from dask.system import CPU_COUNT  # heeds the quota of a container

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--slots", type=int, default=min(CPU_COUNT, 8), help="task slots of the worker")
    parser.add_argument("--seconds", type=float, default=1.0, help="wall time of a task")
    parser.add_argument("--rounds", type=int, default=4, help="tasks for each slot")
    given = parser.parse_args()
    return given.slots, given.seconds, given.rounds


if __name__ == "__main__":
    main()

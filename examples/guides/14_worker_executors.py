"""Worker executors: the same CPU-bound work on thread slots, then on process slots, of one dask-worker."""

import argparse
import sys
import time

import skyward_dask as sky


@sky.function
def cpu_burn(seconds: float) -> int:
    """Keep a core busy with pure Python for `seconds`, and return the number of iterations done."""
    deadline = time.perf_counter() + seconds
    iterations = 0
    value = 1
    while time.perf_counter() < deadline:
        for _ in range(10_000):  # between two looks at the clock, about half a millisecond
            value = (value * 1_103_515_245 + 12_345) % 2_147_483_648
        iterations += 10_000

    return iterations


def main() -> None:
    """Run the same tasks on both executors, and compare how much work each of them did."""
    slots, seconds, rounds = arguments()

    # Thread slots share one interpreter, whose lock (the GIL) lets one thread at a time run Python:
    # together they do the work of one core, however many there are.
    threads = sky.Worker(concurrency=slots, executor="thread")
    with sky.Compute(nodes=1, worker=threads) as compute:
        sky.gather(*[cpu_burn(0.1) for _ in range(slots)]) >> compute  # warm up

        burns = [cpu_burn(seconds) for _ in range(rounds * slots)]
        clock = Clock(compute, slots)
        results = sky.gather(*burns, stream=True, ordered=False) >> compute
        by_threads = sum(progress("thread slots", results, total=len(burns)))
        utilisation = clock.utilisation()

        print(f"thread:  {by_threads:>14,} iterations, {utilisation:4.0%} CPU utilisation of {slots} slots")

    # A process slot has an interpreter and a GIL of its own: as many cores as there are slots.
    processes = sky.Worker(concurrency=slots, executor="process")
    with sky.Compute(nodes=1, worker=processes) as compute:
        sky.gather(*[cpu_burn(0.1) for _ in range(slots)]) >> compute  # warm up

        burns = [cpu_burn(seconds) for _ in range(rounds * slots)]
        clock = Clock(compute, slots)
        results = sky.gather(*burns, stream=True, ordered=False) >> compute
        by_processes = sum(progress("process slots", results, total=len(burns)))
        utilisation = clock.utilisation()

        print(f"process: {by_processes:>14,} iterations, {utilisation:4.0%} CPU utilisation of {slots} slots")

    compare(by_processes / by_threads, slots)


def compare(ratio, slots):
    """Print the ratio, and what it should be."""
    cores = min(slots, cpu_count())
    hint = f"about {cores} is expected on {cores} cores; a busy machine shows less"
    print(f"process / thread: × {ratio:.2g}; {hint}")


class Clock:
    """Utilisation: CPU time that the workers and all their descendants used, over wall time times slots.

    100 % means that each slot kept a core busy; thread slots reach 100 % divided by their number.
    """

    def __init__(self, compute, slots):
        self.compute, self.slots = compute, slots
        self.cpu, self.wall = self.cpu_seconds(), time.perf_counter()

    def cpu_seconds(self):
        return sum(self.compute.client.run(process_tree_cpu_seconds).values())

    def utilisation(self):
        """To be called while the cluster runs: the CPU times of its processes end with them."""
        wall = time.perf_counter() - self.wall
        return (self.cpu_seconds() - self.cpu) / (wall * self.slots)


def process_tree_cpu_seconds():
    """CPU time of this process and its descendants so far; runs on the worker."""
    import psutil  # on the worker

    worker = psutil.Process()
    times = [process.cpu_times() for process in (worker, *worker.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def progress(title, results, total):
    """Pass the results on as they come, with a bar on stderr if that is a terminal."""
    for done, result in enumerate(results, start=1):
        if sys.stderr.isatty():
            bar = "#" * (40 * done // total)
            end = "\n" if done == total else ""
            print(f"\r{title:<13} [{bar:<40}] {done} of {total}", end=end, file=sys.stderr, flush=True)
        yield result


def cpu_count():
    """The cores that this process may use."""
    from dask.system import CPU_COUNT  # respects a container's CPU quota

    return CPU_COUNT


def arguments():
    """Slots, seconds for one task, and tasks for each slot, from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--slots", type=int, default=min(cpu_count(), 8), help="task slots of the worker")
    parser.add_argument("--seconds", type=float, default=1.0, help="wall time of a task")
    parser.add_argument("--rounds", type=int, default=4, help="tasks for each slot")
    given = parser.parse_args()
    return given.slots, given.seconds, given.rounds


if __name__ == "__main__":
    main()

"""A queue of work, and consumers that each take from it as fast as they can."""

import argparse
import time

import skyward_dask as sky

JOBS = 60


@sky.function
def consume(seconds: float) -> list[int]:
    """Do jobs until there are no more; each takes this consumer so many seconds."""
    done = []
    while (job := sky.queue("jobs").get()) is not None:
        time.sleep(seconds)
        done.append(job)
    return done


def main(executor: str) -> None:
    with sky.Compute(nodes=1, worker=sky.Worker(concurrency=3, executor=executor)) as compute:
        jobs = compute.queue("jobs", maxsize=10)  # a full queue makes the producer wait
        consumers = [consume(seconds) > compute for seconds in (0.001, 0.001, 0.1)]
        jobs.put_many(range(JOBS))
        jobs.put_many([None] * len(consumers))
        *fast, slow = [consumer.result() for consumer in consumers]
        print("each job once:", sorted(sum(fast, slow)) == list(range(JOBS)))
        print("in order for each consumer:", all(done == sorted(done) for done in (*fast, slow)))
        print("the slow one delays nobody:", len(slow) < JOBS / 3)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executor", choices=("thread", "process"), default="process")
    main(parser.parse_args().executor)

# Prints:
# each job once: True
# in order for each consumer: True
# the slow one delays nobody: True

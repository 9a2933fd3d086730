"""A broadcast sets each node up, here with a file that its tasks read, before the work begins."""

from pathlib import Path

from dask.distributed import get_worker

import skyward_dask as sky


def reference() -> Path:
    """Where this node keeps the file: in its worker's own folder."""
    return Path(get_worker().local_directory) / "reference.txt"


@sky.function
def set_up(words: list[str]) -> str:
    """In real life: download a model, fill a cache, compile."""
    reference().write_text("\n".join(words))
    return f"node {sky.instance_info().node} has {len(words)} words"


@sky.function
def known(word: str) -> bool:
    return word in reference().read_text().splitlines()


def main():
    with sky.Compute(nodes=2, worker=sky.Worker(concurrency=1, executor="process")) as compute:
        try:
            for report in set_up(["slot", "node", "pool"]) @ compute:
                print(report)
        except sky.BroadcastError as error:
            print("these nodes can't be used:", list(error.errors))
        print(compute.map(known, ["slot", "actor", "pool", "node"]))


if __name__ == "__main__":
    main()

# Prints:
# node 0 has 3 words
# node 1 has 3 words
# [True, False, True, True]

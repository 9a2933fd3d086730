"""A dict with values of 1 MiB over several workers: ``python -m tests.shared.large --mib 2048``."""

from __future__ import annotations

import argparse
import time
from typing import Any

from distributed import Client, LocalCluster

import skyward_dask as sky

MEBIBYTE = 1 << 20
#: Values of one `update`: what is on its way at once.
_BATCH = 16


def filled(shared: Any, mebibytes: int) -> Any:
    """The dict, with so many values."""
    for first in range(0, mebibytes, _BATCH):
        shared.update({number: bytes([number % 256]) * MEBIBYTE for number in range(first, first + _BATCH)})
    assert len(shared) == mebibytes
    return shared


def read(shared: Any) -> int:
    """The bytes of all its values, each of which is what it should be."""
    size = 0
    for key, value in shared.items():
        assert value[0] == value[-1] == key % 256
        size += len(value)
    return size


def main() -> None:
    """Fill it, read it, and say how long that took and who has how much."""
    parser = argparse.ArgumentParser(prog="python -m tests.shared.large", description=__doc__)
    parser.add_argument("--mib", type=int, default=2048)
    parser.add_argument("--workers", type=int, default=3)
    options = parser.parse_args()
    with (
        LocalCluster(n_workers=options.workers, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        sky.install(client, sky.Worker(concurrency=2, executor="process"))
        started = time.monotonic()
        shared = filled(sky.dict("large", shards=options.workers), options.mib)
        print(f"written: {options.mib / (time.monotonic() - started):.0f} MiB/s")
        started = time.monotonic()
        print(f"read: {read(shared) / MEBIBYTE / (time.monotonic() - started):.0f} MiB/s")
        for worker, told in client.scheduler_info()["workers"].items():
            print(f"{worker}: {told['metrics']['memory'] / MEBIBYTE:.0f} MiB, {told['status']}")
        shared.destroy()


if __name__ == "__main__":
    main()

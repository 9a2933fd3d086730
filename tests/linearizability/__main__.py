"""``python -m tests.linearizability --minutes 10 --seed 1``; with ``--losses`` workers are killed, too."""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
import tempfile
from pathlib import Path

from tests.linearizability import losses
from tests.linearizability.rounds import cluster, rounds


def main() -> int:
    """Have rounds; the journals of those that are not explained are left, and named."""
    parser = argparse.ArgumentParser(prog="python -m tests.linearizability", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--losses", action="store_true", help="kill and stop hosts and standbys instead")
    options = parser.parse_args()
    if options.losses:
        return lose(options.minutes, options.seed)
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    folder = Path(tempfile.mkdtemp(prefix="skyward-linearizability-"))
    count = kills = cancels = wrong = 0
    with cluster() as client:
        for played, complaints in rounds(client, folder, options.seed, 60 * options.minutes):
            count, kills, cancels = count + 1, kills + played.kills, cancels + played.cancels
            if complaints:
                wrong += 1
                print(played.folder, *complaints, sep="\n", flush=True)
            else:
                shutil.rmtree(played.folder)
    print(f"{count} rounds, {kills} kills, {cancels} cancels: {wrong} can't be explained")
    return int(wrong > 0)


def lose(minutes: float, seed: int) -> int:
    """Have rounds in which workers that have collections are killed and stopped."""
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    folder = Path(tempfile.mkdtemp(prefix="skyward-losses-"))
    count = kills = stops = wrong = 0
    for played, complaints in losses.rounds(folder, seed, 60 * minutes):
        count, kills, stops = count + 1, kills + played.kills, stops + played.stops
        wrong += bool(complaints)
        if complaints:
            print(played.folder, *complaints, sep="\n", flush=True)
    print(f"{count} rounds, {kills} kills, {stops} stops: {wrong} can't be explained")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())

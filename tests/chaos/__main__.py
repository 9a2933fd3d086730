"""``python -m tests.chaos --minutes 10 --seed 1 [--without-nannies]``."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path

from tests.chaos.run import Settings, run


def main() -> int:
    """Have a run; its directory is left, and named, if something was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--without-nannies", action="store_true")
    options = parser.parse_args()
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    directory = Path(tempfile.mkdtemp(prefix="skyward-chaos-"))
    print(f"{options}; logs in {directory}", flush=True)
    complaints = run(
        Settings(60 * options.minutes, options.seed, nannies=not options.without_nannies), directory
    )
    print(*complaints, f"{len(complaints)} complaints", sep="\n")
    return int(bool(complaints))


if __name__ == "__main__":
    sys.exit(main())

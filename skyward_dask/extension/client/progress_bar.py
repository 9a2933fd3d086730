"""A progress bar for somebody who waits for many results at a terminal, or in a notebook."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Any

from distributed import Future, get_worker
from distributed.utils import is_kernel

#: Seconds after which it appears: who waits less needs none.
_DELAY = 1.0
#: Seconds between two looks at the futures: smooth enough, and cheap with 100,000 of them.
_INTERVAL = 0.2
_WIDTH = 40


@contextmanager
def progress_bar(futures: Sequence[Future[Any]], wanted: bool = True) -> Iterator[None]:
    """In the block, show on stderr how many of the futures are done, if anybody looks at it."""
    if not (wanted and _is_watched()):
        yield
        return
    ended = threading.Event()
    thread = threading.Thread(target=_draw, args=(futures, ended), name="skyward-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _is_watched() -> bool:
    """Whether there is a terminal or a notebook; tasks have none, though their worker may."""
    try:
        get_worker()
    except ValueError:
        return sys.stderr is not None and (sys.stderr.isatty() or is_kernel())
    return False


def _draw(futures: Sequence[Future[Any]], ended: threading.Event) -> None:
    begun, line = monotonic(), ""
    if ended.wait(_DELAY):
        return
    while not ended.wait(_INTERVAL):
        done = sum(future.done() for future in futures)
        bar = "#" * (_WIDTH * done // len(futures))
        line = f"[{bar:<{_WIDTH}}] {done:,} of {len(futures):,} | {monotonic() - begun:.0f} s"
        _write(f"\r{line}")
    _write(f"\r{'':<{len(line)}}\r")


def _write(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()

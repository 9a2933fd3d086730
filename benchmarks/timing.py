"""Stop watches, and what several topics do with a peer."""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from benchmarks.peers import Manager, Peer

Enter = Callable[[AbstractContextManager[Any]], Any]
"""Enters a context that is left when the topic is done; gives what the context yields."""

Work = Callable[[], float]
"""Does the work once, and gives the figure."""


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def each(peers: Mapping[str, Manager], enter: Enter, figure: Callable[[Peer], float]) -> dict[str, Work]:
    """The same work for all peers; they live as long as the topic."""
    return {name: partial(figure, enter(manager)) for name, manager in peers.items()}

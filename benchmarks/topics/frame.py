"""Group and average a DataFrame of ten million rows (320 MB)."""

from functools import partial

import numpy as np
import pandas as pd

from benchmarks.goals import Goal, ratio
from benchmarks.peers import PROCESS_SLOTS, Peer, clusters
from benchmarks.timing import each, seconds

UNIT = "s"
HIGHER_IS_BETTER = False
REFERENCE = "one process alone"
GOALS = [Goal("process slots, times one process alone", ratio(PROCESS_SLOTS, REFERENCE), most=1.2)]
ROWS = 10_000_000


def contenders(settings, enter):
    rows = settings.scaled(ROWS)
    through = each(clusters(settings.slots), enter, partial(grouped, rows=rows))
    return {REFERENCE: partial(in_this_process, rows), **through}


def frame(rows: int) -> pd.DataFrame:
    numbers = np.arange(rows)
    return pd.DataFrame({"group": numbers % 1000, "a": numbers / 3, "b": numbers / 7, "c": numbers})


def means(given: pd.DataFrame) -> pd.DataFrame:
    return given.groupby("group").mean()


def in_this_process(rows: int) -> float:
    given = frame(rows)
    return seconds(lambda: means(given))


def grouped(peer: Peer, rows: int) -> float:
    given = peer.submit(frame, rows)
    peer.wait(given)
    return seconds(lambda: peer.submit(means, given).result())

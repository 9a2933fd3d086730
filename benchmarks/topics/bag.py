"""A bag: one task makes 300,000 dicts, another changes each, a third counts them."""

from functools import partial

from benchmarks.peers import DASK_THREADS, Peer, clusters
from benchmarks.tasks import changed, counted, dicts
from benchmarks.timing import each, seconds

UNIT = "s"
HIGHER_IS_BETTER = False
REFERENCE = DASK_THREADS
RECORDS = 300_000


def contenders(settings, enter):
    records = settings.scaled(RECORDS)
    through = each(clusters(settings.slots), enter, partial(through_three_tasks, records=records))
    return {"one process alone": partial(in_this_process, records), **through}


def in_this_process(records: int) -> float:
    return seconds(lambda: counted(changed(dicts(records))))


def through_three_tasks(peer: Peer, records: int) -> float:
    return seconds(lambda: peer.submit(counted, peer.submit(changed, peer.submit(dicts, records))).result())

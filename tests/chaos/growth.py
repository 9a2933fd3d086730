"""Whether workers hold more at the end of a run than at its beginning. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from tests.chaos.quiet import Sample

#: Rounds in which a worker may still grow: modules are imported and caches filled.
_WARM_UP = 3
#: Rounds whose lowest count is taken: a child more or less, which comes or goes, has seven descriptors.
_SPAN = 3
#: What a worker may have grown since, in bytes and in descriptors: Dask's own logs and a connection or two.
_BYTES = 32 * 2**20
_DESCRIPTORS = 8


def growth(rounds: Iterable[list[Sample]]) -> list[str]:
    """Complaints about workers that grow, those that a nanny has replaced being others."""
    histories: dict[int, list[Sample]] = {}
    for samples in rounds:
        for sample in samples:
            histories.setdefault(sample.pid, []).append(sample)
    warm = [history[_WARM_UP:] for history in histories.values()]
    return [f"grown: {history}" for history in warm if len(history) >= 2 * _SPAN and _has_grown(history)]


def _has_grown(history: list[Sample]) -> bool:
    early, late = history[:_SPAN], history[-_SPAN:]
    memory = min(sample.memory for sample in late) - min(sample.memory for sample in early)
    descriptors = min(sample.descriptors for sample in late) - min(sample.descriptors for sample in early)
    return memory > _BYTES or descriptors > _DESCRIPTORS

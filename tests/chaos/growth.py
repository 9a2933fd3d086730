"""Whether workers hold more at the end of a run than at its beginning. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from tests.chaos.quiet import Sample

#: Rounds in which a worker may still grow: modules are imported and caches filled.
_WARM_UP = 3
#: What a worker may have grown since, in bytes and in descriptors: Dask's own logs and a connection or two.
_BYTES = 32 * 2**20
_DESCRIPTORS = 8


def growth(rounds: Iterable[list[Sample]]) -> list[str]:
    """Complaints about workers that grow, those that a nanny has replaced being others."""
    histories: dict[int, list[Sample]] = {}
    for samples in rounds:
        for sample in samples:
            histories.setdefault(sample.pid, []).append(sample)
    warm = [history[_WARM_UP - 1 :] for history in histories.values() if len(history) > _WARM_UP]
    return [
        f"grown: {first} to {last}"
        for first, *_, last in warm
        if last.memory - first.memory > _BYTES or last.descriptors - first.descriptors > _DESCRIPTORS
    ]

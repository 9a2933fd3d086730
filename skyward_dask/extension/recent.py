"""Answers of a moment ago: what a collection with eventual consistency is read from."""

from __future__ import annotations

from time import monotonic
from typing import Any

from skyward_dask.shared.asks import Ask, Spec

#: Answers at the most; then all are forgotten, which costs a question each: arbitrary.
_MOST = 10_000


class Recent:
    """The answers that one process has had.

    Parameters
    ----------
    staleness : float
        Seconds for which an answer is good.

    Notes
    -----
    For any thread: each step is one of a dict's own.
    """

    def __init__(self, staleness: float) -> None:
        self._staleness = staleness
        self._answers: dict[tuple[str, Ask], tuple[float, Any]] = {}

    def get(self, spec: Spec, ask: Ask) -> tuple[Any] | None:
        """An answer that is still good, in a tuple."""
        found = self._answers.get((spec.name, ask))
        if found is None or monotonic() - found[0] > self._staleness:
            return None
        return found[1:]

    def note(self, spec: Spec, ask: Ask, answer: object) -> None:
        """Take an answer; one to a change makes all others void: who has written reads what he wrote."""
        if ask.reads and len(self._answers) < _MOST:
            self._answers[spec.name, ask] = monotonic(), answer
        else:
            self._answers.clear()

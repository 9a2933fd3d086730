"""Recent answers, from which a collection with eventual consistency is read."""

from __future__ import annotations

from time import monotonic
from typing import Any

from skyward_dask.shared.asks import Ask, Spec

#: Maximum number of answers; beyond it all are dropped, which costs one question for each: arbitrary.
_MOST = 10_000
#: When a question was asked, and where its answer may be noted.
Asked = tuple[float, dict[tuple[str, Ask], tuple[float, Any]]]


class ReadCache:
    """The answers that one process has received.

    Parameters
    ----------
    staleness : float
        Seconds for which an answer may be reused, counted from the question.

    Notes
    -----
    Thread-safe: each step is a single operation on a dict.
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

    def asked(self) -> Asked:
        """What `note` needs to know; must be called when the question is asked."""
        return monotonic(), self._answers

    def note(self, spec: Spec, ask: Ask, answer: object, asked: Asked) -> None:
        """Keep an answer; one to a change makes all others void, so that a writer reads what it wrote."""
        moment, answers = asked
        if ask.reads and len(answers) < _MOST:
            answers[spec.name, ask] = moment, answer  # a dropped dict, if something has changed since
        else:
            self.clear()

    def clear(self) -> None:
        """Drop all answers, and also those to come to questions that were asked before."""
        self._answers = {}

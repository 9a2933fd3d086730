"""Answers of a moment ago: what a collection with eventual consistency is read from."""

from __future__ import annotations

from time import monotonic
from typing import Any

from skyward_dask.shared.asks import Ask, Spec

#: Answers at the most; then all are forgotten, which costs a question each: arbitrary.
_MOST = 10_000


#: When a question was asked, and where its answer may be noted.
Asked = tuple[float, dict[tuple[str, Ask], tuple[float, Any]]]


class Recent:
    """The answers that one process has had.

    Parameters
    ----------
    staleness : float
        Seconds from the question for which an answer is good.

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

    def asked(self) -> Asked:
        """What `note` wants to know: to be called when the question is asked."""
        return monotonic(), self._answers

    def note(self, spec: Spec, ask: Ask, answer: object, asked: Asked) -> None:
        """Take an answer; one to a change makes all others void: who has written reads what he wrote."""
        moment, answers = asked
        if ask.reads and len(answers) < _MOST:
            answers[spec.name, ask] = moment, answer  # nobody's, if something has changed since it was asked
        else:
            self.clear()

    def clear(self) -> None:
        """Forget all, and what is still to be noted of what was asked before."""
        self._answers = {}

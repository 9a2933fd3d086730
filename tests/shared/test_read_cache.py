"""Answers that are good for a moment: what eventual consistency gives."""

from __future__ import annotations

import math
from typing import Any

import pytest

from skyward_dask.extension.collections.read_cache import ReadCache
from skyward_dask.shared.asks import Ask, Spec

SPEC = Spec("dict", "name")
READ, WRITE = Ask("get", ("key",), reads=True), Ask("put", ("key", b"new"))


def test_an_answer_is_good_for_a_while() -> None:
    """For that question, in that collection."""
    cache = ReadCache(math.inf)
    assert cache.get(SPEC, READ) is None
    cache.note(SPEC, READ, None, cache.asked())
    assert cache.get(SPEC, READ) == (None,)
    assert cache.get(Spec("dict", "other"), READ) is None
    assert cache.get(SPEC, Ask("get", ("other",), reads=True)) is None


def test_its_time_counts_from_the_question(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that was long on its way is not good for long."""
    now = 0.0
    monkeypatch.setattr("skyward_dask.extension.collections.read_cache.monotonic", lambda: now)
    cache = ReadCache(10)
    asked = cache.asked()
    now = 8.0
    cache.note(SPEC, READ, "old", asked)
    assert cache.get(SPEC, READ) == ("old",)
    now = 11.0
    assert cache.get(SPEC, READ) is None


@pytest.mark.parametrize("late", [False, True])
def test_who_has_written_reads_what_he_wrote(late: bool) -> None:
    """Also if somebody's older question is answered after the change."""
    cache = ReadCache(math.inf)
    asked: Any = cache.asked()
    if not late:
        cache.note(SPEC, READ, "old", asked)
    cache.note(SPEC, WRITE, None, cache.asked())
    if late:
        cache.note(SPEC, READ, "old", asked)
    assert cache.get(SPEC, READ) is None


def test_it_does_not_grow_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """All is forgotten instead."""
    monkeypatch.setattr("skyward_dask.extension.collections.read_cache._MOST", 3)
    cache = ReadCache(math.inf)
    for key in range(5):
        cache.note(SPEC, Ask("get", (key,), reads=True), key, cache.asked())
    known = [cache.get(SPEC, Ask("get", (key,), reads=True)) for key in range(5)]
    assert known == [None, None, None, None, (4,)]

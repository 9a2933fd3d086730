"""How much a test does: a dose in each run, and what is promised with ``SKYWARD_TEST_FULL=1``."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

_IS_FULL = bool(os.environ.get("SKYWARD_TEST_FULL"))
#: Seconds for a test at its full size: arbitrary.
_FULL_TIMEOUT = 900

T = TypeVar("T", bound=Callable[..., Any])


def sized(test: T) -> T:
    """Mark a test that has two sizes."""
    return (
        pytest.mark.timeout(_FULL_TIMEOUT)(pytest.mark.sized(test)) if _IS_FULL else pytest.mark.sized(test)
    )


def size(dose: int, full: int) -> int:
    """The one or the other."""
    return full if _IS_FULL else dose

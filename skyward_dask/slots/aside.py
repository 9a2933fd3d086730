"""Calls that may take longer than a loop has time for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

T = TypeVar("T")

#: Helper threads of a pool: enough that one large value doesn't keep the next one waiting.
HELPERS = 4


async def aside(helpers: Executor, function: Callable[..., T], *args: object) -> T:
    """Call a function in a helper thread; here, if the interpreter exits and has no threads any more."""
    try:
        call = asyncio.get_running_loop().run_in_executor(helpers, function, *args)
    except RuntimeError:
        return function(*args)
    return await call

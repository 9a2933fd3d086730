"""Work that an event loop must not wait for: calls in helper threads, and coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar

T = TypeVar("T")

#: Seconds that one child may take in one turn of the loop, however much it sends or writes: the rest waits
#: for the next turn.
TURN = 0.001
#: Helper threads of a pool: enough that one large value doesn't keep the next one waiting.
HELPERS = 4


async def aside(helpers: Executor, function: Callable[..., T], *args: object) -> T:
    """Call a function in a helper thread; or in this one, if the interpreter is exiting and has no others."""
    try:
        call = asyncio.get_running_loop().run_in_executor(helpers, function, *args)
    except RuntimeError:
        return function(*args)
    return await call


class Tasks:
    """Coroutines that nobody awaits: they are referenced here until they are done."""

    def __init__(self, when_done: Callable[[], object] = lambda: None) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._when_done = when_done

    def __bool__(self) -> bool:
        return bool(self._tasks)

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._when_done()

    def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def wait(self) -> None:
        """Wait until all are done."""
        if self._tasks:
            await asyncio.wait(self._tasks)

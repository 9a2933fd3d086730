"""The stacks of a child's threads, requested from outside."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from skyward_dask.slots.child_messages import Look
from skyward_dask.slots.framing import Frame
from skyward_dask.slots.loop_channel import LoopChannel, do_nothing
from skyward_dask.slots.status_page import SILENCE, Page

#: Seconds that a child's listener has to get the GIL, so that it can write the stacks: on a busy machine that
#: may take a while, but if the task releases the GIL, the listener gets it in time.
_PATIENCE = 2.0
#: Seconds for faulthandler to write stacks from a signal handler: that takes a millisecond, when the process
#: has its turn.
_SIGNAL_PATIENCE = 0.5
#: Seconds between two checks.
_PAUSE = 0.005
#: What faulthandler writes about the child's own thread, which is of no interest to a task's user.
_LISTENER = " in _listen\n"


class Stacks:
    """Asks a child for the stacks of its threads. For the pool's loop.

    Parameters
    ----------
    page : Page
    answers : LoopChannel
        The channel to the child's listener.
    signal_listener : callable
        Sends the listener's thread the signal at which faulthandler writes stacks.

    Attributes
    ----------
    told : int
        The offset in the page's file up to which faulthandler has written stacks on request.
    """

    def __init__(self, page: Page, answers: LoopChannel, signal_listener: Callable[[], None]) -> None:
        self._page, self._answers, self._signal_listener = page, answers, signal_listener
        self.told = page.written()
        self._asking, self._asked = asyncio.Lock(), 0
        self._closed = False

    async def look(self, patience: float = _PATIENCE) -> str:
        """The stacks of all threads of the child; empty if it doesn't write them in time.

        Its listener writes them while it holds the GIL: that disturbs no call of the task, and no frame
        changes while it is read (without the GIL, a process that recursed crashed after ten looks). If the
        listener doesn't get the GIL within `patience` seconds, it writes them from a signal handler: most
        probably the task is in C code then, and its frames don't change.
        """
        async with self._asking:
            self._asked += 1
            self._answers.send(Frame(Look(), self._asked))
            if await self._until(lambda: self._page.looked >= self._asked, patience):
                text = self._page.told_stacks()
            else:
                text = await self._look_by_signal()
        return of_tasks(text)

    async def _look_by_signal(self) -> str:
        if self._closed or not self._page.listener:
            return ""
        since = self.told = self._page.written()
        self._signal_listener()
        await self._until(lambda: self._page.written() > since, _SIGNAL_PATIENCE)
        while not self._closed and self._page.written() > self.told:
            self.told = self._page.written()
            await asyncio.sleep(SILENCE)
        return "" if self._closed else self._page.stack(since)

    async def _until(self, condition: Callable[[], bool], patience: float) -> bool:
        """Whether a condition becomes true in time, while the child is alive."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience
        while not self._closed:
            is_late = loop.time() >= deadline  # perhaps because the loop was held up: so look once more
            if condition():
                return True
            if is_late:
                break
            await asyncio.sleep(_PAUSE)
        return False

    def close(self) -> None:
        """There are no stacks to look at any more."""
        self._closed = True
        self._signal_listener = do_nothing  # it refers to our owner: without this cycle all is freed at once


def of_tasks(stacks: str) -> str:
    """Stacks without that of the child's own thread."""
    return "\n\n".join(part for part in stacks.split("\n\n") if _LISTENER not in part)

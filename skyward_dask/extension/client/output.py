"""`output`: what tasks print, shown at the client."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from uuid import uuid4

from distributed import Client

from skyward_dask.arguments import takes_only
from skyward_dask.errors import ConfigurationError
from skyward_dask.extension import private_clients
from skyward_dask.extension.connection import checked, connected, reach
from skyward_dask.extension.line_rate import MOST
from skyward_dask.extension.printing import places_of_this_process

#: Seconds to wait for the last lines, once the scheduler has sent them.
_PATIENCE = 5.0


@dataclass(frozen=True, slots=True)
class OutputLine:
    """A line that a task has printed; as text, it has its task's key in front.

    Attributes
    ----------
    key : str
        The task; empty for what a slot's process prints between tasks, and where lines are left out.
    stream : str
        ``"stdout"`` or ``"stderr"``.
    text : str
        The line, without its end.
    worker : str
        The address of the task's worker.
    left_out : int
        The number of lines that came too fast and were left out, if this one stands for them; otherwise 0.
    """

    key: str
    stream: str
    text: str
    worker: str
    left_out: int = 0

    def __str__(self) -> str:
        return f"{self.key}: {self.text}" if self.key else self.text


@takes_only("For example, `with output(client):`, or `with output(client, to=lines.append):`.")
def output(client: Client, *, to: Callable[[OutputLine], object] | None = None) -> Output:
    """Show what tasks print while a block runs, on all nodes: each line with the key of its task.

    Parameters
    ----------
    client : distributed.Client
        With an asynchronous one, it is ``async with output(client):``.
    to : callable, optional
        Called with each line, an `OutputLine`, instead of printing it: in a thread of its own, or on the
        event loop of an asynchronous client. What workers show on their own stdout doesn't change then.

    Returns
    -------
    Output
        For a ``with`` statement. At the end of the block, all lines of tasks that have ended are shown.

    Raises
    ------
    ConfigurationError
        An argument is invalid, or no worker has slots.
    Exception
        What `to` raised, at the end of the block; it gets no further lines.

    Examples
    --------
    >>> with output(client):  # doctest: +SKIP
    ...     client.gather(client.map(simulate, range(10)))

    Notes
    -----
    The lines of a task are in order. A client is shown up to 1000 lines in a second, and told how many were
    left out. The last lines of a worker that doesn't answer for 5 seconds at the end of the block are lost.
    If a worker's own stdout is the client's terminal, as with a local cluster, lines appear there with their
    keys, and not a second time. In a thread slot or a coroutine, what counts as a task's is what it prints
    itself, with Python.
    """
    if to is not None and not callable(to):
        raise ConfigurationError(f"to must be a function that takes a line, not {to!r}.")
    return Output(checked(client), to)


class Output:
    """What tasks print, for the duration of a block: see `output`."""

    def __init__(self, client: Client, to: Callable[[OutputLine], object] | None) -> None:
        self._client = client
        self._show = to or _print
        self._places = places_of_this_process() if to is None else []
        self._name = f"skyward-output-{uuid4().hex}"  # of the messages for this block alone
        self._failure: Exception | None = None
        # showing a line may take its time, and others wait for the loop of a synchronous client
        self._thread: ThreadPoolExecutor | None = None

    def __enter__(self) -> Output:
        if self._client.asynchronous:
            raise ConfigurationError("this client is asynchronous: write `async with` instead of `with`.")
        self._client.sync(self._open)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="skyward-output")
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._client.status == "running":  # else nothing comes any more
            self._client.sync(self._close)
        assert self._thread is not None
        self._thread.shutdown()
        self._raise_failure(error)

    async def __aenter__(self) -> Output:
        if not self._client.asynchronous:
            raise ConfigurationError("this client is synchronous: write `with` instead of `async with`.")
        await self._open()
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._client.status == "running":
            await self._close()
        self._raise_failure(error)

    async def _open(self) -> None:
        scheduler = await connected(self._client)
        if await scheduler.skyward_has_slots() is False:
            raise ConfigurationError(
                "no worker of this cluster has skyward_dask slots, and others don't tell what tasks print: "
                "call install first."
            )
        self._ended, self._failure = asyncio.Event(), None
        private_clients.stream_handlers(self._client)[self._name] = self._take
        await scheduler.skyward_watch(watch=self._name, client=self._client.id, places=self._places)

    async def _close(self) -> None:
        with suppress(OSError, TimeoutError):  # the scheduler is gone, and all output with it
            await (await reach(self._client)).skyward_unwatch(watch=self._name)
            await asyncio.wait_for(self._ended.wait(), _PATIENCE)
        del private_clients.stream_handlers(self._client)[self._name]

    def _take(self, worker: str, lines: list[tuple[str, str, str]], left_out: int, is_last: bool) -> None:
        found = [OutputLine(*line, worker) for line in lines]
        if left_out:
            text = f"({left_out:,} lines left out: tasks print more than {MOST:,} in a second)"
            found.append(OutputLine("", "stderr", text, worker, left_out))
        if self._thread is None:
            self._show_all(found)
        else:
            self._thread.submit(self._show_all, found)
        if is_last:
            self._ended.set()

    def _show_all(self, lines: list[OutputLine]) -> None:
        for line in lines:
            if self._failure is None:
                try:
                    self._show(line)
                except Exception as error:  # raised at the end of the block
                    self._failure = error

    def _raise_failure(self, error: BaseException | None) -> None:
        if self._failure is not None and error is None:
            raise self._failure


def _print(line: OutputLine) -> None:
    print(line, file=getattr(sys, line.stream), flush=True)

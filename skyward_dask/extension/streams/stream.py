"""`Stream`: what a task that yields gives to whoever asks for its result."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from distributed import Future

from skyward_dask.errors import SerializationError, StreamBroken, StreamTaken
from skyward_dask.extension import private_clients
from skyward_dask.extension.dask_errors import not_an_exception
from skyward_dask.extension.streams.places import Reading, Ticket, place_here
from skyward_dask.slots.exceptions import load_exception
from skyward_dask.slots.pickling import loads, unloadable
from skyward_dask.streams.messages import Broken, Item, Last, Raised, Returned, Taken

T = TypeVar("T")


class Stream(Generic[T]):
    """The items that a task yields: an iterator, synchronous and asynchronous.

    It has one reader. The generator starts when the reader asks for the first item, and is closed when the
    reader closes the stream, ends, or drops it.

    Attributes
    ----------
    ticket : Ticket
        Where it can be read.
    value
        What the generator has returned, once the stream has ended; None before.

    Raises
    ------
    StreamTaken
        Somebody else reads it.
    StreamBroken
        Its worker, or the process of its slot, was lost: there are further items that nobody can get.

    Examples
    --------
    >>> for row in client.submit(rows, path).result():  # doctest: +SKIP
    ...     print(row)

    Notes
    -----
    Thread-safe: each item goes to one of the threads that ask.
    """

    def __init__(self, ticket: Ticket) -> None:
        self.ticket = ticket
        self._lock = threading.Lock()
        self._reading: Reading | None = None
        self._is_over = False
        self._held: Future[Any] | None = None
        self.value: Any = None

    def __iter__(self) -> Stream[T]:
        return self

    def __next__(self) -> T:
        if self._is_over:
            raise StopIteration
        found, value = self._given(self._read().take())
        if not found:
            raise StopIteration(value)
        return value  # type: ignore[no-any-return]

    def __aiter__(self) -> Stream[T]:
        return self

    async def __anext__(self) -> T:
        if self._is_over:
            raise StopAsyncIteration
        found, value = self._given(await self._read().take_async())
        if not found:
            raise StopAsyncIteration
        return value  # type: ignore[no-any-return]

    def close(self) -> None:
        """End the stream: its generator is closed. Returns at once; a second call does nothing."""
        with self._lock:
            was_over, self._is_over = self._is_over, True
            reading, held, self._held = self._reading, self._held, None
        if was_over:
            return
        if reading is not None:
            reading.close()
        else:
            place_here(held).close_unread(self.ticket)

    async def aclose(self) -> None:
        """`close`, for `contextlib.aclosing`."""
        self.close()

    def __enter__(self) -> Stream[T]:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def __aenter__(self) -> Stream[T]:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()

    def copy(self) -> Stream[T]:
        """Another object for the same stream: it still has one reader."""
        return arrived(self.ticket)

    def __repr__(self) -> str:
        of = "" if self.ticket.key is None else f" of {self.ticket.key!r}"
        return f"<sky.Stream{of}{': over' if self._is_over else ''}>"

    def __reduce__(self) -> tuple[Callable[[Ticket], Stream[T]], tuple[Ticket]]:
        return arrived, (self.ticket,)

    def __sizeof__(self) -> int:
        return 1000  # roughly what Dask has to move: the items aren't in it

    # --- the reader's end ----------------------------------------------------------------------------------

    def _read(self) -> Reading:
        with self._lock:
            if self._reading is None:
                self._begin()
            assert self._reading is not None
            return self._reading

    def _begin(self) -> None:
        self._reading = place_here(self._held).read(self.ticket)
        weakref.finalize(self, self._reading.close).atexit = False

    def _given(self, taken: Item | Last) -> tuple[bool, Any]:
        """Whether there was an item, and the item; else the generator's value."""
        match taken:
            case Returned():
                self.value = self._over() and _loaded(taken.value, "the value of a stream")
                return False, self.value
            case Raised() | Broken() | Taken():
                if not self._over():
                    return False, None
                raise self._error(taken)
        try:
            return True, _loaded(taken, "an item of a stream")
        except SerializationError:
            self.close()
            raise

    def _over(self) -> bool:
        """The stream has ended; whether this caller is the first to learn it."""
        with self._lock:
            was_over, self._is_over = self._is_over, True
            self._held = None
        return not was_over

    def _error(self, last: Raised | Broken | Taken) -> BaseException:
        if isinstance(last, Raised):
            error = load_exception(list(last.error))
            return error if isinstance(error, Exception) else not_an_exception(error, self.ticket.key)
        if isinstance(last, Broken):
            return StreamBroken(
                f"{self!r} was broken off: {last.reason} What was read before is complete and in order, but "
                "there may have been more. Run the task again for a new stream."
            )
        return StreamTaken(
            f"{self!r} has another reader. A stream can be read once: run the task again for another one, "
            "or have the one reader share what it reads, by sky.queue."
        )


def arrived(ticket: Ticket) -> Stream[Any]:
    """A stream that has come from another process, or is handed to another reader in this one."""
    stream: Stream[Any] = Stream(ticket)
    if ticket.key is not None and (client := private_clients.client_with(ticket.key)) is not None:
        stream._held = Future(ticket.key, client)  # the key lives as long as the stream: the future may not
    return stream


def _loaded(item: Item, what: str) -> Any:
    # unpickled values use the buffers in place, and must be able to write to them
    parts = [item[0], *(bytearray(p) if memoryview(p).readonly else p for p in item[1:])]
    try:
        return loads(parts)
    except Exception as error:
        raise unloadable(what, "by its reader", parts, error) from error

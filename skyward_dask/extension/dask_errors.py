"""What a task raises, in a form that Dask can carry to whoever waits for it.

Dask pickles an exception with its causes and its frames, one inside the other: a long chain of causes ends
the worker, and a deep traceback never arrives. Dask does carry an error that isn't an `Exception`, but a
client that raises it on its event loop waits for ever.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import TypeVar

from distributed import Status, get_worker
from distributed.protocol.pickle import dumps, loads

from skyward_dask.errors import SkywardError
from skyward_dask.extension.tracebacks import shortened
from skyward_dask.slots.exceptions import members_of

T = TypeVar("T")

#: Maximum numbers of causes, and of frames, to keep: together they take a third of the depth to which Python
#: pickles, and less than the 10,000 bytes that Dask gives a traceback (admin.max-error-length).
_LINKS, _FRAMES = 50, 50


def not_an_exception(error: BaseException, key: object) -> SkywardError:
    """The error to raise instead of one that a client can't raise; raise it outside any `except` block."""
    shorten(error)
    instead = SkywardError(
        f"task {key!r} raised {error!r}, which is not an Exception: event loops and threads take it as a "
        "request to stop. Have the task raise a subclass of Exception."
    )
    if not isinstance(error, BaseExceptionGroup):  # which Dask can't carry
        instead.__cause__ = error
    return instead


def _fit(error: Exception, key: object) -> Exception:
    """The error, made fit for Dask; another one if making its text or its pickle would end the worker."""
    shorten(error)
    try:
        str(error), repr(error)
    except BaseException as reason:
        instead = _instead(error, key, "shown: its `__str__` or `__repr__`", reason)
        instead.__cause__ = error
        return instead
    try:
        loads(dumps(error))
    except Exception:
        return error  # Dask takes its text then
    except BaseException as reason:
        return _instead(error, key, "pickled: something in it", reason)
    return error


def _instead(error: Exception, key: object, what: str, reason: BaseException) -> SkywardError:
    return SkywardError(
        f"task {key!r} raised an exception of type {type(error).__qualname__}, which can't be {what} raises "
        f"{type(reason).__name__}."
    )


def called(key: object, function: Callable[[], T]) -> T:
    """Call a task's function; what it raises is made fit for Dask."""
    try:
        return function()
    except Exception as error:
        failure = _fit(error, key)
        if failure is error:
            raise
    except BaseException as error:
        failure = not_an_exception(error, key)
    raise failure


async def awaited(key: object, coroutine: Awaitable[T]) -> T:
    """Await a task's coroutine; exceptions that are meant for the loop itself go on to it."""
    try:
        with shortened():
            return await coroutine
    except (SystemExit, KeyboardInterrupt):
        raise
    except Exception as error:
        failure = _fit(error, key)
        if failure is error:
            raise
    except BaseException as error:
        if isinstance(error, CancelledError) and get_worker().status == Status.closing:
            raise  # the worker cancels coroutines when it closes, and Dask has such tasks run elsewhere
        failure = not_an_exception(error, key)
    raise failure


def shorten(error: BaseException) -> None:
    """Remove frames and causes from an exception that has too many of them for Dask."""
    depths, found = {id(error): 0}, [error]
    for each in found:  # the list grows meanwhile
        each.__traceback__ = _both_ends(each.__traceback__)
        if depths[id(each)] == _LINKS:
            _skip_to_the_end(each)
        for other in (each.__cause__, each.__context__, *members_of(each)):
            if other is not None and id(other) not in depths:
                depths[id(other)] = depths[id(each)] + 1
                found.append(other)


def _both_ends(trace: TracebackType | None) -> TracebackType | None:
    """The outermost and the innermost frames of a traceback."""
    links = []
    while trace is not None:
        links.append(trace)
        trace = trace.tb_next
    if len(links) <= _FRAMES:
        return links[0] if links else None
    shown: TracebackType | None = None
    for link in reversed(links[: _FRAMES // 2] + links[-_FRAMES // 2 :]):
        shown = TracebackType(shown, link.tb_frame, link.tb_lasti, link.tb_lineno)
    return shown


def _skip_to_the_end(error: BaseException) -> None:
    """Make the last of an exception's causes its direct cause."""
    last = _last_cause(error)
    suppressed = error.__suppress_context__
    error.__cause__ = last if error.__cause__ is not None else None
    error.__context__ = last if error.__context__ is not None else None
    error.__suppress_context__ = suppressed
    with suppress(TypeError):  # the user's notes aren't a list
        error.add_note(f"(Causes between this exception and the last one are left out: {_LINKS} are shown.)")


def _last_cause(error: BaseException) -> BaseException | None:
    """Where the chain ends; None if it leads back into itself."""
    seen = {id(error)}
    while (other := error.__cause__ or error.__context__) is not None:
        if id(other) in seen:
            return None
        seen.add(id(other))
        error = other
    return error

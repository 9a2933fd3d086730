"""A slot's process: it takes runs from one socket, one at a time, until the socket ends.

```
 main thread      waits on `runs`; unpickles, calls, pickles, answers
 listener thread  waits on `answers`: hands answers to the threads that asked; at its end, exits
```

The listener ends the process even while a task holds the main thread; PDEATHSIG does so even while
a task holds the GIL. So a child never outlives its worker.
"""

from __future__ import annotations

import ctypes
import faulthandler
import itertools
import os
import queue
import signal
import socket
import sys
import threading
import traceback
import types
from contextlib import suppress
from importlib import import_module
from typing import Any, NoReturn

from skyward_dask.errors import SerializationError
from skyward_dask.slots.channel import Channel, ChannelClosed, Frame, Kind
from skyward_dask.slots.exchange import Exchange
from skyward_dask.slots.heap import keep_warm
from skyward_dask.slots.page import Page
from skyward_dask.slots.pickling import dump_exception, dumps, load_exception, loads, unpicklable

_PR_SET_PDEATHSIG = 1
#: What a shell reports of a program that Ctrl-C ended.
_INTERRUPTED = 130


class Link:
    """A task's way back: calls that the worker carries out for the run that is active.

    Notes
    -----
    Thread-safe. A call from a thread that outlives its run is refused.
    """

    def __init__(self, runs: Channel) -> None:
        self._runs = runs
        self._numbers = itertools.count(1)
        self._waiting: dict[int, queue.SimpleQueue[Frame]] = {}
        self.run = 0

    def call(self, name: str, *args: object, **kwargs: object) -> Any:
        """Ask the worker to do `name`, and wait; raises what it raised there."""
        run = self.run
        if not run:
            raise RuntimeError(f"{name} needs the worker, and is only there while a task runs")
        try:
            parts = dumps((args, kwargs))
        except Exception as error:
            raise unpicklable([*enumerate_arguments(args, kwargs)], error) from error
        number = next(self._numbers)
        reply = self._waiting[number] = queue.SimpleQueue()
        self._runs.send(Kind.REQUEST, number, (run, name), parts)
        frame = reply.get()
        if frame.envelope[0]:
            return loads(frame.parts)
        raise load_exception(frame.parts)

    def answer(self, frame: Frame) -> None:
        self._waiting.pop(frame.number).put(frame)


def enumerate_arguments(args: tuple[object, ...], kwargs: dict[str, object]) -> list[tuple[str, object]]:
    """The arguments of a call with the names that an error calls them by."""
    return [(f"argument {n}", a) for n, a in enumerate(args)] + [
        (f"argument {name!r}", value) for name, value in kwargs.items()
    ]


def main(runs: int, answers: int, page: int, parent: int) -> None:
    """Serve runs until the worker is gone; the numbers are inherited descriptors and the worker's pid."""
    for fd in (runs, answers, page):
        os.set_inheritable(fd, False)
    _die_with(parent)
    _reset_signals()
    keep_warm()
    last_words = Page(page)
    faulthandler.enable(page)
    # one record a line; a lone surrogate in a print is not worth a failed task
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    # tasks must not find this program in `__main__`, nor must multiprocessing in a task
    sys.modules["__main__"] = types.ModuleType("__main__")
    channel = Channel(socket.socket(fileno=runs))
    link = Link(channel)
    answering = Channel(socket.socket(fileno=answers))
    threading.Thread(target=_listen, args=(answering, link), name="skyward-listener", daemon=True).start()
    share_from = _prepare(channel.receive(), link)
    channel.send(Kind.READY, 0, ())
    _serve(channel, link, last_words, Exchange(channel, share_from))


def _die_with(parent: int) -> None:
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we asked
        os._exit(0)


def _reset_signals() -> None:
    """Take the defaults: what the worker ignores or blocks survives exec."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _listen(answers: Channel, link: Link) -> None:
    while True:
        try:
            frame = answers.receive()
        except ChannelClosed:
            _exit_with_group()
        link.answer(frame)


def _exit_with_group() -> NoReturn:
    """The worker is gone: end this process with all that it started in its own process group."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(0)


def _prepare(frame: Frame, link: Link) -> int | None:
    path, backend, modules, share_from = frame.envelope
    sys.path[:] = path
    argument, *initializer = frame.parts
    if backend:
        module, _, name = backend.partition(":")
        getattr(import_module(module), name)(bytes(argument), link)
    for module in modules:
        import_module(module)
    if initializer:
        loads(initializer)()
    return None if share_from is None else int(share_from)


def _serve(runs: Channel, link: Link, page: Page, exchange: Exchange) -> None:
    while True:
        try:
            frame = exchange.next_run()
        except ChannelClosed:
            return  # leave as a program does: atexit runs
        page.begun = link.run = frame.number
        kind, envelope, parts = _run(frame, exchange)
        link.run = 0
        _flush()
        del frame
        try:
            runs.send(kind, page.begun, envelope, parts)
        except ChannelClosed:
            return
        del parts
        exchange.tidy()


def _run(frame: Frame, exchange: Exchange) -> tuple[Kind, tuple[Any, ...], list[Any]]:
    try:
        return Kind.RESULT, *_call(frame, exchange)
    except SystemExit as leaving:
        _leave(leaving)
    except KeyboardInterrupt:
        traceback.print_exc()
        _exit(_INTERRUPTED)
    except BaseException as error:
        # cut our own frames off: what is left is the task's, and crosses to its caller
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next
        return Kind.ERROR, (), dump_exception(error.with_traceback(trace))


def _call(frame: Frame, exchange: Exchange) -> tuple[tuple[Any, ...], list[Any]]:
    try:
        function, args, kwargs = exchange.call(frame)
    except Exception as error:
        raise SerializationError(
            f"a task's function or one of its arguments can't be unpickled in its slot's process: {error!r}. "
            "A module may be missing there, or its class can't be built again from its pickle."
        ) from error
    value = function(*args, **kwargs)
    try:
        parts = dumps(value)
    except Exception as error:
        raise unpicklable([("the result", value)], error) from error
    return exchange.result(parts, frame.number)


def _leave(leaving: SystemExit) -> NoReturn:
    """Exit with the code that Python would, though not by its way: threads of the task may hang on."""
    code = leaving.code
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    _exit(code or 0)


def _exit(code: int) -> NoReturn:
    _flush()
    os._exit(code & 0xFF)


def _flush() -> None:
    # the task may have closed or replaced them: then there is nothing to be flushed
    with suppress(AttributeError, ValueError, OSError):
        sys.stdout.flush()
    with suppress(AttributeError, ValueError, OSError):
        sys.stderr.flush()

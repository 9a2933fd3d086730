"""A slot's process: it takes runs from one socket, one at a time, until the socket ends.

```
 main thread      waits on `runs`; unpickles, calls, pickles, answers
 listener thread  waits on `answers`: hands answers to the threads that asked; at its end, exits
```

A run is stopped by its number in the shared page and a SIGINT: the handler runs in the main thread, and
raises KeyboardInterrupt there only while that very run is active. The worker's end is the template's to
notice, which kills this process; the listener does so for the case that both ended at once.
"""

from __future__ import annotations

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
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from importlib import import_module
from multiprocessing.process import current_process
from pathlib import Path
from time import monotonic
from typing import Any, NoReturn

from skyward_dask.errors import WorkerUnreachable
from skyward_dask.slots.channel import Channel, ChannelClosed
from skyward_dask.slots.exchange import Exchange
from skyward_dask.slots.exits import end_as_a_program_does, exit_now, flush, leave
from skyward_dask.slots.forks import become_ordinary, forks_end_here
from skyward_dask.slots.framing import Frame, Kind, Part
from skyward_dask.slots.heap import keep_warm
from skyward_dask.slots.page import Page
from skyward_dask.slots.pickling import dump_exception, dumps, load_exception, loads, unpicklable
from skyward_dask.slots.prompt import print_promptly
from skyward_dask.slots.trees import become_subreaper, end_descendants, wake_at_parents_death

#: Has faulthandler write all threads' stacks to the shared page, whoever holds the GIL. A real-time signal,
#: where there are any: programs hardly use one. The third: arbitrary.
STACK_SIGNAL: int = signal.SIGRTMIN + 3 if hasattr(signal, "SIGRTMIN") else signal.SIGUSR2
#: What a shell reports of a program that Ctrl-C ended.
_INTERRUPTED = 130
#: Half of the kernel's scale: above any worker, however much it holds, that isn't above the half itself.
_MORE, _WORST_SCORE = 500, 1000
#: Seconds that a child without worker and template takes for killing what its task has started.
_PATIENCE = 1.0
#: RESULT or ERROR; for each part its size where it is in shared memory, else None; the parts that aren't.
_Outcome = tuple[Kind, tuple[int | None, ...], list[Part]]

_Check = Callable[[], object]
#: What most answers say: no report, nothing in shared memory, the process is healthy, it has descriptors.
_ALL_IS_WELL = ((), (), True, False)


class Link:
    """A task's way back: calls that the worker carries out for the run that is active.

    Attributes
    ----------
    run : int
        The number of the run that is active; 0 between runs.
    report : tuple
        Plain values that the backend adds to the answer of the run; empty again after it.

    Notes
    -----
    Thread-safe. A call from a thread that outlives its run is refused, and one from a process that a task has
    forked.
    """

    def __init__(self, runs: Channel, page: Page) -> None:
        self._runs = runs
        self._page = page
        self._process = os.getpid()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Callable[[Frame], None]] = {}
        self.run = 0
        self.report: tuple[Any, ...] = ()

    def call(self, name: str, *args: object, **kwargs: object) -> Any:
        """Ask the worker to do `name`, and wait; raises what it raised there."""
        number = next(self._numbers)
        reply: queue.SimpleQueue[Frame] = queue.SimpleQueue()
        self._waiting[number] = reply.put
        self._request(number, name, args, kwargs)
        return _answer(reply.get())

    def begin(self, outcome: Future[Any], name: str, *args: object) -> None:
        """The same without waiting: the outcome gets the answer, in another thread."""
        number = next(self._numbers)
        self._waiting[number] = partial(_settle, outcome)
        self._request(number, name, args, {})

    @property
    def is_forked(self) -> bool:
        """Whether this is another process, which a task has forked."""
        return os.getpid() != self._process

    @property
    def is_open(self) -> bool:
        """Whether the worker can be asked for something."""
        return self.run != 0 and not self.is_forked

    @property
    def stopped(self) -> bool:
        """Whether the run that is active is to stop."""
        return self.run != 0 and self._page.stop == self.run

    def call_begins(self) -> None:
        """The run's time begins."""
        self._page.called = monotonic()

    def tell(self, name: str, *args: object, **kwargs: object) -> None:
        """Have the worker do `name`, and don't wait; nobody hears whether it could."""
        self._request(0, name, args, kwargs)

    def _request(self, number: int, name: str, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        run = self.run
        try:
            self._check_open(name)
            parts = _pickled_arguments(args, kwargs)
            self._runs.send(Kind.REQUEST, number, (run, name), parts)
        except BaseException:
            self._waiting.pop(number, None)
            raise

    def _check_open(self, name: str) -> None:
        if self.is_forked:
            raise WorkerUnreachable(
                f"{name!r} was asked of the worker in a process that a task forked: only the task's own "
                "process can reach the worker. Ask there, and hand the answer to the processes that it forks."
            )
        if not self.run:
            raise WorkerUnreachable(
                f"{name!r} was asked of the worker in a thread that has outlived its task: the worker can be "
                "reached only while a task runs. Wait for the thread in the task."
            )

    def answer(self, frame: Frame) -> None:
        self._waiting.pop(frame.number)(frame)


def _answer(frame: Frame) -> Any:
    if frame.envelope[0]:
        return loads(frame.parts)
    raise load_exception(frame.parts)


def _settle(outcome: Future[Any], frame: Frame) -> None:
    try:
        outcome.set_result(_answer(frame))
    except Exception as error:  # whoever waits for the outcome sees it
        outcome.set_exception(error)


def _pickled_arguments(args: tuple[object, ...], kwargs: dict[str, object]) -> list[Part]:
    try:
        return dumps((args, kwargs))
    except Exception as error:
        raise unpicklable([*enumerate_arguments(args, kwargs)], error) from error


def enumerate_arguments(args: tuple[object, ...], kwargs: dict[str, object]) -> list[tuple[str, object]]:
    """The arguments of a call with the names that an error calls them by."""
    return [(f"argument {n}", a) for n, a in enumerate(args)] + [
        (f"argument {name!r}", value) for name, value in kwargs.items()
    ]


def main(runs: int, answers: int, page: int) -> None:
    """Serve runs until the worker is gone; the numbers are descriptors that this process was given."""
    for fd in (runs, answers, page):
        os.set_inheritable(fd, False)
    reset_signals()
    print_promptly()
    become_subreaper()
    wake_at_parents_death()
    _be_taken_first()
    keep_warm()
    shared = Page(page)
    faulthandler.enable(page)
    faulthandler.register(STACK_SIGNAL, page)
    # tasks must not find this program in `__main__`, nor must multiprocessing in a task
    sys.modules["__main__"] = types.ModuleType("__main__")
    channel = Channel(socket.socket(fileno=runs))
    link = Link(channel, shared)
    signal.signal(signal.SIGINT, partial(_interrupt, link))
    answering = Channel(socket.socket(fileno=answers))
    threading.Thread(target=_listen, args=(answering, link), name="skyward-listener", daemon=True).start()
    _reseed()
    os.register_at_fork(after_in_child=partial(become_ordinary, STACK_SIGNAL))
    with forks_end_here():
        share_from, health_check = _prepare(channel.receive(), link)
    channel.send(Kind.READY, 0, ())
    _serve(channel, link, shared, Exchange(channel, share_from), health_check)
    end_as_a_program_does()


def reset_signals() -> None:
    """Take the defaults: what the worker ignores or blocks survives exec and fork."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _be_taken_first() -> None:
    """Have the kernel, if it runs out of memory, take this process before the worker with its results."""
    score = Path("/proc/self/oom_score_adj")
    with suppress(OSError, ValueError):
        score.write_text(str(min(_WORST_SCORE, int(score.read_text()) + _MORE)))


def _interrupt(link: Link, number: int, frame: types.FrameType | None) -> None:
    """SIGINT, in the main thread: from the worker it concerns one run; from elsewhere, this process."""
    if link.run or link.is_forked:
        raise KeyboardInterrupt
    exit_now(_INTERRUPTED)


def _reseed() -> None:
    """Give this process random numbers of its own: the template's are every child's."""
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()
    if "torch" in sys.modules:
        sys.modules["torch"].seed()


def _listen(answers: Channel, link: Link) -> None:
    while True:
        try:
            frame = answers.receive()
        except ChannelClosed:
            _exit_with_all()
        link.answer(frame)


def _exit_with_all() -> NoReturn:
    """The worker is gone: end this process with all that its tasks have started."""
    end_descendants(os.getpid(), _PATIENCE)
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(0)


def _prepare(frame: Frame, link: Link) -> tuple[int | None, _Check | None]:
    """Make ready for runs; returns from which size on results are shared, and how to see that all is well."""
    path, authkey, backend, modules, share_from = frame.envelope
    sys.path[:] = path
    current_process().authkey = authkey
    argument, *calls = frame.parts
    if backend:
        module, _, name = backend.partition(":")
        getattr(import_module(module), name)(bytes(argument), link)
    for module in modules:
        import_module(module)
    initializer, health_check = loads(calls)
    if initializer is not None:
        initializer()
    return share_from, health_check


def _serve(runs: Channel, link: Link, page: Page, exchange: Exchange, health_check: _Check | None) -> None:
    while True:
        try:
            frame = exchange.next_run()
        except ChannelClosed:
            return
        if frame is None:
            return
        page.called = 0.0
        page.begun = frame.number
        (kind, sizes, parts), is_healthy = _run(frame, link, exchange, health_check)
        flush()
        del frame
        envelope = (link.report, sizes, is_healthy, exchange.is_short)
        try:
            runs.send(kind, page.begun, envelope if envelope != _ALL_IS_WELL else (), parts)
        except ChannelClosed:
            return
        link.report = ()
        del parts
        exchange.tidy()


def _run(frame: Frame, link: Link, exchange: Exchange, health_check: _Check | None) -> tuple[_Outcome, bool]:
    """Carry a run out; an interrupt that comes anywhere in here ends the process."""
    try:
        link.run = frame.number
        outcome = _outcome(frame, link, exchange)
        is_healthy = outcome[0] is Kind.RESULT or health_check is None or _is_healthy(health_check)
        link.run = 0
    except KeyboardInterrupt:
        _report_interrupt(link)
        exit_now(_INTERRUPTED)
    return outcome, is_healthy


def _is_healthy(check: _Check) -> bool:
    try:
        with forks_end_here():
            found = check()
        return found is None or bool(found)
    except KeyboardInterrupt:
        raise
    except BaseException:
        traceback.print_exc()
        return False


def _report_interrupt(link: Link) -> None:
    """Say where the run stood, unless that was asked for."""
    if not link.stopped:
        traceback.print_exc()


def _outcome(frame: Frame, link: Link, exchange: Exchange) -> _Outcome:
    try:
        return Kind.RESULT, *_call(frame, link, exchange)
    except SystemExit as leaving:
        leave(leaving)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        # cut our own frames off: what is left is the task's, and crosses to its caller
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next
        return Kind.ERROR, (), dump_exception(error.with_traceback(trace))


def _call(frame: Frame, link: Link, exchange: Exchange) -> tuple[tuple[int | None, ...], list[Part]]:
    with forks_end_here():
        function, args, kwargs = exchange.call(frame)
        link.call_begins()
        value = function(*args, **kwargs)
    try:
        parts = dumps(value)
    except Exception as error:
        raise unpicklable([("the result", value)], error) from error
    return exchange.result(parts, frame.number)

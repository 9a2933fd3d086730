"""A slot's process: it takes runs from one socket, one at a time, until the socket ends.

```
 main thread      waits on `runs`; unpickles, calls, pickles, answers
 listener thread  waits on `answers`: hands answers to the threads that asked, writes the stacks of all
                  threads; exits when `answers` ends
```

A run is stopped by its number in the shared page and a SIGINT: the handler runs in the main thread, and
raises KeyboardInterrupt there only while that very run is active. The template notices the worker's end, and
kills this process; the listener does so if both have ended at once.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import socket
import sys
import threading
import types
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from multiprocessing.process import current_process
from pathlib import Path
from typing import NoReturn

from skyward_dask.slots.channel import Channel, ChannelClosed
from skyward_dask.slots.child.exchange import Exchange
from skyward_dask.slots.child.exits import INTERRUPTED, end_as_a_program_does, exit_now
from skyward_dask.slots.child.forks import become_ordinary, forks_end_here
from skyward_dask.slots.child.heap import keep_warm
from skyward_dask.slots.child.leftovers import Leftovers
from skyward_dask.slots.child.link import Link
from skyward_dask.slots.child.orphans import Orphans
from skyward_dask.slots.child.prompt import print_promptly
from skyward_dask.slots.child.randomness import Generators
from skyward_dask.slots.child.serving import Server
from skyward_dask.slots.child_messages import Look, Prepare, Ready
from skyward_dask.slots.framing import Frame
from skyward_dask.slots.pickling import loads
from skyward_dask.slots.status_page import STACK_SIGNAL, Page
from skyward_dask.slots.trees import become_subreaper, end_all_but_trackers, wake_at_parents_death

#: Half of the kernel's scale: a child is above any worker that isn't above half of the scale itself.
_MORE, _WORST_SCORE = 500, 1000
#: Seconds that a child without a worker and a template spends on killing what its tasks have started.
_PATIENCE = 1.0


def main(runs: int, answers: int, page: int, generators: Generators | None = None) -> None:
    """Serve runs until the worker has ended.

    Parameters
    ----------
    runs, answers, page : int
        Descriptors that this process was given.
    generators : Generators, optional
        Those of the template, which would produce the same numbers in every child.
    """
    for fd in (runs, answers, page):
        os.set_inheritable(fd, False)
    reset_signals()
    print_promptly()
    become_subreaper()
    wake_at_parents_death()
    _be_taken_first()
    _give_way()
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
    listening = threading.Thread(target=_listen, args=(answering, link, shared), name="skyward-listener")
    listening.daemon = True
    listening.start()
    if generators is not None:
        generators.reseed()
    os.register_at_fork(after_in_child=partial(become_ordinary, STACK_SIGNAL))
    orphans = Orphans()
    with forks_end_here():
        share_from, health_check = _prepare(channel.receive(), link)
    exchange = link.exchange = Exchange(channel, share_from, orphans)
    channel.send(Ready())
    Server(channel, link, shared, exchange, Leftovers(), health_check).serve()
    end_as_a_program_does()


def reset_signals() -> None:
    """Restore the defaults: signals that the worker ignores or blocks stay so across exec and fork."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _be_taken_first() -> None:
    """If memory runs out, have the kernel kill this process before the worker, which holds results."""
    score = Path("/proc/self/oom_score_adj")
    with suppress(OSError, ValueError):
        score.write_text(str(min(_WORST_SCORE, int(score.read_text()) + _MORE)))


def _give_way() -> None:
    """Interrupt neither the worker nor another child when a run arrives: wait for a core, or a turn.

    Where slots outnumber cores, each interruption costs both sides what they have in the core's caches.
    """
    if hasattr(os, "SCHED_BATCH") and os.sched_getscheduler(0) == os.SCHED_OTHER:
        with suppress(OSError):  # a sandbox may not allow it
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _interrupt(link: Link, number: int, frame: types.FrameType | None) -> None:
    """Handle SIGINT, in the main thread: from the worker it stops one run; from elsewhere, this process."""
    if link.run or link.is_forked:
        raise KeyboardInterrupt
    exit_now(INTERRUPTED)


def _listen(answers: Channel, link: Link, page: Page) -> None:
    page.listener = threading.get_native_id()
    while True:
        try:
            frame = answers.receive()
        except ChannelClosed:
            _exit_with_all()
        if isinstance(frame.message, Look):
            page.tell_stacks(frame.number)
        else:
            link.answer(frame)


def _exit_with_all() -> NoReturn:
    """The worker has ended: end this process with all that its tasks have started."""
    trackers = end_all_but_trackers(os.getpid(), _PATIENCE)
    if os.getpgrp() == os.getpid() and not trackers:  # trackers end once this process has
        os.killpg(0, signal.SIGKILL)
    os._exit(0)


def _prepare(frame: Frame, link: Link) -> tuple[int | None, Callable[[], object] | None]:
    """Prepare for runs; returns the size from which results are shared, and the health check."""
    wanted, (argument, *calls) = frame.message, frame.parts
    assert isinstance(wanted, Prepare)
    sys.path[:] = wanted.path
    current_process().authkey = wanted.authkey
    if wanted.backend:
        module, _, name = wanted.backend.partition(":")
        getattr(import_module(module), name)(bytes(argument), link)
    for module in wanted.modules:
        import_module(module)
    initializer, health_check = loads(calls)
    if initializer is not None:
        initializer()
    return wanted.share_from, health_check

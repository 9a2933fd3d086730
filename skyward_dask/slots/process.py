"""The worker's end of one child process: start it, run one call at a time in it, tell how it died."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skyward_dask.errors import SlotCrashed
from skyward_dask.slots.channel import Channel, ChannelClosed, Frame, Kind, Part
from skyward_dask.slots.forms import Form, share
from skyward_dask.slots.lending import Lender
from skyward_dask.slots.output import Output, Sink
from skyward_dask.slots.page import Page
from skyward_dask.slots.pickling import dump_exception, dumps, load_exception, loads, unpicklable
from skyward_dask.slots.segments import Segments

#: Where `skyward_dask` itself is found, before the child has the worker's `sys.path`.
_ROOT = str(Path(__file__).parents[2])
_PROGRAM = (
    "import sys; sys.path.insert(0, {root!r}); from skyward_dask.slots.child import main; main({arguments})"
)
#: One thread for each slot: N slots with a pool of N threads each would fight for the same cores.
_ONE_THREAD = {
    f"{library}_THREADS": "1"
    for library in ("OMP_NUM", "OPENBLAS_NUM", "MKL_NUM", "BLIS_NUM", "NUMEXPR_NUM", "VECLIB_MAXIMUM")
}
#: Dask's own (distributed.nanny): the same string has the same hash in all slots of all nodes.
_HASH_SEED = "6640"


@dataclass(frozen=True, slots=True)
class Preparation:
    """What a child does before its first run.

    Attributes
    ----------
    env : mapping of str to str
        Added to the worker's environment; ``"{slot}"`` in a value becomes the slot's index.
    pre_import : tuple of str
        Modules to import.
    initializer : callable, optional
        Called last, without arguments.
    backend : str
        ``"module:function"``, called first with `backend_argument` and the child's `Link`.
    backend_argument : bytes
        Opaque here.
    """

    env: Mapping[str, str] = field(default_factory=dict)
    pre_import: tuple[str, ...] = ()
    initializer: Callable[[], object] | None = None
    backend: str = ""
    backend_argument: bytes = b""

    def environment(self, slot: int) -> dict[str, str]:
        """The whole environment of the child in the slot of that index."""
        own = {"PYTHONHASHSEED": _HASH_SEED, **os.environ, **_ONE_THREAD}
        return own | {name: value.replace("{slot}", str(slot)) for name, value in self.env.items()}


@dataclass(frozen=True, slots=True)
class Request:
    """One call for a slot.

    Attributes
    ----------
    key : str
        The task's name in errors and in its output.
    function, args, kwargs
        The call; pickled on the way.
    serve : callable
        Carries out what the task asks the worker for: ``serve(name, args, kwargs)``. Called in the thread
        that waits for the run.
    pieces : callable
        Yields the call's parts with the names that an error should call them by.
    attached : tuple of Form
        Further positional arguments, in their pickled form.
    """

    key: str
    function: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    serve: Callable[[str, tuple[Any, ...], dict[str, Any]], Any] | None = None
    pieces: Callable[[], Iterator[tuple[str, object]]] | None = None
    attached: tuple[Form, ...] = ()

    def pickled(self, segments: Segments | None) -> tuple[Form, ...]:
        """The call and what is attached to it.

        Raises
        ------
        SerializationError
            Something can't be pickled; the error names it.
        SharedMemoryError
            There is no room for a large argument.
        """
        try:
            parts = dumps((self.function, self.args, dict(self.kwargs)))
        except Exception as error:
            raise unpicklable(self.named(), error) from error
        return share(parts, segments), *self.attached

    def named(self) -> Iterator[tuple[str, object]]:
        if self.pieces is not None:
            yield from self.pieces()
        yield "the function", self.function
        yield from ((f"argument {n}", value) for n, value in enumerate(self.args))
        yield from ((f"argument {name!r}", value) for name, value in self.kwargs.items())


@dataclass(frozen=True, slots=True)
class Death:
    """How a child ended: an exit code, or the name of a signal."""

    exitcode: int | None
    signal: str | None
    stack: str
    stderr: str


class NotBegun(Exception):
    """The child died before it had begun the run: another may have it."""


class Ended(Exception):
    """The child was killed because its pool ended."""


class ChildProcess:
    """A child and the worker's ends of its sockets and pipes.

    Parameters
    ----------
    slot, generation : int
        Whose child it is.
    preparation : Preparation
    sink : callable
        Takes the lines that the child writes.
    segments : Segments, optional
        Shared memory; everything goes over the socket without it.

    Notes
    -----
    Made, watched and reaped by the supervisor's thread; `run` is called by one thread at a time.
    """

    def __init__(
        self,
        slot: int,
        generation: int,
        preparation: Preparation,
        sink: Sink,
        segments: Segments | None = None,
    ) -> None:
        self.lender = Lender(segments)
        self.slot = slot
        self.generation = generation
        self.death: Death | None = None
        self.died = threading.Event()
        self.unwanted = False
        self.killed = False
        self._dying = threading.Lock()  # nobody signals a pidfd whose number may be another's by now
        self._numbers = 0
        self._closed = False
        self.page = Page()
        self.output = Output(sink)
        ours, theirs = socket.socketpair()
        answers, answered = socket.socketpair()
        self.runs, self.answers = Channel(ours), Channel(answers)
        with theirs, answered:
            self._popen = self._start(preparation, theirs.fileno(), answered.fileno())
        self.output.close_writers()
        self.pid = self._popen.pid
        self.pidfd = os.pidfd_open(self.pid) if hasattr(os, "pidfd_open") else None

    def _start(self, preparation: Preparation, runs: int, answers: int) -> subprocess.Popen[bytes]:
        inherited = (runs, answers, self.page.fd)
        arguments = ", ".join(map(str, (*inherited, os.getpid())))
        flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # as multiprocessing
        return subprocess.Popen(
            [sys.executable, *flags, "-P", "-c", _PROGRAM.format(root=_ROOT, arguments=arguments)],
            stdin=subprocess.DEVNULL,
            stdout=self.output.writers["stdout"],
            stderr=self.output.writers["stderr"],
            pass_fds=inherited,
            env=preparation.environment(self.slot),
            process_group=0,  # Ctrl-C at the worker's terminal is the worker's affair
        )

    def prepare(self, preparation: Preparation, initializer: list[Part]) -> None:
        """Tell the child what to do before its first run; it answers with READY."""
        path = [os.getcwd() if entry == "" else entry for entry in sys.path]
        share_from = self.lender.share_from
        envelope = (path, preparation.backend, preparation.pre_import, share_from)
        # a child that is dead already is noticed by its pidfd
        with suppress(ChannelClosed):
            self.runs.send(Kind.PREPARE, 0, envelope, [preparation.backend_argument, *initializer])

    def is_ready(self) -> bool:
        """Take the word that came on `runs` while the child was starting; False: it is about to die."""
        try:
            return self.runs.receive().kind is Kind.READY
        except ChannelClosed:
            return False

    def run(self, request: Request, forms: tuple[Form, ...]) -> Form:
        """Run the call and return its value in its pickled form, or raise what it raised.

        Raises
        ------
        SlotCrashed
            The child died while it ran the call.
        NotBegun
            It died before that.
        Ended
            The pool ended it.
        """
        self._numbers += 1
        self.output.begin(request.key)
        try:
            self.lender.send(self.runs, self._numbers, forms)
            reply = self._wait(request)
        except ChannelClosed:
            raise self._how_it_died(request) from None
        except BaseException:
            self.kill()  # the run goes on in there, and its answer would be taken for the next one's
            raise
        self.output.end()
        if reply.kind is Kind.ERROR:
            raise load_exception(reply.parts)
        return self.lender.collect(reply)

    def _wait(self, request: Request) -> Frame:
        while True:
            frame = self.runs.receive()
            if frame.kind is Kind.ALLOCATE:
                self.lender.grant(self.runs, frame)
            elif frame.kind is Kind.REQUEST:
                self._serve(request, frame)
            else:
                return frame

    def _serve(self, request: Request, frame: Frame) -> None:
        run, name = frame.envelope
        try:
            if run != self._numbers:
                raise RuntimeError(f"{name} needs the worker, and the task that asked has ended")
            if request.serve is None:
                raise RuntimeError(f"{name} needs a worker, and nobody here serves it")
            args, kwargs = loads(frame.parts)
            done, parts = True, dumps(request.serve(name, args, kwargs))
        except Exception as error:  # it is the task's to see
            done, parts = False, dump_exception(error)
        self.answers.send(Kind.ANSWER, frame.number, (done,), parts)

    def _how_it_died(self, request: Request) -> Exception:
        # An end of file is a death, or a child that closed its sockets: then this makes it one. A process
        # that is exiting already keeps its exit code.
        self.kill()
        self.died.wait()
        death = self.death
        assert death is not None
        if self.unwanted:
            return Ended()
        if self.page.begun != self._numbers:
            return NotBegun()
        return SlotCrashed(request.key, self.pid, death.exitcode, death.signal, death.stack, death.stderr)

    def kill(self) -> None:
        """Kill the child, if it still lives; its process group follows when it is reaped."""
        self.killed = True
        with self._dying, suppress(ProcessLookupError):
            if self.died.is_set():
                return
            if self.pidfd is not None:
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            else:
                self._popen.kill()

    def close_gently(self) -> None:
        """Let an idle child leave by itself, as a program does."""
        with suppress(OSError):
            self.runs.socket.shutdown(socket.SHUT_WR)

    def wait(self) -> None:
        """Wait for the end of the process without reaping it, where there is no pidfd to wait on."""
        with suppress(ChildProcessError):
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)

    def reap(self) -> None:
        """Take note of how the child died, and end what is left of its process group."""
        # before it is reaped: until then nobody else can have its number
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        code = self._popen.wait()
        self.output.close()
        name = _signal_name(-code) if code < 0 else None
        self.death = Death(None if name else code, name, self.page.stack(), self.output.tail())
        with suppress(OSError):
            self.runs.socket.shutdown(socket.SHUT_RD)  # what it wrote can be read; then comes the end
        with self._dying:
            if self.pidfd is not None:
                os.close(self.pidfd)
            self.died.set()

    def close(self) -> None:
        """Close what `run` may still have needed, once; the child has been reaped."""
        if not self._closed:
            self._closed = True
            self.lender.close()
            self.runs.close()
            self.answers.close()
            self.page.close()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal between SIGRTMIN and SIGRTMAX has no name
        return f"signal {number}"

"""`SlotPool`: a `concurrent.futures.Executor` over a pool, whose loop has a thread of its own.

```
 caller's thread ── submit, stop, … ──▶ loop's thread: Pool ──▶ children
                 ◀─ Future ───────────
```
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary, WeakSet

from skyward_dask.slots.aside import HELPERS
from skyward_dask.slots.memory import segments as shared_memory
from skyward_dask.slots.memory.forms import Form
from skyward_dask.slots.memory.segments import SHARE_FROM
from skyward_dask.slots.outcomes import PoolClosed
from skyward_dask.slots.output import Sink
from skyward_dask.slots.pool import Pool
from skyward_dask.slots.pool_thread import PoolThread
from skyward_dask.slots.preparation import Preparation, Setting
from skyward_dask.slots.runs import Request, Run
from skyward_dask.slots.statistics import SlotStatistics

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

#: Arguments of these types that are no longer than this take no time to pickle.
_SMALL = (str, bytes, bytearray)
_PLAIN = (int, float, complex, bool, type(None))
_SHORT = 16 * 1024


def _ignore(*args: object) -> None:
    pass


class SlotPool(Executor):
    """Run calls in child processes: one call at a time in each; if a child dies, only its call is lost.

    Parameters
    ----------
    slots : int
        How many calls run at once.
    env : mapping of str to str or callable
        Added to the children's environment. ``"{slot}"`` in a value becomes the slot's index; a value that is
        a function is called with the index.
    pre_import : tuple of str
        Modules that each child imports before its first call.
    initializer : callable, optional
        Called in each child before its first call.
    health_check : callable, optional
        Called in the child after a call that raised; if it returns False or raises, the child is replaced.
    backend : str
        ``"module:function"``, called in each child first, with `backend_argument` and a `Link` through which
        the child's tasks can make requests (`Request.serve`).
    backend_argument : bytes
    max_tasks : int, optional
        Each child is replaced after this many calls.
    grace : float
        Seconds between interrupting a call that is stopped and killing its child.
    eager : bool
        Start the children now; otherwise each when it is first needed.
    share_from : int or None
        Size in bytes from which a buffer (of a NumPy array, a DataFrame, …) goes through shared memory; None
        for never.
    on_output : callable
        Takes ``(key, "stdout" or "stderr", line)``; called in the pool's thread.
    on_text : callable
        Takes ``("stdout" or "stderr", text)`` as the text arrives; called in the pool's thread.
    on_event : callable
        Takes ``("start", "crash", "kill", "unhealthy", "replace" or "failed-start", slot, pid)``; called in
        the pool's thread.

    Raises
    ------
    SlotStartFailed
        By a call, when children can't start. `wait_ready` raises it without a call.

    Examples
    --------
    >>> with SlotPool(2) as pool:
    ...     pool.submit(pow, 2, 5).result()
    32

    Notes
    -----
    Thread-safe. A script needs no ``if __name__ == "__main__"``: children don't import the script, and
    functions of ``__main__`` are pickled by value.
    """

    def __init__(
        self,
        slots: int,
        *,
        env: Mapping[str, Setting] | None = None,
        pre_import: tuple[str, ...] = (),
        initializer: Callable[[], object] | None = None,
        health_check: Callable[[], object] | None = None,
        backend: str = "",
        backend_argument: bytes = b"",
        max_tasks: int | None = None,
        grace: float = 0.5,
        eager: bool = True,
        share_from: int | None = SHARE_FROM,
        on_output: Callable[[str, str, str], None] = _ignore,
        on_text: Callable[[str, str], None] = _ignore,
        on_event: Callable[[str, int, int], None] = _ignore,
    ) -> None:
        _check_size(slots)
        preparation = Preparation(env or {}, pre_import, initializer, backend, backend_argument, health_check)
        segments = self.segments = shared_memory.create(share_from)
        helpers = ThreadPoolExecutor(HELPERS, thread_name_prefix="skyward-helper")
        make = partial(
            Pool, slots, preparation, segments, helpers, max_tasks=max_tasks, grace=grace, eager=eager,
            sink=Sink(on_output, on_text), on_event=on_event,
        )  # fmt: skip
        self._thread = PoolThread(make, helpers, segments)
        self._runs: WeakKeyDictionary[Future[Any], Run] = WeakKeyDictionary()
        self._closing = threading.Lock()
        self._is_closed = False
        weakref.finalize(self, self._thread.post, self._thread.pool.close).atexit = False
        _open_pools.add(self)

    # --- running -----------------------------------------------------------------------------------

    def run(self, request: Request) -> Any:
        """Run a call in a slot and return its value; see `submit` for what it may raise."""
        run = Run(request)
        del request  # an error that is raised refers to this frame
        return self.carry_out(run)

    def carry_out(self, run: Run) -> Any:
        """The same as `run`, for a run that may be interrupted meanwhile."""
        future: Future[Any] = Future()
        self._start(run, future)
        try:
            return future.result()
        finally:
            del future, run  # its error refers to this frame

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Schedule ``fn(*args, **kwargs)`` in a slot; see `concurrent.futures.Executor.submit`.

        Notes
        -----
        The future may raise `SlotCrashed` (the child died while it ran the call), `SlotStartFailed` (no child
        can be started), `SerializationError` (the call or its result can't be pickled), a
        `concurrent.futures.CancelledError` (it was stopped), or what the call raised.
        """
        is_large = not (_are_small(args) and _are_small(kwargs.values()))
        name = getattr(fn, "__qualname__", None) or repr(fn)
        run = Run(Request(name, fn, args, kwargs, is_large=is_large))
        future: Future[T] = Future()
        run.may_begin = partial(_may_begin, future)
        self._runs[future] = run
        self._start(run, future)
        return future

    def _start(self, run: Run, future: Future[Any]) -> None:
        run.when_over(partial(_settle, future, self._thread.helpers))
        with self._closing:
            if self._is_closed:
                raise PoolClosed("the pool is shut down and takes no more calls")
            self._thread.post(self._thread.pool.start, run)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        **more: Any,
    ) -> Iterator[T]:
        """As `concurrent.futures.Executor.map`; each call is sent by itself, whatever the `chunksize`."""
        if chunksize < 1:
            raise ValueError(f"chunksize must be at least 1, not {chunksize}")
        return super().map(fn, *iterables, timeout=timeout, **more)  # Python 3.14 knows `buffersize`

    def stop(self, future: Future[Any]) -> bool:
        """Cancel a call that waits, or stop one that runs: its result is a CancelledError.

        Returns whether it will be; False if the call has ended, or is about to.
        """
        is_cancelled = future.cancel()
        return self.interrupt(self._runs[future]) or is_cancelled

    def interrupt(self, run: Run) -> bool:
        """Stop a run: raise KeyboardInterrupt in it; after the grace period, kill it and what it started.

        Returns whether its outcome will be a CancelledError.
        """
        return self._thread.call(self._thread.pool.stop, run, default=False)

    def secede(self, run: Run) -> None:
        """Let the run continue outside its slot, which gets another child."""
        self._thread.call(self._thread.pool.secede, run)

    # --- changing and looking -------------------------------------------------------------------------

    def resize(self, slots: int) -> None:
        """Change the number of slots; a slot that is removed finishes its run first."""
        _check_size(slots)
        self._thread.call(self._thread.pool.resize, slots)

    def renew(self, backend_argument: bytes) -> None:
        """Replace every child, busy ones after their runs: what they know about this process is stale."""
        self._thread.call(self._thread.pool.renew, backend_argument)

    def stack(self, run: Run) -> str:
        """The stacks of all threads of a run's process, by faulthandler; empty if no process has the run."""
        return self._thread.wait_for(self._thread.pool.look(run))

    def wait_ready(self) -> None:
        """Wait until one child is ready; raises `SlotStartFailed` if none can start."""
        self._thread.wait_for(self._thread.pool.wait_ready())

    def snapshots(self) -> tuple[SlotStatistics, ...]:
        """The current state of each slot; empty once the pool has ended."""
        return self._thread.call(self._thread.pool.snapshots, default=())

    def own_memory(self) -> int:
        """Bytes of the children's own pages, and of those of all processes that they started."""
        return self._thread.call(self._thread.pool.own_memory, default=0)

    # --- ending ----------------------------------------------------------------------------------------

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls, and end the children when the calls that were taken are done.

        Parameters
        ----------
        wait : bool
            Return only when no child is alive any more.
        cancel_futures : bool
            Cancel calls that haven't begun.
        """
        if cancel_futures:
            for future in list(self._runs):
                self._cancel(future)
        self._close(self._thread.pool.close, wait)

    def _cancel(self, future: Future[Any]) -> None:
        if future.cancel() and (run := self._runs.get(future)) is not None:
            self._thread.post(self._thread.pool.stop, run)

    def end(self) -> None:
        """End the pool now: running calls are killed and raise `concurrent.futures.CancelledError`."""
        self._close(self._thread.pool.end, wait=True)

    def _close(self, how: Callable[[], None], wait: bool) -> None:
        with self._closing:
            self._is_closed = True
            self._thread.post(how)
        if wait:
            self._thread.join()


#: Pools that are closed when the interpreter exits, as `concurrent.futures` does with its executors.
_open_pools: WeakSet[SlotPool] = WeakSet()


def _at_exit() -> None:
    for pool in list(_open_pools):
        pool.shutdown()


threading._register_atexit(_at_exit)  # type: ignore[attr-defined]  # as `concurrent.futures` does


def _check_size(slots: int) -> None:
    if slots < 1:
        raise ValueError(f"a pool needs at least one slot, not {slots}")


def _may_begin(future: Future[Any]) -> bool:
    return future.running() or future.set_running_or_notify_cancel()


def _settle(future: Future[Any], helpers: Executor, run: Run) -> None:
    """Give a future the outcome of its run; in a helper thread if that takes long."""
    outcome = run.outcome
    if isinstance(outcome, Form) and outcome.is_long:
        with suppress(RuntimeError):  # no thread can start: a system limit, or the interpreter is exiting
            helpers.submit(_settle_with, future, outcome)
            return
    if not future.cancelled():
        _settle_with(future, outcome)


def _settle_with(future: Future[Any], outcome: Form | BaseException | None) -> None:
    value, error = _loaded(outcome) if isinstance(outcome, Form) else (None, outcome)
    try:
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)
    except InvalidStateError:  # it was cancelled meanwhile
        pass
    except BaseException:  # raised by a callback: nobody else sees it, and this thread must go on
        logger.exception("a callback of %r has raised", future)


def _loaded(form: Form) -> tuple[Any, BaseException | None]:
    """The value of a form, or the error if it has none: one that doesn't refer to the future that gets it."""
    try:
        return form.load(), None
    except BaseException as error:
        return None, error


def _are_small(values: Iterable[object]) -> bool:
    """Whether the values take no time to pickle, as far as a short look can tell."""
    return all(isinstance(v, _PLAIN) or (isinstance(v, _SMALL) and len(v) < _SHORT) for v in values)

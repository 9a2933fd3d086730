"""Dask's side in a slot's process: a task runs there as it would in a thread of its worker."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from time import thread_time, time
from typing import Any

import dask
from dask.base import annotate
from distributed.metrics import context_meter

from skyward_dask.extension.child.futures import bind_to_a_client, lend_futures
from skyward_dask.extension.child.profiler import Sampler
from skyward_dask.extension.child.streams import GENERATORS, ChildStreams, Outbox, yielded
from skyward_dask.extension.child.usage import Meter
from skyward_dask.extension.child.worker_facade import ChildWorker, Introduction
from skyward_dask.extension.log_records import forward
from skyward_dask.extension.parcel import seal
from skyward_dask.extension.private import GraphNode, Task, set_executor, task_of_thread, worker_context
from skyward_dask.extension.registration import Nodes
from skyward_dask.extension.streams.places import of_this_process
from skyward_dask.extension.unrun import refuse_unrun
from skyward_dask.slots.child.forks import forks_end_here
from skyward_dask.slots.child.link import Link

#: Function, positional and keyword arguments of a task: half as long to pickle and to unpickle as the task.
Parts = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


@dataclass(slots=True)
class _Here:
    """The façade and the link of this process: a child has one worker."""

    prepared: tuple[bytes, Introduction] | None = None
    worker: ChildWorker = field(init=False)
    link: Link = field(init=False)
    sampler: Sampler | None = None
    meter: Meter = field(init=False)
    outbox: Outbox = field(init=False)
    metrics: list[tuple[Any, Any, Any]] = field(default_factory=list)
    lasting: ExitStack = field(default_factory=ExitStack)


_here = _Here()


def prepare(argument: bytes) -> None:
    """Take over the worker's configuration before children are forked, so that they share its memory."""
    introduction: Introduction = pickle.loads(argument)
    dask.config.update(dask.config.config, pickle.loads(introduction.config))
    _here.prepared = argument, introduction


def start(argument: bytes, link: Link) -> None:
    """Set up the worker's façade; called once in each child, before it imports any user module."""
    if _here.prepared is None or _here.prepared[0] != argument:
        prepare(argument)
    assert _here.prepared is not None
    introduction = _here.prepared[1]
    _here.link, _here.meter, _here.outbox = link, Meter(), Outbox(link)
    _here.worker = ChildWorker(introduction, link)
    worker_context.set(_here.worker)
    set_executor(_here.worker.executor)
    task_of_thread.execution_state = {"scheduler": introduction.scheduler, "worker": _here.worker}
    # as long as the process lives
    _here.lasting.enter_context(context_meter.add_callback(lambda *metric: _here.metrics.append(metric)))
    of_this_process.place = ChildStreams(link)
    bind_to_a_client(_here.worker)
    forward(link, introduction.levels)
    if dask.config.get("distributed.worker.profile.enabled"):
        _here.sampler = Sampler(link, run_task.__code__)


def run_task(
    spec: GraphNode | Parts,
    data: dict[Any, Any],
    key: Any,
    annotations: Mapping[str, Any],
    names: tuple[Any, ...],
    *attached: object,
) -> Any:
    """Compute a task in this process, in the context that its thread would have in the worker.

    `attached` are further dependencies of the task; their keys are `names`.
    """
    data.update(zip(names, attached, strict=True))
    del attached
    if isinstance(spec, tuple):
        spec = Task(key, spec[0], *spec[1], **spec[2])
    worker = _here.worker
    worker.executor.enter()
    _here.metrics.clear()
    if _here.sampler is not None:
        _here.sampler.begin()
    # without blocks for Dask's own functions: in a process that hardly ever runs, each costs a tenth of a run
    task_of_thread.start_time, task_of_thread.key = time(), key
    begun = thread_time()
    _here.meter.begin(begun)
    try:
        with annotate(**annotations) if annotations else nullcontext():
            with forks_end_here():
                result = spec(data)
            del data, spec  # a generator keeps what it needs
            if isinstance(result, GENERATORS):
                return yielded(result, worker, _here.link, _here.outbox)
            refuse_unrun(result, key)
            return result if lend_futures(result, worker, _here.link) else seal(result)
    finally:
        _report(begun, thread_time())
        del task_of_thread.start_time, task_of_thread.key


def _report(begun: float, ended: float) -> None:
    """Report the thread's CPU time, without what the task itself has measured, and the task's metrics."""
    used = _here.meter.end(ended)  # first: what comes next isn't the task's
    metrics, cpu = _here.metrics, ended - begun
    if metrics:
        cpu -= sum(value for _, value, unit in metrics if unit == "seconds")
    # users' labels can be any hashable objects, and their values any numbers; only plain ones are sent
    plain = [(_plain(label), _number(value), str(unit)) for label, value, unit in metrics]
    plain.append(("thread-cpu", max(0.0, cpu), "seconds"))
    samples = _here.sampler.end() if _here.sampler is not None else None
    _here.link.report = (plain, samples, *used)


def _number(value: Any) -> float:
    return value if type(value) is int else float(value)


def _plain(label: Any) -> Any:
    if isinstance(label, tuple):
        return tuple(map(_plain, label))
    return label if type(label) in (str, int, float, bool, type(None)) else str(label)


def report_in() -> int:
    """Wait until the worker lets this process continue; returns its process id."""
    _here.link.call("report in")
    return os.getpid()


def worker_of_this_process() -> ChildWorker | None:
    """The worker whose slot this process is, from any thread; None if it isn't a slot."""
    return getattr(_here, "worker", None)


def is_stopped() -> bool:
    """Whether the task that this process runs must stop."""
    link: Link | None = getattr(_here, "link", None)  # there is none if no worker has started this process
    return link is not None and link.stopped


def instance_of_this_process() -> tuple[int | None, Nodes] | None:
    """The slot of the task that this process runs, and the cluster's nodes; None while it runs none."""
    found: tuple[int | None, Nodes] | None = None
    if _here.link.is_forked or _here.link.run:  # in a fork, the call says what is wrong
        found = _here.link.call("instance")
    return found

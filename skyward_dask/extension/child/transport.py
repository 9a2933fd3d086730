"""The transport from a task in a process slot to collections: the worker asks on the task's behalf."""

from __future__ import annotations

import itertools
import os
from concurrent.futures import Future
from uuid import uuid4

from skyward_dask.errors import FORKED, OperatorError, WorkerUnreachable
from skyward_dask.shared.asks import Ask, Pending, Spec
from skyward_dask.slots.child.link import Link


class ChildTransport:
    """For a task in a process slot: the worker asks on its behalf."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._session = uuid4().hex
        self._process = os.getpid()
        self._numbers = itertools.count(1)

    def begin(self, spec: Spec, ask: Ask) -> Pending:
        self._refuse_elsewhere(spec)
        pending = Pending(self._session, next(self._numbers), (spec, ask.place))
        self._link.begin(pending, "collection", spec, ask, pending.id)
        return pending

    def took(self, pending: Pending) -> None:
        # the worker can't know whether this process still existed when the answer came
        self._link.tell("took", pending.id)

    def withdraw(self, pending: Pending, expired: bool) -> None:
        self._link.tell("withdraw", pending.id, expired)

    def destroy(self, spec: Spec) -> Future[None]:
        self._refuse_elsewhere(spec)
        done: Future[None] = Future()
        self._link.begin(done, "destroy_collection", spec)
        return done

    def is_on_loop(self) -> bool:
        return False

    def _refuse_elsewhere(self, spec: Spec) -> None:
        if os.getpid() != self._process:
            raise WorkerUnreachable(FORKED)
        if not self._link.run:
            raise OperatorError(
                f"{spec.kind} {spec.name!r} is used in a slot's process while no task runs there, by a "
                "thread that has outlived its task or by an initializer: what it takes would have no owner. "
                "Use it in a task."
            )

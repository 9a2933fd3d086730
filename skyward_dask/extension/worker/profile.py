"""Dask's profile and call stacks, including the frames of slots' processes."""

from __future__ import annotations

import asyncio
import linecache
import re
from collections.abc import Collection, Mapping
from typing import Any

from dask.utils import key_split
from distributed import Worker as DaskWorker
from distributed import profile

from skyward_dask.extension.child.task import run_task
from skyward_dask.extension.task_run import TaskRun
from skyward_dask.extension.tracebacks import is_our_line

#: A frame as faulthandler writes it.
_FRAME = re.compile(r'  File "(?P<file>.*)", line (?P<line>\d+) in (?P<name>.*)')

#: The frame of ours that steps a generator, in either place.
_STEP = re.compile(r'(producers|child/streams)\.py", line \d+, in step\b')


def add_samples(worker: DaskWorker, key: Any, samples: dict[str, Any]) -> None:
    """Merge a child's samples of a task into its worker's profile; on the worker's loop."""
    prefix = key_split(key)
    worker.profile_recent = profile.merge(worker.profile_recent, samples)
    worker.profile_keys[prefix] = profile.merge(worker.profile_keys[prefix], samples)


class CallStacks:
    """A worker's answer to ``client.call_stack()``. Used on the worker's loop only.

    Parameters
    ----------
    worker : distributed.Worker
    runs : mapping
        The runs of tasks, by key.
    """

    def __init__(self, worker: DaskWorker, runs: Mapping[Any, TaskRun]) -> None:
        self._worker, self._runs = worker, runs

    async def call_stack(self, keys: Collection[Any] | None = None) -> dict[Any, list[str]]:
        """The call stacks of running tasks."""
        runs = {key: run for key, run in self._runs.items() if keys is None or key in keys}
        stacks = self._worker.get_call_stack(keys)
        texts = await asyncio.gather(*(run.look() for run in runs.values()))
        found = {key: frames(text) for key, text in zip(runs, texts, strict=True)}
        stacks |= {key: stack for key, stack in found.items() if stack}
        stacks |= {key: after_step(stacks[key]) for key in runs if runs[key].is_stream and key in stacks}
        return {key: [frame for frame in stack if not is_our_line(frame)] for key, stack in stacks.items()}


def after_step(stack: list[str]) -> list[str]:
    """The frames of a generator, of a thread's stack; none if it isn't being stepped."""
    stepped = [n for n, frame in enumerate(stack) if _STEP.search(frame)]
    return stack[stepped[0] + 1 :] if stepped else []


def frames(text: str) -> list[str]:
    """The frames that `run_task` has called, from what faulthandler wrote in a child, outermost first."""
    found = [_FRAME.fullmatch(line) for line in text.splitlines()]
    inner: list[str] = []
    for match in found:
        if match is None:  # the heading of a thread
            inner = []
        elif match["file"] == run_task.__code__.co_filename and match["name"] == run_task.__name__:
            return inner[::-1]
        else:
            source = linecache.getline(match["file"], int(match["line"])).strip()
            inner.append(f'  File "{match["file"]}", line {match["line"]}, in {match["name"]}\n\t{source}')
    return []

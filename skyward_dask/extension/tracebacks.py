"""Tracebacks and stacks as Dask shows them: the frames of the user's functions, and none that led to them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import dropwhile
from pathlib import Path
from types import TracebackType

import dask.config

import skyward_dask
from skyward_dask.errors import SkywardError, SlotCrashed, TaskTimeout

_PACKAGE = str(Path(skyward_dask.__file__).parent)
#: The frames, besides ours, that lead to a task's function in the main thread of its slot's process.
_LEADING = ("_task_spec.py", '"<string>"')
_THREADING = "threading.py"


class shortened:  # noqa: N801  a block, as `dask.utils.shorten_traceback` is
    """Take our frames out of an exception that leaves the block, and out of the stack that it may carry.

    Notes
    -----
    An empty ``admin.traceback.shorten`` switches it off, as it does for Dask. A `with` statement re-raises
    without a frame of its own, so that none of ours is added on the way.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or not (paths := dask.config.get("admin.traceback.shorten", default=None)):
            return
        dasks = re.compile(f".*({'|'.join(paths)})").match
        error.__traceback__ = _shorten(error, trace, lambda file: is_ours(file) or bool(dasks(file)))
        for link in chain(error):
            link.__traceback__ = _shorten(link, link.__traceback__, is_ours)
        if isinstance(error, SlotCrashed | TaskTimeout):
            error.stack = without_ours(error.stack)


def is_ours(file: str) -> bool:
    """Whether a source file is of this package."""
    return file.startswith(_PACKAGE)


def chain(error: BaseException) -> Iterator[BaseException]:
    """The exceptions that caused this one, or that were being handled when it was raised."""
    seen, left = {id(error)}, [error.__cause__, error.__context__]
    while left:
        link = left.pop()
        if link is not None and id(link) not in seen:
            seen.add(id(link))
            left += [link.__cause__, link.__context__]
            yield link


def _shorten(
    error: BaseException, trace: TracebackType | None, leads: Callable[[str], bool]
) -> TracebackType | None:
    links = list(_links(trace))
    # the last one stays, to show where the error is; but what we raise on purpose says everything in its text
    last = [] if isinstance(error, SkywardError) and links and is_ours(_file(links[-1])) else links[-1:]
    while len(links) > 1 and leads(_file(links[0])):
        del links[0]
    shown: TracebackType | None = None
    for link in reversed([link for link in links[:-1] if not is_ours(_file(link))] + last):
        shown = TracebackType(shown, link.tb_frame, link.tb_lasti, link.tb_lineno)
    return shown


def _links(trace: TracebackType | None) -> Iterator[TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next


def _file(link: TracebackType) -> str:
    return link.tb_frame.f_code.co_filename


# --- stacks, as faulthandler writes them: innermost frame first, an empty line between threads ----------


def without_ours(stack: str) -> str:
    """A stack of a slot's process without our threads and the frames that lead to the task's function."""
    threads = (_users_frames(thread) for thread in stack.split("\n\n"))
    return "\n\n".join(thread for thread in threads if thread is not None)


def _users_frames(thread: str) -> str | None:
    lines = thread.splitlines()
    frames = [line for line in lines if line.startswith("  File ")]
    if not any(map(is_our_line, frames)):
        return thread
    outermost = list(dropwhile(lambda line: _THREADING in line, reversed(frames)))
    if len(outermost) < len(frames):  # not the main thread; perhaps one that the task started
        return None if not outermost or is_our_line(outermost[0]) else thread
    users = list(
        dropwhile(lambda line: is_our_line(line) or any(name in line for name in _LEADING), outermost)
    )
    heading = [line for line in lines if line not in frames]
    return "\n".join(heading + users[::-1]) if users else None


def is_our_line(line: str) -> bool:
    """Whether a line of a printed stack is a frame of ours."""
    return is_ours(line.removeprefix('  File "'))

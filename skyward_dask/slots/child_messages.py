"""What a worker and a slot's process tell each other.

| message | from → to | socket |
|---|---|---|
| `Prepare`, `Begin`, `Grant`, `Refuse` | worker → child | runs |
| `Ready`, `Ended`, `Raised`, `Allocate`, `Ask`, `Item`, `Items` | child → worker | runs |
| `Answer`, `Look` | worker → child | answers |

The fields are plain values. All that must be pickled is in the parts of the message's frame, and only the two
ends of a run unpickle it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

#: Segment, start of the range, start and size of the part; in bytes.
Place = tuple[int, int, int, int]
#: New segments as (number, size); segments with a lease; a place or None for each part.
Layout = tuple[tuple[tuple[int, int], ...], tuple[int, ...], tuple[Place | None, ...]]
#: Segment, start and size of a range to write to, and whether it has pages.
Target = tuple[int, int, int, bool]


class Prepare(NamedTuple):
    """Do this once, before the first run.

    Parts: the backend's argument; the pickled initializer and health check.

    Attributes
    ----------
    path : list of str
        For `sys.path`.
    authkey : bytes
        Multiprocessing's.
    backend : str
        ``module:function``, which is given the backend's argument; empty if there is none.
    modules : sequence of str
        To be imported.
    share_from : int or None
        Size in bytes from which buffers of results go into shared memory.
    """

    path: list[str]
    authkey: bytes
    backend: str
    modules: tuple[str, ...]
    share_from: int | None


class Ready(NamedTuple):
    """The child takes runs."""


class Begin(NamedTuple):
    """Begin this run. Parts: the pickled call and what is attached to it, without what is in shared memory.

    Attributes
    ----------
    layout : tuple or None
        Where the parts in shared memory are; None if there are none.
    counts : tuple of int
        How many parts the call, and each value that is attached to it, have; empty if there is the call only.
    """

    layout: Layout | None = None
    counts: tuple[int, ...] = ()


class Allocate(NamedTuple):
    """The run's result, or its next item, has large buffers of these sizes in bytes: where do they go?"""

    sizes: tuple[int, ...]


class Grant(NamedTuple):
    """They go into these places in shared memory.

    Attributes
    ----------
    segments : tuple
        Number and size of each segment that the child doesn't know yet; the descriptors are the frame's.
    places : tuple
        For each buffer the range for it.
    """

    segments: tuple[tuple[int, int], ...]
    places: tuple[Target, ...]


class Refuse(NamedTuple):
    """There is no room for them. Parts: the pickled error."""


class Ended(NamedTuple):
    """The run has ended. Parts: its pickled result or exception, without what is in shared memory.

    Attributes
    ----------
    raised : bool
        By an exception.
    report : tuple
        What the backend has to say about it.
    sizes : tuple of (int or None)
        For each part its size if it is in shared memory, else None; empty if none is.
    is_healthy : bool
        The process can take further runs.
    is_short : bool
        Not all descriptors of a frame have reached the process.
    seconds : float
        How long the process had the run.
    """

    raised: bool = False
    report: tuple[Any, ...] = ()
    sizes: tuple[int | None, ...] = ()
    is_healthy: bool = True
    is_short: bool = False
    seconds: float = 0.0


class Raised(NamedTuple):
    """How the run ends if the health check, which comes next, ends the process. Parts: the exception."""


class Item(NamedTuple):
    """The run has yielded. Parts: the pickled item; `sizes` is as in `Ended`."""

    sizes: tuple[int | None, ...] = ()


class Items(NamedTuple):
    """The run has yielded so many small items. Part: all of them, packed."""

    number: int


class Ask(NamedTuple):
    """The task asks the worker for something, under this number; 0 if it needs no answer.

    Parts: the pickled arguments.

    Attributes
    ----------
    run : int
        The number of the run that asks.
    name : str
        What it asks for.
    """

    run: int
    name: str


class Answer(NamedTuple):
    """The answer to the request of this number. Parts: the pickled value, or the error if `done` is False.

    `layout` is as in `Begin`.
    """

    done: bool
    layout: Layout | None = None


class Look(NamedTuple):
    """Write the stacks of all threads to the status page."""


MESSAGES: tuple[type[tuple[Any, ...]], ...] = (
    Prepare,
    Ready,
    Begin,
    Allocate,
    Grant,
    Refuse,
    Ended,
    Raised,
    Item,
    Items,
    Ask,
    Answer,
    Look,
)

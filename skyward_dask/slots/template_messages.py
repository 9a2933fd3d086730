"""What a worker and a template tell each other, over one socket.

| message | from → to |
|---|---|
| `Import`, `Fork`, `Guard` | worker → template |
| `Imported`, `Forked`, `NotForked`, `Exited` | template → worker |
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Import(NamedTuple):
    """Import what children can share. Part: the backend's argument.

    Attributes
    ----------
    path : list of str
        For `sys.path`.
    modules : list of str or None
        None if each child needs an environment of its own for its imports.
    backend : str
        ``module:function``; empty if there is none.
    """

    path: list[str]
    modules: list[str] | None
    backend: str


class Imported(NamedTuple):
    """The template starts children; `forks` says whether it forks them."""

    forks: bool


class Fork(NamedTuple):
    """Start a child with the frame's descriptors.

    Attributes
    ----------
    program : tuple or None
        Program, options of the interpreter, and environment of a child that is started by exec.
    """

    program: tuple[str, list[str], dict[str, str]] | None


class Forked(NamedTuple):
    """The child of the command of this number was started; its pidfd comes along, where there are any."""

    pid: int


class NotForked(NamedTuple):
    """It couldn't be started."""

    errno: int


class Guard(NamedTuple):
    """From now on there are runs with limits: enforce them if the worker can't."""


class Exited(NamedTuple):
    """A child, and everything that it started, are dead and reaped; `code` is as in `subprocess`."""

    pid: int
    code: int


MESSAGES: tuple[type[tuple[Any, ...]], ...] = (Import, Imported, Fork, Forked, NotForked, Guard, Exited)

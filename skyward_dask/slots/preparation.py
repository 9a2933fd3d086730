"""What a pool's processes are given before their first run."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.process import current_process

from skyward_dask.slots.framing import Part
from skyward_dask.slots.pickling import dumps, unpicklable

#: One thread for each slot: N slots with a pool of N threads each would compete for the same cores.
_ONE_THREAD = {
    f"{library}_THREADS": "1"
    for library in (
        "BLIS_NUM",
        "MKL_NUM",
        "NUMBA_NUM",
        "NUMEXPR_NUM",
        "OMP_NUM",
        "OPENBLAS_NUM",
        "POLARS_MAX",
        "RAYON_NUM",
        "VECLIB_MAXIMUM",
    )
}
#: Dask's own (distributed.nanny): the same string has the same hash in all slots of all nodes.
_HASH_SEED = "6640"
#: A value of a child's environment: text, or a function of the slot's index.
Setting = str | Callable[[int], str]


@dataclass(frozen=True, slots=True)
class Preparation:
    """What a child does before its first run.

    Attributes
    ----------
    env : mapping of str to str or callable
        Added to the worker's environment. ``"{slot}"`` in a value becomes the slot's index; a value that is a
        function is called with the index.
    pre_import : tuple of str
        Modules to import.
    initializer : callable, optional
        Called last, without arguments.
    backend : str
        ``"module:function"``, called first with `backend_argument` and the child's `Link`. Before that, a
        function ``prepare`` of the module, if there is one, is called with the argument in the process that
        forks the children: they share what it makes.
    backend_argument : bytes
        Opaque here.
    health_check : callable, optional
        Called, without arguments, after a call that raised: False or an exception means that the child must
        be replaced.
    """

    env: Mapping[str, Setting] = field(default_factory=dict)
    pre_import: tuple[str, ...] = ()
    initializer: Callable[[], object] | None = None
    backend: str = ""
    backend_argument: bytes = b""
    health_check: Callable[[], object] | None = None

    def environment(self, slot: int | None = None) -> dict[str, str]:
        """The whole environment of the child in the slot with that index, or of the template."""
        own = {"PYTHONHASHSEED": _HASH_SEED, **os.environ, **_ONE_THREAD}
        return own | {
            name: text for name, value in self.env.items() if (text := _text(name, value, slot)) is not None
        }

    def imports(self) -> list[str] | None:
        """What children can share by fork; None if each needs an environment of its own for its imports."""
        if any(callable(value) or "{slot}" in value for value in self.env.values()):
            return None
        backend = [self.backend.partition(":")[0]] if self.backend else []
        return ["cloudpickle", *backend, *self.pre_import]

    def calls(self) -> list[Part]:
        """The initializer and the health check, pickled; raises `SerializationError`, which names one."""
        try:
            return dumps((self.initializer, self.health_check))
        except BaseException as error:
            named = ("the initializer", self.initializer), ("the health check", self.health_check)
            raise unpicklable(named, error) from error

    def authkey(self) -> bytes:
        """The key with which multiprocessing authenticates: with it, a manager's proxy works in a child."""
        return bytes(current_process().authkey)

    def path(self) -> list[str]:
        """The worker's ``sys.path``, fit for a process that may be in another directory."""
        return [current_directory() if entry == "" else entry for entry in sys.path]


def current_directory() -> str:
    """This process's current directory; empty if it was deleted."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def _text(name: str, value: Setting, slot: int | None) -> str | None:
    """An environment variable's value in a slot; None if the template, which has no slot, must do without."""
    if isinstance(value, str):
        return value.replace("{slot}", "" if slot is None else str(slot))
    if slot is None:
        return None
    try:
        text: object = value(slot)
    except BaseException as error:
        raise ValueError(f"the function for {name} raised {error!r}") from error
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a string, and its function returned {text!r}")
    return text

"""Worker executors for Dask: thread or process slots in each dask-worker.

Names are imported at their first use: a slot's process imports this package on its way to
`skyward_dask.slots`, and needs neither Dask nor distributed for that. `__init__.pyi` is the typed view.
"""

from __future__ import annotations

from importlib import import_module

_HOMES = {
    "skyward_dask.errors": (
        "BrokenBarrierError",
        "CollectionConflict",
        "CollectionLost",
        "ConfigurationError",
        "InstallError",
        "LockError",
        "NoWorkers",
        "OperatorError",
        "SerializationError",
        "SharedMemoryError",
        "SkywardError",
        "SlotCrashed",
        "SlotOutOfMemory",
        "SlotStartFailed",
        "StreamsNotSupported",
        "TaskTimeout",
        "WorkerUnreachable",
    ),
    "skyward_dask.config": ("Worker",),
    "skyward_dask.extension.checking": ("Check", "WorkerCheck", "check"),
    "skyward_dask.extension.control": ("install", "resize", "uninstall"),
    "skyward_dask.extension.annotations": ("options",),
    "skyward_dask.extension.monitoring": (
        "SlotStatistics",
        "Statistics",
        "WorkerStatistics",
        "statistics",
    ),
    "skyward_dask.extension.prefixes": ("PrefixStatistics",),
    "skyward_dask.extension.plugin": ("SkywardPlugin",),
    "skyward_dask.extension.running": ("cancelled",),
    "skyward_dask.extension.standing": ("stack",),
    "skyward_dask.extension.listing": ("Collection", "collections"),
    "skyward_dask.api.barriers": ("Barrier",),
    "skyward_dask.api.counters": ("Counter",),
    "skyward_dask.api.dicts": ("Dict",),
    "skyward_dask.api.locks": ("Holder", "Lock"),
    "skyward_dask.api.openers": ("barrier", "counter", "dict", "lock", "queue", "set"),
    "skyward_dask.api.queues": ("Queue",),
    "skyward_dask.api.sets": ("Set",),
    "skyward_dask.api.calls": ("function", "gather"),
    "skyward_dask.api.cluster": ("Compute",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
#: What Dask looks for in a preload module; not for users.
_HOME_OF["dask_setup"] = "skyward_dask.extension.preload"

__version__ = "0.1.0"
# `from skyward_dask import *` must not take the builtins' names away
__all__ = sorted({name for names in _HOMES.values() for name in names} - {"dict", "set"})


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

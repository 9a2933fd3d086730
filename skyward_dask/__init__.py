"""Worker executors for Dask: thread slots or process slots in each dask-worker.

``install(client, Worker(concurrency=4, executor="process"))`` gives every worker of a cluster four processes
to run tasks in. ``dict`` and ``set`` are here too, for ``import skyward_dask as sky``; ``import *`` leaves
them out.
"""

# Names are imported at their first use: a slot's process imports this package on its way to
# `skyward_dask.slots`, and needs neither Dask nor distributed for that. `__init__.pyi` is the typed view.

from __future__ import annotations

from importlib import import_module

_HOMES = {
    "skyward_dask.errors": (
        "BroadcastError",
        "BrokenBarrierError",
        "CollectionConflict",
        "CollectionLost",
        "ConfigurationError",
        "InstallError",
        "LockError",
        "NodeLeft",
        "NoWorkers",
        "OperatorError",
        "SerializationError",
        "SharedMemoryError",
        "SkywardError",
        "SlotCrashed",
        "SlotOutOfMemory",
        "SlotStartFailed",
        "StreamBroken",
        "StreamTaken",
        "TaskTimeout",
        "WorkerUnreachable",
    ),
    "skyward_dask.config": ("Worker",),
    "skyward_dask.extension.client.check": ("Check", "WorkerCheck", "check"),
    "skyward_dask.extension.client.control": ("install", "resize", "uninstall"),
    "skyward_dask.extension.client.options": ("options",),
    "skyward_dask.extension.client.statistics": (
        "Statistics",
        "StreamStatistics",
        "WorkerStatistics",
        "statistics",
    ),
    "skyward_dask.extension.prefixes": ("PrefixStatistics",),
    "skyward_dask.extension.worker.plugin": ("SkywardPlugin",),
    "skyward_dask.extension.task_run": ("cancelled",),
    "skyward_dask.extension.client.feed": ("feed",),
    "skyward_dask.extension.client.stack": ("stack",),
    "skyward_dask.extension.streams.stream": ("Stream",),
    "skyward_dask.extension.client.collection_list": ("Collection", "collections"),
    "skyward_dask.slots.statistics": ("SlotStatistics",),
    "skyward_dask.api.barriers": ("Barrier",),
    "skyward_dask.api.counters": ("Counter",),
    "skyward_dask.api.dicts": ("Dict",),
    "skyward_dask.api.locks": ("Holder", "Lock"),
    "skyward_dask.api.openers": ("barrier", "counter", "dict", "lock", "queue", "set"),
    "skyward_dask.api.queues": ("Queue",),
    "skyward_dask.api.sets": ("Set",),
    "skyward_dask.api.calls": ("function",),
    "skyward_dask.api.gathering": ("gather",),
    "skyward_dask.api.sharding": ("shard",),
    "skyward_dask.api.quiet": ("silent", "stderr", "stdout"),
    "skyward_dask.extension.client.output": ("OutputLine", "output"),
    "skyward_dask.extension.instance": ("InstanceInfo", "instance_info"),
    "skyward_dask.api.cluster": ("Compute",),
    "skyward_dask.api.nodes": ("Node",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
_PUBLIC = frozenset(_HOME_OF)
#: What Dask looks for in a preload module; not for users.
_HOME_OF["dask_setup"] = "skyward_dask.extension.preload"

__version__ = "0.1.0"
# `from skyward_dask import *` must not take the builtins' names away
__all__ = sorted(_PUBLIC - {"dict", "set"})


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    if name in _PUBLIC:
        value.__module__ = __name__  # help, tracebacks and pickles know it by the name that users know
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*_PUBLIC, "__version__"])

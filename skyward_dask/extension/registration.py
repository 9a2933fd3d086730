"""Installing our plugin on a scheduler, over a connection to it."""

from __future__ import annotations

from importlib import import_module
from typing import Any, TypeAlias

from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.protocol.pickle import dumps

from skyward_dask.errors import InstallError

#: The name of our plugins, in the scheduler and in workers.
NAME = "skyward"
#: The key under which a worker says, when it registers, that it is a node.
NODE = "skyward-node"
#: The annotation of tasks for one node alone: its worker's address.
ON_NODE = "skyward_node"
#: Of each node: its worker's address, its host, and the number of its slots, in the order of joining.
Nodes: TypeAlias = list[tuple[str, str, int]]
#: The topic of the events that nodes log.
TOPIC = "skyward"


class _SchedulerSide:
    """Arrives, when pickled and sent, as the scheduler's plugin, whose module is only imported there."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _scheduler_side, ()


def _scheduler_side() -> SchedulerPlugin:
    plugin: SchedulerPlugin = import_module(
        "skyward_dask.extension.scheduler.plugin"
    ).SkywardSchedulerPlugin()
    return plugin


async def introduce(scheduler: Any) -> None:
    """Install the scheduler's side, once, over a connection to the scheduler.

    Raises
    ------
    InstallError
        The scheduler can't import the package, or takes no plugins.
    """
    try:
        await scheduler.register_scheduler_plugin(plugin=dumps(_SchedulerSide()), name=NAME, idempotent=True)
    except (ImportError, ValueError) as error:
        raise InstallError(
            f"skyward_dask can't be set up on the scheduler: {error!r}. Install skyward_dask (the same "
            "version) in the scheduler's environment; distributed.scheduler.pickle must be true there."
        ) from error

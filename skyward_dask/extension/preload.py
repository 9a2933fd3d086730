"""`dask_setup`: what Dask calls for ``--preload skyward_dask``, in workers and in schedulers.

Dask swallows what a preload raises, and the worker would join with plain threads. So nothing is checked
here: a plugin is set up right before the worker registers, and its failure ends the worker.
"""

from __future__ import annotations

from typing import Any, NoReturn

import click
from distributed import Scheduler
from distributed import Worker as DaskWorker
from distributed.diagnostics.plugin import WorkerPlugin

from skyward_dask.config import EXECUTORS, Worker
from skyward_dask.errors import ConfigurationError
from skyward_dask.extension import private
from skyward_dask.extension.command_end import end_with_the_reason
from skyward_dask.extension.scheduler.plugin import attach
from skyward_dask.extension.worker.plugin import NAME, SkywardPlugin

OPTIONS: tuple[click.Option, ...] = (
    click.Option(["--executor"], type=click.Choice(EXECUTORS), help="Kind of task slots; auto means thread."),
    click.Option(
        ["--concurrency"], type=click.IntRange(min=1), help="Number of task slots; overrides --nthreads."
    ),
    click.Option(["--task-timeout"], metavar="SECONDS", help="Time limit of each task, e.g. 30s."),
    click.Option(["--slot-memory-limit"], metavar="BYTES", help="Memory limit of each slot, e.g. 2GiB."),
    click.Option(
        ["--max-tasks-per-child"],
        type=click.IntRange(min=1),
        help="Replace a slot's process after this many tasks.",
    ),
    click.Option(
        ["--pre-import"],
        multiple=True,
        metavar="MODULE",
        help="Module to import in each slot's process before its first task; may be repeated.",
    ),
)


class PreloadCommand(click.Command):
    """A command that is strict on the command line, and never raises in a worker.

    On the command line Dask calls `parse_args`, whose errors the user sees. In a worker it calls
    `make_context` and swallows what that raises: there an error becomes a parameter, for the plugin's setup.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.info_name = ctx.info_name or "dask worker ADDRESS --preload skyward_dask"
        _check_address()
        rest = super().parse_args(ctx, args)
        check(ctx.params)
        end_with_the_reason()
        return rest

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.ClickException as error:
            context = click.Context(self, info_name=info_name, parent=parent)
            context.params = {"refusal": error.format_message()}
            return context


#: Options whose own names `dask worker` has given to something else.
_FIELDS = {"task_timeout": "timeout", "slot_memory_limit": "memory_limit"}


def given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that were on the command line, by the names of a `Worker`'s fields."""
    return {_FIELDS.get(name, name): value for name, value in options.items() if value not in (None, ())}


def check(options: dict[str, Any]) -> None:
    """Raise a click error if the options are invalid."""
    try:
        Worker.from_config(**given(options))
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from error


def _check_address() -> None:
    """Refuse an option as the address: Dask takes the first word that it doesn't know for the address."""
    context = click.get_current_context(silent=True)
    address = context.params.get("scheduler") if context is not None else None
    if str(address).startswith("-"):
        raise click.UsageError(
            f"dask worker took {address} for the scheduler's address, which must come before a preload's "
            "options. With --scheduler-file, or with an address from the configuration, use dask-worker, "
            "which accepts these options anywhere, or set skyward.worker in Dask's configuration."
        )


class Refusal(WorkerPlugin):
    """Stands in for a plugin that can't be created: it ends the worker and says why."""

    name = NAME

    def __init__(self, reason: str) -> None:
        self.reason = reason

    async def setup(self, worker: DaskWorker) -> NoReturn:
        raise ConfigurationError(self.reason)


def _plugin(options: dict[str, Any], refusal: str) -> WorkerPlugin:
    if refusal:
        return Refusal(refusal)
    try:
        return SkywardPlugin(Worker.from_config(**given(options)))
    except Exception as error:  # Dask would swallow it; so the worker exits with it
        return Refusal(str(error) if isinstance(error, ConfigurationError) else repr(error))


def _setup(server: object, refusal: str = "", **options: Any) -> None:
    if isinstance(server, Scheduler):
        attach(server)
    elif isinstance(server, DaskWorker):
        # a plugin that was given to the worker itself wins over a preload
        if not any(isinstance(plugin, SkywardPlugin) for plugin in private.pending_plugins(server)):
            private.add_pending_plugin(server, _plugin(options, refusal))
            end_with_the_reason()
    else:
        raise ConfigurationError(
            f"skyward_dask can be preloaded by a worker or a scheduler, not by a {type(server).__name__}."
        )


dask_setup = PreloadCommand(
    "skyward_dask", params=list(OPTIONS), callback=_setup, help="Task slots that are threads or processes."
)

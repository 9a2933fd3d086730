"""``dask-worker``: ``dask worker`` with slots, whose options can be anywhere on the command line."""

from __future__ import annotations

from typing import Any

import click
import dask
from distributed.cli import dask_worker

from skyward_dask.extension.command_end import end_with_the_reason
from skyward_dask.extension.preload import OPTIONS, check, given

_US = "skyward_dask"


def _preloads(kwargs: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The modules to preload, ours first, each with its own arguments; ours need none."""
    others = [name for name in kwargs["preload"] if name != _US]
    if not kwargs["preload"]:  # as in Dask, the configuration applies if the command line has none
        configured = dask.config.get("distributed.worker.preload")
        others = [
            name for name in ([configured] if isinstance(configured, str) else configured) if name != _US
        ]
    arguments = list(kwargs["preload_argv"])
    return [_US, *others], [[], *([arguments] * len(others))]


launch: Any = dask_worker.main.callback


def _run(**kwargs: Any) -> None:
    options = {option.name: kwargs.pop(option.name) for option in OPTIONS if option.name}
    check(options)
    end_with_the_reason()
    settings = {f"skyward.worker.{name.replace('_', '-')}": value for name, value in given(options).items()}
    kwargs["preload"], kwargs["preload_argv"] = _preloads(kwargs)
    if options["concurrency"] and not kwargs["nthreads"]:
        # an automatic memory limit is computed from it, in the nanny and in the worker
        kwargs["nthreads"] = options["concurrency"]
    # a nanny hands this process's configuration to its worker
    with dask.config.set(settings):
        launch(**kwargs)


main = click.Command(
    "dask-worker",
    params=[*dask_worker.main.params, *OPTIONS],
    callback=_run,
    help="Launch a Dask worker whose task slots are threads or processes.",
    context_settings=dask_worker.main.context_settings,
)

if __name__ == "__main__":
    main(prog_name="dask-worker")

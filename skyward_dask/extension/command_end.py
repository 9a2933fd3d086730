"""How the command that runs a worker ends when its slots can't be set up: with the reason."""

from __future__ import annotations

import sys
from functools import partial
from typing import NoReturn

import click

from skyward_dask.errors import SkywardError


def end_with_the_reason() -> None:
    """If the command that runs in this thread fails with one of our errors, show that error last."""
    if (context := click.get_current_context(silent=True)) is not None:
        context.call_on_close(_raise_reason)


def _raise_reason() -> None:
    """Have click show the reason, not the traceback of Dask's own error around it."""
    failure = reason = sys.exc_info()[1]
    while reason is not None and not isinstance(reason, SkywardError):
        reason = reason.__cause__
    if isinstance(failure, RuntimeError) and reason is not None:
        raise click.ClickException(str(reason)) from failure


def end_with(reason: str) -> None:
    """Have the command that runs workers in this thread, if there is one, end with this error."""
    context = click.get_current_context(silent=True)
    # a user's own command may start a cluster in its thread, and has other parameters than Dask's
    if context is not None and {"scheduler", "nthreads"} <= context.params.keys():
        context.call_on_close(partial(_fail, reason))


def _fail(reason: str) -> NoReturn:
    raise click.ClickException(reason)

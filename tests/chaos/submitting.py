"""How an action becomes a future."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from distributed import Client, Future

import skyward_dask as sky
from tests.chaos import work
from tests.chaos.actions import Action, Fate


def submit(client: Client, action: Action, directory: Path) -> Future[Any]:
    """Submit the task of an action, with those that it depends on."""
    kind = action.kind
    with _limits(action):
        return client.submit(
            kind.function, *_arguments(client, action, directory), key=action.key, retries=kind.retries
        )


def _limits(action: Action) -> AbstractContextManager[None]:
    match action.kind.fate:
        case Fate.TIMEOUT:
            return sky.options(timeout=action.seconds)
        case Fate.OUT_OF_MEMORY:
            return sky.options(memory_limit=work.HOG_LIMIT)
    return nullcontext()


def _arguments(client: Client, action: Action, directory: Path) -> tuple[object, ...]:
    number = action.number
    if action.kind.function is work.add:
        halves = (number // 2, number - number // 2)
        return tuple(client.submit(work.value, half, pure=False) for half in halves)
    if action.kind.function is work.leave_once:
        return number, str(directory / f"{action.key}.flag")
    if action.kind.seconds is not None:
        return number, action.seconds
    return (number,)

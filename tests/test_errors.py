"""The exceptions of the package cross processes as themselves."""

from __future__ import annotations

import pytest
from distributed import Client

import skyward_dask as sky
from skyward_dask import errors

_CRASH = sky.SlotCrashed("task", 7, None, "SIGKILL", "a stack", "its stderr")
#: Those that take more than a message.
_OTHERS = {
    "BroadcastError": sky.BroadcastError("it failed", {1: KeyError("no")}, {0: 7}),
    "SlotCrashed": _CRASH,
    "SlotOutOfMemory": sky.SlotOutOfMemory(_CRASH, 10, 11),
    "SlotStartFailed": sky.SlotStartFailed("it ended", "its stderr"),
    "TaskTimeout": sky.TaskTimeout("task", 3.0, "a stack"),
}


def raise_it(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("name", errors.__all__)
def test_each_error_goes_there_and_back(shared_client: Client, name: str) -> None:
    """As an argument it reaches the slot, raised there it comes back: type, arguments, attributes, text."""
    error = _OTHERS.get(name) or getattr(errors, name)("what happened")
    future = shared_client.submit(raise_it, error, pure=False)
    got = future.exception()
    assert type(got) is type(error)
    vars(got).pop("worker", None)  # it came from a slot
    assert (repr(got), str(got)) == (repr(error), str(error)) and repr(vars(got)) == repr(vars(error))

"""Workers' answers to a broadcast: what went wrong there, as text."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

from distributed.protocol.pickle import dumps, loads
from distributed.protocol.serialize import Serialized, deserialize

from skyward_dask import __version__

#: The error that importing our package raises where it isn't installed, as its repr or as text.
_MISSING = re.compile(r"^ModuleNotFoundError\W.*'skyward_dask\b")


def failure(answer: Any) -> str:
    """What went wrong according to a worker's answer; empty if nothing did."""
    if isinstance(answer, dict) and answer.get("status") == "error":
        return failure(_unpickled(answer["exception"])) or str(answer["exception_text"])
    if not isinstance(answer, BaseException):
        return ""
    # a scheduler that unpickles nothing turns a worker's error into a bare Exception with its repr
    text = str(answer) if type(answer) is Exception else f"{type(answer).__name__}: {answer}"
    missing = "skyward_dask, or a part of it, isn't installed in its environment"
    return missing if _MISSING.search(text) else text


def look() -> str:
    """The version of the package in this process; raises an error if it can't be imported here."""
    import_module("skyward_dask.extension.worker.plugin")
    return __version__


def to_look() -> dict[str, Any]:
    """A message that has a worker call `look`, even if it doesn't have the package."""
    return {"op": "run", "function": dumps(look)}


def looked(answer: Any) -> dict[str, Any]:
    """The version that `look` found, or the reason why it failed."""
    if reason := failure(answer):
        return {"reason": reason}
    return {"version": _unpickled(answer["result"])}


def _unpickled(error: Any) -> object:
    """What a worker has sent or raised; None if its type is unknown here, or isn't the same as there."""
    try:
        error = deserialize(error.header, error.frames) if isinstance(error, Serialized) else error
        return loads(error) if isinstance(error, bytes) else error
    except Exception:  # then the caller uses its text
        return None

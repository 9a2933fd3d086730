"""What workers answer to a broadcast: what went wrong there, in words."""

from __future__ import annotations

from typing import Any

from distributed.protocol.pickle import loads
from distributed.protocol.serialize import Serialized, deserialize


def failure(answer: Any) -> str:
    """What went wrong according to a worker's answer; empty if nothing did."""
    if isinstance(answer, dict) and answer.get("status") == "error":
        return failure(_unpickled(answer["exception"])) or str(answer["exception_text"])
    if isinstance(answer, ModuleNotFoundError) and (answer.name or "").startswith("skyward_dask"):
        return "skyward_dask, or a part of it, isn't installed in its environment"
    return f"{type(answer).__name__}: {answer}" if isinstance(answer, BaseException) else ""


def _unpickled(error: Any) -> object:
    """What a worker has raised; None if its type isn't known here, or isn't the same as there."""
    try:
        error = deserialize(error.header, error.frames) if isinstance(error, Serialized) else error
        return loads(error) if isinstance(error, bytes) else error
    except Exception:  # then its text will do
        return None

"""Dask's configuration in the form in which children are given it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import cloudpickle
import dask


def pickled_configuration() -> bytes:
    """This process's configuration, without the values that can't be pickled."""
    try:
        pickled: bytes = cloudpickle.dumps(dask.config.config)
    except Exception:  # a lock in it, say
        pickled = cloudpickle.dumps(_sendable(dask.config.config))
    return pickled


def _sendable(config: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found[key] = _sendable(value)
        else:
            with suppress(Exception):
                cloudpickle.dumps(value)
                found[key] = value
    return found

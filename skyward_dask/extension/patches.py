"""What we change in Dask's objects, and the old values: undone in one place, the last change first."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from contextlib import ExitStack
from typing import Any

_NOTHING = object()


class Patches:
    """Changes that are undone together, except where somebody else has changed the value since."""

    def __init__(self) -> None:
        self._undo = ExitStack()

    def entry(self, mapping: MutableMapping[str, Any], name: str, value: object) -> None:
        """Put a handler, an executor, a plugin, … into a dict of Dask's."""
        self._undo.callback(_restore_entry, mapping, name, value, mapping.get(name, _NOTHING))
        mapping[name] = value

    def attribute(self, owner: object, name: str, value: object) -> None:
        """Give an object an attribute of its own."""
        self._undo.callback(_restore_entry, vars(owner), name, value, vars(owner).get(name, _NOTHING))
        setattr(owner, name, value)

    def callback(self, undo: Callable[..., object], *args: object) -> None:
        """Have a function called when the changes are undone."""
        self._undo.callback(undo, *args)

    def undo(self) -> None:
        """Put everything back."""
        self._undo.close()


def _restore_entry(mapping: MutableMapping[str, Any], name: str, ours: object, before: object) -> None:
    if mapping.get(name, _NOTHING) != ours:
        return  # somebody else has it now
    if before is _NOTHING:
        del mapping[name]
    else:
        mapping[name] = before

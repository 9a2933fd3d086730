"""One row for each kind: what is said of it elsewhere agrees."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import pytest

import skyward_dask as sky
from skyward_dask.api.handles import Handle
from skyward_dask.shared.kinds import KINDS
from skyward_dask.shared.state import operations

#: What an opener must be given besides a name.
_REQUIRED = {"barrier": {"n": 1}}


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_kind_has_an_opener_with_its_options(kind: str) -> None:
    """In the package and on `Compute`, and its handle says which kind it is."""
    required = _REQUIRED.get(kind, {})
    for opener in (getattr(sky, kind), getattr(sky.Compute, kind)):
        names = set(inspect.signature(opener).parameters) - {"self", "name", "client"}
        assert names == {*KINDS[kind].options, *required}
    handle = getattr(sky, kind)("name", **required)
    assert isinstance(handle, Handle) and handle.kind == kind


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_handles_ask_for_what_states_can(kind: str) -> None:
    """For each operation, and for nothing else; and what is confirmed is one."""
    handle: Any = type(getattr(sky, kind)("name", **({"n": 1} if kind == "barrier" else {})))
    # where it is written: its `__module__` is where it is public
    written = next(f for f in vars(handle).values() if inspect.isfunction(f)).__code__.co_filename
    tree = ast.parse(Path(written).read_text())
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    asked = {
        node.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "Ask"
        and isinstance(node.args[0], ast.Constant)
    }
    known = set(operations(KINDS[kind].state))
    assert asked <= known <= texts and KINDS[kind].confirmed <= known

"""`shard`: a node's part of data that all nodes have."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, TypeVar, TypeVarTuple, overload

from skyward_dask.api.targets import described
from skyward_dask.arguments import takes_only
from skyward_dask.errors import ConfigurationError
from skyward_dask.extension.instance import instance_info
from skyward_dask.extension.partitions import partition_count, partitions

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@overload
def shard(
    sequence: T,
    /,
    *,
    shuffle: bool = False,
    seed: int | None = None,
    drop_last: bool = False,
    node: int | None = None,
    total_nodes: int | None = None,
) -> T: ...
@overload
def shard(
    *sequences: *Ts,
    shuffle: bool = False,
    seed: int | None = None,
    drop_last: bool = False,
    node: int | None = None,
    total_nodes: int | None = None,
) -> tuple[*Ts]: ...
@takes_only(  # type: ignore[misc]  # mypy doesn't match *Ts with *Any
    "For example, x, y = shard(x, y, shuffle=True, seed=42)."
)
def shard(
    *sequences: Any,
    shuffle: bool = False,
    seed: int | None = None,
    drop_last: bool = False,
    node: int | None = None,
    total_nodes: int | None = None,
) -> Any:
    """This node's part of sequences that all nodes have: every `total_nodes`-th element, from `node` on.

    Each element is in exactly one node's part, and the sizes of the parts differ by one at most.

    Parameters
    ----------
    *sequences
        Lists, tuples, ranges, text, bytes, NumPy arrays, pandas or Polars objects, Arrow tables, torch
        tensors, all of one length, and divided alike: ``x[i]`` still belongs to ``y[i]``. Dask's arrays,
        dataframes and bags are divided by partition (arrays along their first axis).
    shuffle : bool
        Divide a random permutation, which is the same on every node.
    seed : int, optional
        Of the permutation. None is a seed of its own, the same on every node.
    drop_last : bool
        Leave out up to ``total_nodes - 1`` elements at the end, so that all parts have the same size.
    node, total_nodes : int, optional
        Instead of those of `instance_info`; needed outside a task.

    Returns
    -------
    sequence, or tuple of sequences
        Of the types that were given (a shuffled range is a list).

    Raises
    ------
    ConfigurationError
        The lengths differ, something can't be divided, or node and total_nodes make no sense.

    Examples
    --------
    >>> shard([10, 11, 12, 13, 14], node=1, total_nodes=2)
    [11, 13]
    >>> shard("abcde", range(5), drop_last=True, node=0, total_nodes=2)
    ('ac', range(0, 4, 2))
    """
    node, total_nodes = _place(node, total_nodes)
    length = _common_length(sequences)
    kept = length - length % total_nodes if drop_last else length
    order: range | list[int] = range(length)
    if shuffle:
        order = list(order)
        random.Random(0 if seed is None else seed).shuffle(order)
    chosen = order[node:kept:total_nodes]
    parts = tuple(_taken(sequence, chosen) for sequence in sequences)
    return parts[0] if len(parts) == 1 else parts


def _place(node: int | None, total_nodes: int | None) -> tuple[int, int]:
    if node is None and total_nodes is None:
        if (info := instance_info()) is None:
            raise ConfigurationError(
                "shard is called outside a task, where there is no node: call it in a task, or give node= "
                "and total_nodes=."
            )
        return info.node, info.total_nodes
    if not (_is_index(node) and _is_index(total_nodes) and node < total_nodes):  # type: ignore[operator]
        raise ConfigurationError(
            f"shard needs both node= and total_nodes=, integers with 0 <= node < total_nodes, or neither; "
            f"not node={node!r} and total_nodes={total_nodes!r}."
        )
    return node, total_nodes  # type: ignore[return-value]


def _is_index(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _common_length(sequences: Sequence[Any]) -> int:
    if not sequences:
        raise ConfigurationError("shard needs at least one sequence: shard(x), or shard(x, y).")
    lengths = [_length(sequence) for sequence in sequences]
    if len(set(lengths)) > 1:
        raise ConfigurationError(
            f"shard divides all sequences alike, and these have different lengths: {lengths}. Call it once "
            "for each, or make them equally long."
        )
    return lengths[0]


def _length(sequence: Any) -> int:
    if (partitions := partition_count(sequence)) is not None:
        return partitions
    if not isinstance(sequence, dict | set | frozenset):
        with suppress(TypeError):  # an array without dimensions has none
            return len(sequence)
    raise ConfigurationError(
        f"shard divides sequences, which have an order and a length, not {described(sequence)}: make a list "
        "of it first."
    )


def _taken(sequence: Any, chosen: range | list[int]) -> Any:
    """The chosen elements, in a sequence of the same type."""
    if partition_count(sequence) is not None:
        return partitions(sequence, list(chosen))
    if isinstance(sequence, list | tuple | range | str | bytes):
        return _taken_from_builtin(sequence, chosen)
    if type(sequence).__module__.startswith("pyarrow"):
        return sequence.take(list(chosen))
    index = slice(chosen.start, chosen.stop, chosen.step) if isinstance(chosen, range) else chosen
    try:
        return getattr(sequence, "iloc", sequence)[index]
    except (TypeError, ValueError, LookupError) as error:
        raise ConfigurationError(
            f"shard can't divide {described(sequence)}: {error}. Make a list of it first."
        ) from error


def _taken_from_builtin(sequence: Any, chosen: range | list[int]) -> Any:
    if isinstance(chosen, range):
        return sequence[chosen.start : chosen.stop : chosen.step]
    elements = [sequence[i] for i in chosen]
    if isinstance(sequence, str):
        return "".join(elements)
    return type(sequence)(elements) if isinstance(sequence, tuple | bytes) else elements

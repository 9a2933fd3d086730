"""The kinds of collections: one row for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from skyward_dask.shared.barrier import BarrierState
from skyward_dask.shared.counter import CounterState
from skyward_dask.shared.dict import DictState
from skyward_dask.shared.lock import LockState
from skyward_dask.shared.queue import QueueState
from skyward_dask.shared.set import SetState
from skyward_dask.shared.state import State

#: Options of a collection, not of its states: how many homes it has, whether reads may be slightly stale, and
#: how many standbys each home has.
SHARDS, CONSISTENCY, REPLICAS = "shards", "consistency", "replicas"
_COMMON = frozenset({SHARDS, CONSISTENCY, REPLICAS})
#: Numbers in one epoch: a lock takes years to use them up.
_NUMBERS = 1 << 40


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of collection.

    Attributes
    ----------
    state : type
        Each of its public methods is an operation.
    options : dict
        The default of each option.
    confirmed : frozenset of str
        Operations whose answers must not be lost on their way: the caller confirms each one that it gets.
    numbered : bool
        Its state starts counting above the `fence` that it is given, so that no number is used again when a
        collection is recreated.
    """

    state: type[State]
    options: Mapping[str, Any] = field(default_factory=dict)
    confirmed: frozenset[str] = frozenset()
    numbered: bool = False

    def state_options(self, options: Mapping[str, Any], epoch: int) -> dict[str, Any]:
        """The arguments of the state's class, for a collection with these options."""
        own = {name: value for name, value in options.items() if name not in _COMMON}
        return own | ({"fence": epoch * _NUMBERS} if self.numbered else {})


#: Written out: a registry that subclasses fill would be empty where nobody has imported them. The handles are
#: in `skyward_dask.api.openers`, under the same names.
KINDS: dict[str, Kind] = {
    "barrier": Kind(BarrierState, {REPLICAS: 1}),
    "counter": Kind(CounterState, {CONSISTENCY: "strong", REPLICAS: 1}),
    "dict": Kind(DictState, {SHARDS: 1, CONSISTENCY: "strong", REPLICAS: 1}),
    "lock": Kind(LockState, {REPLICAS: 1}, numbered=True),
    "queue": Kind(QueueState, {"maxsize": None, REPLICAS: 1}, confirmed=frozenset({"get", "get_nowait"})),
    "set": Kind(SetState, {SHARDS: 1, CONSISTENCY: "strong", REPLICAS: 1}),
}

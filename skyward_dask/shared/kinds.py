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

#: Of a collection, and not of its states: how many homes it has, and whether its reads may be a little old.
SHARDS, CONSISTENCY = "shards", "consistency"
#: Numbers of one epoch: more than a lock is acquired in years.
_NUMBERS = 1 << 40


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of collection.

    Attributes
    ----------
    state : type
        Each of its public methods is an operation.
    options : dict
        What each option is for a collection that is made without it.
    required : tuple of str
        Options that are always given.
    confirmed : frozenset of str
        Operations whose answers must not be lost on their way: the caller confirms each that it has.
    numbered : bool
        Its state begins to count above the `fence` that it is given, so that no number comes again when a
        collection is made anew.
    """

    state: type[State]
    options: Mapping[str, Any] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    confirmed: frozenset[str] = frozenset()
    numbered: bool = False

    def state_options(self, options: Mapping[str, Any], epoch: int) -> dict[str, Any]:
        """What the class of the state takes, for a collection of these options."""
        own = {name: value for name, value in options.items() if name not in (SHARDS, CONSISTENCY)}
        return own | ({"fence": epoch * _NUMBERS} if self.numbered else {})


#: Written out: a registry that subclasses fill would be empty where nobody has imported them. Their handles
#: are in `skyward_dask.api.openers`, under the same names.
KINDS: dict[str, Kind] = {
    "barrier": Kind(BarrierState, required=("parties",)),
    "counter": Kind(CounterState, {CONSISTENCY: "strong"}),
    "dict": Kind(DictState, {SHARDS: 1, CONSISTENCY: "strong"}),
    "lock": Kind(LockState, numbered=True),
    "queue": Kind(QueueState, {"maxsize": None}, confirmed=frozenset({"get", "get_nowait"})),
    "set": Kind(SetState, {SHARDS: 1, CONSISTENCY: "strong"}),
}

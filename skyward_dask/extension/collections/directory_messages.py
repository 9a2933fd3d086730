"""The messages about collections between the scheduler's directory, workers and clients.

```
 worker, client ── Open, Destroy, List ──▶ directory ── Found, Fill, End, Know, Report ──▶ a host
 host ── Join, Part ───────────────────▶             ── Lead, Drop ──▶ a standby
                                                     ── Gone, Fence ──▶ all workers that use collections
```

Each is an operation of Dask's: a dict of its `op` and its fields, which are plain values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Open:
    """Find the collection of this pickled `Spec`, or create it; `party` will make the calls.

    `client` is the client's id if the party is a client; empty for a worker. Unless `key` is empty, only the
    collection that has the home of this key will do.
    """

    op: ClassVar[str] = "skyward_open"
    spec: bytes
    party: str
    client: str
    key: str


@dataclass(frozen=True, slots=True)
class Destroy:
    """End the collection of this pickled `Spec`."""

    op: ClassVar[str] = "skyward_destroy"
    spec: bytes


@dataclass(frozen=True, slots=True)
class List:
    """List all collections."""

    op: ClassVar[str] = "skyward_collections"


@dataclass(frozen=True, slots=True)
class Found:
    """Create these homes: for each, its key, its kind and the options of its state."""

    op: ClassVar[str] = "skyward_found"
    homes: Sequence[tuple[str, str, Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class Fill:
    """Bring the standby of this home in step on this `worker`; if it is empty, go on alone.

    The standby that was chosen in the epoch `kept` is in step, and stays until then; 0: none does.
    """

    op: ClassVar[str] = "skyward_fill"
    key: str
    epoch: int
    worker: str
    kept: int


@dataclass(frozen=True, slots=True)
class Drop:
    """Your standby of this home isn't needed any more, if it was chosen before this epoch."""

    op: ClassVar[str] = "skyward_drop"
    key: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Join:
    """The standby of this epoch is in step, says its host."""

    op: ClassVar[str] = "skyward_join"
    key: str
    epoch: int
    worker: str


@dataclass(frozen=True, slots=True)
class Part:
    """The standby that was chosen in this epoch is lost, says its host, and asks whether it may go on."""

    op: ClassVar[str] = "skyward_part"
    key: str
    epoch: int
    worker: str


@dataclass(frozen=True, slots=True)
class Fence:
    """Take no more answers from this home until the directory says where it is, and name the runs of yours
    that may hold something there."""

    op: ClassVar[str] = "skyward_fence"
    key: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Lead:
    """Your standby of this home is its host, and an actor of the key `actor`.

    `parties` are in the cluster; of those in `runs`, only these runs may hold anything.
    """

    op: ClassVar[str] = "skyward_lead"
    key: str
    epoch: int
    actor: str
    parties: Sequence[str]
    runs: Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class End:
    """End these homes."""

    op: ClassVar[str] = "skyward_end"
    keys: Sequence[str]


@dataclass(frozen=True, slots=True)
class Know:
    """Accept the calls of this party, which is in the cluster."""

    op: ClassVar[str] = "skyward_know"
    party: str


@dataclass(frozen=True, slots=True)
class Gone:
    """A party has left; `worker` is the address that it had, empty if it was a client."""

    op: ClassVar[str] = "skyward_gone"
    party: str
    worker: str


@dataclass(frozen=True, slots=True)
class Report:
    """Report the statistics of your homes."""

    op: ClassVar[str] = "skyward_homes"


Message = (
    Open | Destroy | List | Found | Fill | Drop | Join | Part | Fence | Lead | End | Know | Gone | Report
)


def as_operation(message: Message) -> dict[str, Any]:
    """The message as a dict, for a stream or a broadcast."""
    return {"op": message.op} | _fields(message)


async def ask(connection: Any, message: Message) -> Any:
    """Send a message over a connection, whose attributes are the operations of the other end."""
    return await getattr(connection, message.op)(**_fields(message))


def handler(kind: type[Message], take: Callable[[Any], Any]) -> Callable[..., Any]:
    """A handler, which Dask calls with the message's fields, for a function that takes the message."""

    def handle(**values: Any) -> Any:
        return take(kind(**values))

    return handle


def _fields(message: Message) -> dict[str, Any]:
    return {each.name: getattr(message, each.name) for each in fields(message)}

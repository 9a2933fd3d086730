"""The messages about collections between the scheduler's directory, workers and clients.

```
 worker, client ── Open, Destroy, List ──▶ directory ── Found, Fill, End, Know, Report ──▶ a host
 host ── Join, Part, Leave ────────────▶             ── GiveWay, Lead ──▶ who change places
                                                     ── Gone, Fence ──▶ all workers that use collections
 client that reaches homes itself ── Fenced ──▶ directory ── Fence ──▶ it
```

Each is an operation of Dask's: a dict of its `op` and its fields, which are plain values. With each heartbeat
a worker says how many bytes its copies have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

#: The name of Dask's extensions, of workers and of the scheduler, whose heartbeats tell sizes.
SIZES = "skyward-collections"
_STANDBY = "-standby"


def standby_actor(key: str, epoch: int) -> str:
    """The key of the actor that the standby of a home, chosen in this epoch, is to Dask."""
    return f"{key}-{epoch}{_STANDBY}"


def is_standby(actor: object) -> bool:
    """Whether an actor's key is that of a standby."""
    return str(actor).endswith(_STANDBY)


@dataclass(frozen=True, slots=True)
class Open:
    """Find the collection of this pickled `Spec`, or create it; `party` will make the calls.

    `client` is the client's id if the party is a client, which reaches homes itself if it `is_direct`; empty
    for a worker. Unless `key` is empty, only the collection that has the home of this key will do.
    """

    op: ClassVar[str] = "skyward_open"
    spec: bytes
    party: str
    client: str
    is_direct: bool
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
class GiveWay:
    """Become the standby, in this epoch, of the standby that was chosen in the epoch `chosen`.

    It is in step, and is to be the host when it has all.
    """

    op: ClassVar[str] = "skyward_give_way"
    key: str
    epoch: int
    chosen: int


@dataclass(frozen=True, slots=True)
class Leave:
    """This worker is closing: move its copies, if there is another worker for them."""

    op: ClassVar[str] = "skyward_leave"
    worker: str


@dataclass(frozen=True, slots=True)
class Fence:
    """Take no more answers from this home until the directory says where it is, and name the runs of yours
    that may hold something there."""

    op: ClassVar[str] = "skyward_fence"
    key: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Fenced:
    """This client, which reaches homes itself, has obeyed such a `Fence`."""

    op: ClassVar[str] = "skyward_fenced"
    client: str
    key: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Lead:
    """Your standby of this home is its host, and an actor of the key `actor`.

    `parties` are in the cluster; of those in `runs`, only these runs may hold anything. The worker `standby`,
    if it isn't empty, has been its standby since the epoch `chosen`, and has all of it.
    """

    op: ClassVar[str] = "skyward_lead"
    key: str
    epoch: int
    actor: str
    parties: Sequence[str]
    runs: Mapping[str, Sequence[str]]
    standby: str
    chosen: int


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
    """Report the statistics of your homes and standbys."""

    op: ClassVar[str] = "skyward_homes"


ToDirectory = Open | Destroy | List | Join | Part | Leave | Fenced
Message = ToDirectory | Found | Fill | Fence | GiveWay | Lead | End | Know | Gone | Report


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

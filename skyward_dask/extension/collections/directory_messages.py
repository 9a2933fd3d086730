"""The messages about collections between the scheduler's directory, workers and clients.

```
 worker, client ── Open, Destroy, List ──▶ directory ── Found, End, Know, Report ──▶ a host
                                                     ── Gone ──▶ every worker that has to do with collections
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

    `client` is the client's id if the party is a client; empty for a worker.
    """

    op: ClassVar[str] = "skyward_open"
    spec: bytes
    party: str
    client: str


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


Message = Open | Destroy | List | Found | End | Know | Gone | Report


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

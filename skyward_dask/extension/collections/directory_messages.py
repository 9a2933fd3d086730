"""What the directory in the scheduler, workers and clients say to each other about collections.

```
 worker, client ── Open, Destroy, List ──▶ directory ── Found, End, Know, Report ──▶ a host
                                                     ── Gone ──▶ every worker that has to do with collections
```

Each is an operation of Dask's: a dict of its `op` and its fields, which are plain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Open:
    """Where is the collection of this pickled `Spec`, made if need be? Asks who will call: `party`.

    `client` is the id of the client that the party is; empty for a worker.
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
    """Which collections are there?"""

    op: ClassVar[str] = "skyward_collections"


@dataclass(frozen=True, slots=True)
class Found:
    """Have these homes: key, kind and options of the state of each."""

    op: ClassVar[str] = "skyward_found"
    homes: Sequence[tuple[str, str, Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class End:
    """Let these homes end."""

    op: ClassVar[str] = "skyward_end"
    keys: Sequence[str]


@dataclass(frozen=True, slots=True)
class Know:
    """That party is there, and its calls are taken."""

    op: ClassVar[str] = "skyward_know"
    party: str


@dataclass(frozen=True, slots=True)
class Gone:
    """A party is gone; `worker` is the address that it had, empty if it was a client."""

    op: ClassVar[str] = "skyward_gone"
    party: str
    worker: str


@dataclass(frozen=True, slots=True)
class Report:
    """What have your homes to tell?"""

    op: ClassVar[str] = "skyward_homes"


Message = Open | Destroy | List | Found | End | Know | Gone | Report


def as_operation(message: Message) -> dict[str, Any]:
    """For a stream, or a broadcast."""
    return {"op": message.op} | _fields(message)


async def ask(connection: Any, message: Message) -> Any:
    """Over a connection, whose attributes are the operations of the other end."""
    return await getattr(connection, message.op)(**_fields(message))


def handler(kind: type[Message], take: Callable[[Any], Any]) -> Callable[..., Any]:
    """What Dask calls with the fields, of what takes the message."""

    def handle(**values: Any) -> Any:
        return take(kind(**values))

    return handle


def _fields(message: Message) -> dict[str, Any]:
    return {each.name: getattr(message, each.name) for each in fields(message)}

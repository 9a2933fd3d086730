"""What processes say to each other about collections: typed here, plain on the way."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

import msgpack
import pytest

from skyward_dask.extension.collections import directory_messages
from skyward_dask.extension.collections.call_messages import (
    Copy,
    Message,
    Reply,
    Request,
    Word,
    pickled,
    read,
    unpickled,
    written,
)
from skyward_dask.extension.collections.directory_messages import as_operation, ask, handler
from skyward_dask.shared.events import Call, Caller, Forget, Took, Withdraw

MESSAGES: list[Message] = [
    Request(1, "tcp://a", "key", b"call"),
    Copy(1, "tcp://a", "key", b"events"),
    Reply(1, None),
]


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_comes_as_it_went(message: Message) -> None:
    """Over what Dask sends."""
    assert read(msgpack.loads(msgpack.dumps(written(message)))) == message


CALL = Call(("session", 7), Caller("party", "run", "task", 1, "here"), "put", (b"x",), 2.5, 3, (5, 6))


@pytest.mark.parametrize(
    "event",
    [CALL, Took(("session", 7), 2.5), Withdraw(("session", 7), True, 2.5), Forget("party", "run", 2.5)],
)
def test_an_event_comes_as_it_went(event: Call | Word) -> None:
    """With the moment at which it comes; calls also between the copies of a home."""
    assert unpickled(pickled(event), 2.5) == event == pickle.loads(pickle.dumps(event))


@pytest.mark.parametrize("kind", directory_messages.Message.__args__)
def test_an_operation_of_dasks(kind: Any) -> None:
    """Is a message again for who takes it, by a stream or by a connection."""
    message = kind(*range(len(kind.__slots__)))

    class Connection:
        pass

    async def operation(**values: Any) -> Any:
        return handler(kind, lambda taken: taken)(**values)

    setattr(Connection, message.op, staticmethod(operation))
    plain = as_operation(message)
    assert plain.pop("op") == message.op
    assert handler(kind, lambda taken: taken)(**plain) == message == asyncio.run(ask(Connection, message))

"""distributed's `gen_cluster`, with limits that only what hangs comes to, on a machine however busy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from distributed import utils_test

#: Seconds for a test: less than pytest's own limit, as this one shows where the test stands.
PATIENCE = 200
#: Seconds for a connection, of which `gen_cluster` gives five.
_CONNECT = {"distributed.comm.timeouts.connect": "60s"}
#: Seconds for connections to close after a test, of which it gives one.
_CLOSE = 20


def gen_cluster(
    timeout: int = PATIENCE, config: Mapping[str, Any] | None = None, **options: Any
) -> Callable[..., Any]:
    """Run a coroutine as a test, on a cluster of its own."""
    return utils_test.gen_cluster(
        timeout=timeout, active_rpc_timeout=_CLOSE, config=_CONNECT | dict(config or {}), **options
    )

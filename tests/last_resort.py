"""A pytest plugin: a run ends, come what may.

pytest-timeout ends a test. What then cleans up may wait for ever, and so may an interpreter that exits, for
its threads: this ends the whole run, with the stacks of all threads.
"""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Generator

import pytest

#: Seconds to clean up after a test whose time is up, and for the interpreter to exit: more than any wait of
#: ours for what ends.
_GRACE = 120.0


class LastResort:
    """faulthandler's watchdog, which no lock and no GIL can stop."""

    def __init__(self) -> None:
        self._stderr = os.dup(2)  # later on pytest captures it

    def _wait_for(self, item: pytest.Item) -> None:
        marker = item.get_closest_marker("timeout")
        self._wait(float(marker.args[0] if marker else item.config.getini("timeout")) + _GRACE)

    def _wait(self, seconds: float) -> None:
        faulthandler.dump_traceback_later(seconds, exit=True, file=self._stderr)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        self._wait_for(item)
        return (yield)

    @pytest.hookimpl(trylast=True)
    def pytest_exception_interact(self, node: pytest.Item | pytest.Collector) -> None:
        if isinstance(node, pytest.Item):
            self._wait_for(node)  # pytest itself has called it off, in case a debugger is there

    def pytest_unconfigure(self, config: pytest.Config) -> None:
        if hasattr(config, "workerinput"):  # xdist's worker waits for the others, and ends with them
            faulthandler.cancel_dump_traceback_later()
        else:
            self._wait(_GRACE)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(LastResort())

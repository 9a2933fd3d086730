"""Log records of a child, as records of its worker: with their own logger, level and place.

A child has the worker's levels. What its tasks log is handled in the worker; what they print is
another matter (`skyward_dask.extension.logs`).
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from skyward_dask.slots.child import Link

#: What of a record crosses: plain values, from which `logging.makeLogRecord` builds it again.
_PLAIN = ("name", "levelno", "levelname", "pathname", "filename", "module", "lineno", "funcName", "created")


@dataclass(frozen=True, slots=True)
class Levels:
    """What a process logs: the levels of its loggers, and whether its root logger has handlers."""

    by_name: Mapping[str, int] = field(default_factory=dict)
    root_handles: bool = False

    @classmethod
    def now(cls) -> Levels:
        root = logging.getLogger()
        loggers = {"": root, **root.manager.loggerDict}
        levels = {name: found.level for name, found in loggers.items() if isinstance(found, logging.Logger)}
        return cls({name: level for name, level in levels.items() if level}, bool(root.handlers))


class Forwarder(logging.Handler):
    """Sends records to the worker.

    Parameters
    ----------
    link : Link
    """

    def __init__(self, link: Link, level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self._link = link

    def emit(self, record: logging.LogRecord) -> None:
        values: dict[str, Any] = {name: getattr(record, name) for name in _PLAIN}
        values["msg"] = record.getMessage()
        if record.exc_info:
            values["exc_text"] = (self.formatter or logging.Formatter()).formatException(record.exc_info)
        try:
            self._link.tell("log", values)
        except RuntimeError:  # between runs nobody takes it: then as Python does without a handler
            print(values["msg"], file=sys.stderr)


def forward(link: Link, levels: Levels) -> None:
    """Log in the worker from now on, what it would log itself; called once in a child."""
    every = Forwarder(link)
    for name, found in logging.getLogger().manager.loggerDict.items():
        if isinstance(found, logging.Logger) and found.handlers:
            # those that distributed has configured: here they would write to stderr
            logging.getLogger(name).handlers[:] = [every]
    for name, level in levels.by_name.items():
        logging.getLogger(name).setLevel(level)
    if levels.root_handles:
        logging.getLogger().addHandler(every)
    logging.lastResort = Forwarder(link, logging.WARNING)


def handle(values: dict[str, Any]) -> None:
    """Log a record of a child; in the worker."""
    record = logging.makeLogRecord(values)
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)

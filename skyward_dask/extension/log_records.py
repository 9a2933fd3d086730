"""Log records of a child, as records of its worker: with their own logger, level and place.

A child has the worker's levels. The worker handles what its tasks log; for what they print, see
`skyward_dask.extension.worker.task_log`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from skyward_dask.errors import WorkerUnreachable
from skyward_dask.slots.child.link import Link

#: The fields of a record that become its text, and can't be sent as they are.
_WORDED = frozenset({"msg", "args", "exc_info"})
_PLAIN = (str, int, float, bool, bytes, type(None))


@dataclass(frozen=True, slots=True)
class Levels:
    """What a process logs: the levels of its loggers, and whether its root logger has handlers."""

    by_name: Mapping[str, int] = field(default_factory=dict)
    root_handles: bool = False

    def differ(self, name: str) -> bool:
        """Whether a logger of this process has a level that a task has set."""
        logger: logging.Logger | None = logging.getLogger(name)
        while logger is not None and not logger.level:
            logger = logger.parent
        if logger is None:
            return False
        return logger.level != self.by_name.get("" if logger is logging.root else logger.name)

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
    levels : Levels
        The worker's.
    otherwise : logging.Handler
        Handles the records of a process that can't reach the worker: one that a task has forked, or a slot's
        own process between two tasks.
    """

    def __init__(
        self, link: Link, levels: Levels, otherwise: logging.Handler, level: int = logging.NOTSET
    ) -> None:
        super().__init__(level)
        self._link, self._levels = link, levels
        self._otherwise = otherwise

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if self._link.is_open:
                self._link.tell("log", self._values(record), self._levels.differ(record.name))
                return
        except WorkerUnreachable:
            pass  # the task has just ended
        except Exception:
            self.handleError(record)  # logging must not make a task fail: stderr gets the error
            return
        self._otherwise.handle(record)

    def _values(self, record: logging.LogRecord) -> dict[str, Any]:
        """The whole record in plain values, from which `logging.makeLogRecord` can rebuild it."""
        values = {name: _plain(value) for name, value in vars(record).items() if name not in _WORDED}
        values["msg"] = record.getMessage()
        if record.exc_info and not record.exc_text:
            values["exc_text"] = (self.formatter or logging.Formatter()).formatException(record.exc_info)
        return values


def _plain(value: Any) -> Any:
    """A field of a record as a plain value: the worker may lack the modules of others."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind in (list, tuple):
        return kind(map(_plain, value))
    if kind is dict:
        return {_plain(key): _plain(each) for key, each in value.items()}
    return str(value)


def forward(link: Link, levels: Levels) -> None:
    """From now on, log in the worker whatever it would log itself; called once in a child."""
    assert logging.lastResort is not None
    every = Forwarder(link, levels, logging.lastResort)
    for name, found in logging.getLogger().manager.loggerDict.items():
        if isinstance(found, logging.Logger) and found.handlers:
            # those that distributed has configured: here they would write to stderr
            logging.getLogger(name).handlers[:] = [every]
    for name, level in levels.by_name.items():
        logging.getLogger(name).setLevel(level)
    if levels.root_handles:
        logging.getLogger().addHandler(every)
    logging.lastResort = Forwarder(link, levels, logging.lastResort, logging.WARNING)


def handle(values: dict[str, Any], is_chosen: bool) -> None:
    """Log a child's record in the worker, if the logger's level allows it or a task has chosen the level."""
    record = logging.makeLogRecord(values)
    logger = logging.getLogger(record.name)
    if is_chosen or logger.isEnabledFor(record.levelno):
        logger.handle(record)

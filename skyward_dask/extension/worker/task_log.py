"""What tasks print: on the worker's stdout and stderr, and as records on the logger ``skyward_dask.task``.

The records go to the worker's log, which clients see, and not to the console, which has the text already.
While clients watch (`skyward_dask.output`), lines go to them as well.
"""

from __future__ import annotations

import logging

from distributed import Worker

from skyward_dask.extension.private import log_handler
from skyward_dask.extension.worker.console import Console
from skyward_dask.extension.worker.watched_output import WatchedOutput

_package = logging.getLogger("skyward_dask")
_task = logging.getLogger("skyward_dask.task")
_LEVELS = {"stdout": logging.INFO, "stderr": logging.WARNING}


def adopt_dasks_logging() -> None:
    """Use distributed's handlers and log level, unless somebody has configured our logger."""
    if _package.level == logging.NOTSET:
        _package.setLevel(logging.INFO)
    if not _package.handlers and not logging.getLogger().handlers:
        for handler in logging.getLogger("distributed").handlers:
            _package.addHandler(handler)


class TaskLog:
    """The log of one worker's tasks: several workers may live in one process, and share its loggers."""

    def __init__(self, worker: Worker) -> None:
        self.console, self.watched = Console(), WatchedOutput(worker)
        adopt_dasks_logging()
        self._address = worker.address
        self._handler = log_handler(worker)
        self._handler.addFilter(self._is_ours)
        _task.propagate = False
        for logger in (_package, _task):
            logger.addHandler(self._handler)

    def _is_ours(self, record: logging.LogRecord) -> bool:
        return getattr(record, "skyward_worker", self._address) == self._address

    def write(self, key: str, stream: str, line: str) -> None:
        """Log one line that a task has printed."""
        text = f"{key}: {line}" if key else line
        _task.log(_LEVELS[stream], "%s", text, extra={"skyward_worker": self._address})

    def show(self, stream: str, text: str) -> None:
        """Write text that a child has printed to the worker's own stream."""
        if not self.watched.is_held_back(stream):
            self.console.write(stream, text)

    def close(self) -> None:
        self.watched.close()
        self.console.close()
        for logger in (_package, _task):
            logger.removeHandler(self._handler)
        self._handler.removeFilter(self._is_ours)

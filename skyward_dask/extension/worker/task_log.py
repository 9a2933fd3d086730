"""What tasks print: on the worker's stdout and stderr, and as records on the logger ``skyward_dask.task``.

The records go to the worker's log, which clients see, and not to the console, which has the text already.
"""

from __future__ import annotations

import logging

from distributed import Worker

from skyward_dask.extension.private import log_handler
from skyward_dask.extension.worker.console import Console

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
        adopt_dasks_logging()
        self._address = worker.address
        self._handler = log_handler(worker)
        self._handler.addFilter(self._is_ours)
        _task.propagate = False
        for logger in (_package, _task):
            logger.addHandler(self._handler)
        self.console = Console()

    def _is_ours(self, record: logging.LogRecord) -> bool:
        return getattr(record, "skyward_worker", self._address) == self._address

    def write(self, key: str, stream: str, line: str) -> None:
        """Log one line that a task has printed."""
        text = f"{key}: {line}" if key else line
        _task.log(_LEVELS[stream], "%s", text, extra={"skyward_worker": self._address})

    def close(self) -> None:
        self.console.close()
        for logger in (_package, _task):
            logger.removeHandler(self._handler)
        self._handler.removeFilter(self._is_ours)

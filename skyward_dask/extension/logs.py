"""What tasks print, as records on the logger ``skyward_dask.task``, and where these go."""

from __future__ import annotations

import logging

from distributed import Worker

from skyward_dask.extension.private import log_handler

_package = logging.getLogger("skyward_dask")
_task = logging.getLogger("skyward_dask.task")
_LEVELS = {"stdout": logging.INFO, "stderr": logging.WARNING}


def adopt_dasks_logging() -> None:
    """Log where and from which level distributed logs, unless somebody has configured our logger."""
    if _package.level == logging.NOTSET:
        _package.setLevel(logging.INFO)
    if not _package.handlers and not logging.getLogger().handlers:
        for handler in logging.getLogger("distributed").handlers:
            _package.addHandler(handler)


class TaskLog:
    """One worker's lines: several workers may live in one process, and share its loggers."""

    def __init__(self, worker: Worker) -> None:
        adopt_dasks_logging()
        self._address = worker.address
        self._handler = log_handler(worker)
        self._handler.addFilter(self._is_ours)
        _package.addHandler(self._handler)

    def _is_ours(self, record: logging.LogRecord) -> bool:
        return getattr(record, "skyward_worker", self._address) == self._address

    def write(self, key: str, stream: str, line: str) -> None:
        """Log one line that a task has printed."""
        text = f"{key}: {line}" if key else line
        _task.log(_LEVELS[stream], "%s", text, extra={"skyward_worker": self._address})

    def close(self) -> None:
        _package.removeHandler(self._handler)
        self._handler.removeFilter(self._is_ours)

"""What a slot's process prints is flushed at once, with or without a line end: so progress bars move."""

from __future__ import annotations

import ctypes
import io
import sys
from contextlib import suppress

#: setvbuf's mode: no buffer.
_IONBF = 2


class _Prompt(io.TextIOWrapper):
    def write(self, text: str, /) -> int:
        size = super().write(text)
        self.flush()
        return size


def print_promptly() -> None:
    """Make stdout and stderr, Python's and C's, unbuffered; called before anybody else refers to them."""
    for fd, name in ((1, "stdout"), (2, "stderr")):
        # a lone surrogate in a print is not worth a failed task
        buffer = open(fd, "wb", closefd=False)  # noqa: SIM115  for as long as the process lives
        stream = _Prompt(buffer, encoding="utf-8", errors="backslashreplace")
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    with suppress(AttributeError, ValueError):  # a C library in which it has another name
        libc = ctypes.CDLL(None)
        libc.setvbuf(ctypes.c_void_p.in_dll(libc, "stdout"), None, _IONBF, ctypes.c_size_t(0))

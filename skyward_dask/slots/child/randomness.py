"""Each child's own random numbers: a generator that the template seeded is the same in all its forks.

This module finds the generators that modules create when they are imported, `random.Random` and NumPy's,
wherever they are kept. One that was given a seed keeps it.
"""

from __future__ import annotations

import gc
import random
import secrets
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


class Generators:
    """The generators of a process that were seeded from the system."""

    def __init__(self) -> None:
        self._own: weakref.WeakSet[random.Random] = weakref.WeakSet()
        self._numpys: list[Any] = []
        self._entropies: set[int] = set()

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note the generators that are created in the block, by modules that it imports."""
        seed, randbits = random.Random.seed, secrets.randbits

        def note_seed(generator: random.Random, *args: Any, **kwargs: Any) -> None:
            seed(generator, *args, **kwargs)
            is_given = any(value is not None for value in (*args[:1], kwargs.get("a")))
            (self._own.discard if is_given else self._own.add)(generator)

        def note_bits(count: int) -> int:
            bits = randbits(count)
            self._entropies.add(bits)
            return bits

        random.Random.seed = note_seed  # type: ignore[assignment, method-assign]
        secrets.randbits = note_bits  # type: ignore[assignment]  # NumPy takes its entropy from there
        try:
            yield
        finally:
            random.Random.seed = seed  # type: ignore[method-assign]
            secrets.randbits = randbits
            if "numpy.random" in sys.modules:
                sys.modules["numpy.random.bit_generator"].randbits = randbits  # type: ignore[attr-defined]
                self._numpys = list(self._found())

    def _found(self) -> Iterator[Any]:
        """NumPy's generators whose entropy came from the system, or was derived from such entropy."""
        kind = sys.modules["numpy.random"].BitGenerator
        for each in gc.get_objects():
            if issubclass(type(each), kind) and getattr(each.seed_seq, "entropy", None) in self._entropies:
                yield each

    def reseed(self) -> None:
        """Seed each of them anew, and the global ones that all modules of a process share."""
        for own in self._own:
            own.seed()
        for numpys in self._numpys:
            with suppress(Exception):  # a class of the user's: it stays as it is
                numpys.state = type(numpys)().state
        for name in ("numpy.random", "torch"):
            if name in sys.modules:
                sys.modules[name].seed()

"""What a producer may still send to its reader: a number of items, and a number of bytes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Window:
    """How far a producer may be ahead of its reader: the most items, and the most bytes, in between."""

    items: int
    nbytes: int


@dataclass(slots=True)
class Credit:
    """A producer's count of what it was granted and of what it has sent, both since the beginning.

    A reader grants its whole window at first, and afterwards what it has taken.

    Attributes
    ----------
    window : int
        Bytes of the reader's window.
    items, nbytes : int
        Granted in total.
    sent, sent_bytes : int
        Sent in total.
    """

    window: int
    items: int = 0
    nbytes: int = 0
    sent: int = 0
    sent_bytes: int = 0

    def grant(self, items: int, nbytes: int) -> None:
        """The reader has taken that much."""
        self.items += items
        self.nbytes += nbytes

    @property
    def may_produce(self) -> bool:
        """Whether another item may be computed: what it needs in bytes isn't known before."""
        return self.sent < self.items and self.sent_bytes < self.nbytes

    def fits(self, size: int) -> bool:
        """Whether an item of that many bytes may be sent now.

        One that is larger than the window passes alone, when the reader has taken all before it.
        """
        return self.sent_bytes + size <= self.nbytes or self.sent_bytes == self.nbytes - self.window

    def send(self, size: int) -> None:
        """An item of that many bytes is sent."""
        self.sent += 1
        self.sent_bytes += size

"""How many lines of tasks' output may be sent: of a flood, the rest is counted."""

from __future__ import annotations

from time import monotonic

#: Lines in a second that clients are shown, of all workers together: arbitrary, far more than anybody reads.
MOST = 1000
#: Characters that count as a line, so that long lines are bounded too; arbitrary, two lines of a terminal.
_CHARACTERS = 200


class LineRate:
    """Lets so many lines through in a second, after a pause all at once.

    Attributes
    ----------
    most : int
        Lines in a second.
    """

    def __init__(self) -> None:
        self.most = MOST
        self._left, self._at = float(MOST), monotonic()

    def lets_through(self, line: str) -> bool:
        now = monotonic()
        self._left = min(self.most, self._left + (now - self._at) * self.most)
        self._at = now
        if self._left <= 0:
            return False
        self._left -= 1 + len(line) // _CHARACTERS
        return True

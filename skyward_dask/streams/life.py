"""A stream's life in the process that has its generator: events in, commands out, no I/O.

```
 open ── Attach ──▶ read ── End ──────────────────────▶ over
  │                  └── Leave, Close ──▶ closing ── End ─▶ over
  ├── Close ──────────────────────────────▲
  └── End (its process has died) ─────────────────────▶ over
```

The reader is whoever attaches first; it stays the reader after its end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

from skyward_dask.streams.credit import Window
from skyward_dask.streams.messages import Broken, Grant, Held, Items, Message, Outcome, Packed, Taken


class State(Enum):
    """The state of a stream."""

    OPEN = "open"
    READ = "read"
    CLOSING = "closing"
    OVER = "over"


# --- events ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Attach:
    """Somebody wants to read, with a window of this size."""

    reader: object
    window: Window


@dataclass(frozen=True, slots=True)
class Granted:
    """A reader has taken items."""

    reader: object
    grant: Grant


@dataclass(frozen=True, slots=True)
class Leave:
    """A reader has closed the stream, or its connection has ended."""

    reader: object


@dataclass(frozen=True, slots=True)
class Produced:
    """The producer has sent items."""

    items: Items | Packed


@dataclass(frozen=True, slots=True)
class Holding:
    """The producer has an item that doesn't fit into what was granted."""


@dataclass(frozen=True, slots=True)
class End:
    """The producer has ended, and won't send anything any more."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Close:
    """Nobody wants the stream any more, or its process is leaving."""

    reason: str


Event = Attach | Granted | Leave | Produced | Holding | End | Close

# --- commands ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    """Have the producer begin; this window is its first grant."""

    window: Window


@dataclass(frozen=True, slots=True)
class Allow:
    """Pass a grant on to the producer."""

    grant: Grant


@dataclass(frozen=True, slots=True)
class Tell:
    """Send a message to a reader."""

    reader: object
    message: Message


@dataclass(frozen=True, slots=True)
class Stop:
    """Have the producer close its generator; it reports its end."""


Command = Start | Allow | Tell | Stop


class Life:
    """One stream's state, and what follows from each event.

    Attributes
    ----------
    state : State
    reader
        Whoever has attached first.
    """

    def __init__(self) -> None:
        self.state = State.OPEN
        self.reader: object = None
        self._outcome: Outcome = Broken("")

    def apply(self, event: Event) -> tuple[Command, ...]:
        """Apply an event; returns the commands that follow from it."""
        return self._functions[type(event)](self, event)

    def _attach(self, event: Attach) -> tuple[Command, ...]:
        if self.reader is not None:
            return (Tell(event.reader, Taken()),)
        self.reader = event.reader
        if self.state is State.OPEN:
            self.state = State.READ
            return (Start(event.window),)
        return (Tell(event.reader, self._outcome),)

    def _granted(self, event: Granted) -> tuple[Command, ...]:
        return (Allow(event.grant),) if self._is_read_by(event.reader) else ()

    def _leave(self, event: Leave) -> tuple[Command, ...]:
        return self._stop(Broken("its reader has left.")) if self._is_read_by(event.reader) else ()

    def _produced(self, event: Produced) -> tuple[Command, ...]:
        return (Tell(self.reader, event.items),) if self.state is State.READ else ()

    def _holding(self, event: Holding) -> tuple[Command, ...]:
        return (Tell(self.reader, Held()),) if self.state is State.READ else ()

    def _end(self, event: End) -> tuple[Command, ...]:
        was, self.state = self.state, State.OVER
        if was is State.OPEN:
            self._outcome = event.outcome
        return (Tell(self.reader, event.outcome),) if was is State.READ else ()

    def _close(self, event: Close) -> tuple[Command, ...]:
        outcome = Broken(event.reason)
        if self.state is State.READ:
            return (Tell(self.reader, outcome), *self._stop(outcome))
        return self._stop(outcome) if self.state is State.OPEN else ()

    def _stop(self, outcome: Outcome) -> tuple[Command, ...]:
        self.state, self._outcome = State.CLOSING, outcome
        return (Stop(),)

    def _is_read_by(self, reader: object) -> bool:
        return self.state is State.READ and self.reader is reader

    _functions: ClassVar[dict[type[Event], Callable[[Life, Any], tuple[Command, ...]]]] = {
        Attach: _attach,
        Granted: _granted,
        Leave: _leave,
        Produced: _produced,
        Holding: _holding,
        End: _end,
        Close: _close,
    }

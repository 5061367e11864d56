"""What has happened, as lines that people read; kept only where it is asked for."""

from __future__ import annotations

from collections import deque
from typing import Any

from smlt.core import run_events
from smlt.simulator.timeline import Timeline


class Trace:
    """The last lines of a run.

    Args:
        timeline: virtual time.
        length: so many lines; None for all.
    """

    def __init__(self, timeline: Timeline, length: int | None) -> None:
        self._timeline = timeline
        self._lines: deque[str] = deque(maxlen=length)

    @property
    def lines(self) -> tuple[str, ...]:
        """The lines, oldest first."""
        return tuple(self._lines)

    def note(self, who: str, what: str) -> None:
        """A line."""
        self._lines.append(f"{self._timeline.now:10.3f} {who:<16} {what}")

    def told(self, epoch: int, event: run_events.Event) -> None:
        """A controller is told an event; beats and ticks are as the grass."""
        if not isinstance(event, (run_events.Beat, run_events.Tick)):
            self.note(f"controller {epoch}", f"< {_short(event)}")

    def commanded(self, epoch: int, command: run_events.Command) -> None:
        """A controller commands."""
        self.note(f"controller {epoch}", f"> {_short(command)}")

    def ranked(self, uuid: str, command: Any) -> None:
        """A rank's machine commands."""
        self.note(uuid, _short(command))


def _short(item: Any) -> str:
    text = repr(item)
    for name in ("Address(", "Cursor(", "Standing("):
        text = text.replace(name, "(")
    return text if len(text) <= 200 else text[:199] + "…"

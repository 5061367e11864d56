"""The progress of a run on stderr: a live bar on a terminal, lines elsewhere, nothing where nothing is wanted."""

from __future__ import annotations

import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from smlt.cli.figures import cost_text, metric_text, progress_text, time_text
from smlt.cli.lines import EventLines
from smlt.core.runlog import RunEvent, RunView

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

STEPS_EVERY_S = 5.0
EVALUATIONS_EVERY_S = 1.0


class Progress(ABC):
    """Listens to a run; entered while the run lasts. `view` is the run so far."""

    def __init__(self) -> None:
        self.view = RunView()

    def __call__(self, event: RunEvent) -> None:
        """Take note of an event and show it."""
        self.view = self.view.after(event)
        self._do_show(event)

    def catch_up(self, event: RunEvent) -> None:
        """Take note of an event of the past, without showing it."""
        self.view = self.view.after(event)
        self._do_catch_up(event)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:  # noqa: B027  only what draws has something to clear away
        pass

    @abstractmethod
    def say(self, text: str) -> None:
        """Tell the user something now; safe to call from a signal handler."""

    @abstractmethod
    def _do_show(self, event: RunEvent) -> None: ...

    def _do_catch_up(self, event: RunEvent) -> None:  # noqa: B027  who shows nothing has nothing to remember
        pass


class Quiet(Progress):
    """Shows nothing."""

    def say(self, text: str) -> None:
        """Nothing, too."""

    def _do_show(self, event: RunEvent) -> None:
        pass


class Plain(Progress):
    """A line for what matters, and one about the steps every few seconds."""

    def __init__(self, *, detailed: bool) -> None:
        super().__init__()
        self._lines = EventLines(
            steps_every_s=STEPS_EVERY_S, evaluations_every_s=EVALUATIONS_EVERY_S, detailed=detailed
        )

    def say(self, text: str) -> None:
        """A line, past Python's own buffers: the interrupted code may be holding those."""
        try:
            os.write(sys.stderr.fileno(), f"{text}\n".encode())
        except OSError:  # a notebook's stderr is no file
            print(text, file=sys.stderr)

    def _do_catch_up(self, event: RunEvent) -> None:
        self._lines.of(event)

    def _do_show(self, event: RunEvent) -> None:
        lines = self._lines.of(event)
        if event.kind not in ("failed", "finished"):  # the command itself says how it ended
            for line in lines:
                print(line, file=sys.stderr, flush=True)


class Bar(Progress):
    """A bar and the figures of the moment, redrawn in place; what workers print scrolls above it."""

    def __init__(self, console: Console, *, detailed: bool, clock: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._console = console
        self._clock = clock
        self._detailed = detailed
        self._lines = EventLines(steps_every_s=float("inf"), evaluations_every_s=EVALUATIONS_EVERY_S, detailed=detailed)
        self._said = ""
        self._live: Live | None = None

    def __enter__(self) -> Self:
        from rich.live import Live

        self._live = Live(console=self._console, get_renderable=self.render, refresh_per_second=4, transient=True)
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def say(self, text: str) -> None:
        """Beside the state, when the bar is next drawn."""
        self._said = text

    def _do_catch_up(self, event: RunEvent) -> None:
        self._lines.of(event)

    def _do_show(self, event: RunEvent) -> None:
        from rich.text import Text

        lines = self._lines.of(event)
        if self._detailed or event.kind in ("created", "planned", "memory_raised", "output", "evaluated"):
            for line in lines:
                self._console.print(Text(line))

    def render(self) -> RenderableType:
        """The bar as it should look now."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        view = self.view
        top = Table.grid(expand=True, padding=(0, 1))
        top.add_column(ratio=1)
        top.add_column(justify="right", no_wrap=True)
        bar = ProgressBar(total=view.total_steps or None, completed=view.step, pulse=not view.total_steps)
        top.add_row(bar, Text(self._figures()))
        return Group(top, Text(self._standing(), style="dim"))

    def _figures(self) -> str:
        view = self.view
        loss = f"loss {view.loss:.4g}" if view.loss is not None else ""
        speed = f"{view.examples_per_s:.0f} examples/s" if view.examples_per_s else ""
        return "  ".join(part for part in (progress_text(view) if view.total_steps else "", loss, speed) if part)

    def _standing(self) -> str:
        view = self.view
        seconds = (view.ended or self._clock()) - view.started if view.started else 0.0
        parts = [
            self._said or view.state.replace("_", " "),
            f"{view.workers_up}/{view.workers_wanted} workers" if view.workers_wanted else "",
            time_text(seconds, view.deadline_s),
            cost_text(view.spent_usd, view.budget_usd),
            metric_text(view.metrics),
        ]
        return "  ".join(part for part in parts if part)


def progress_for(*, quiet: bool, detailed: bool) -> Progress:
    """What suits the terminal, if there is one, and the user's wish."""
    if quiet:
        return Quiet()
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    if sys.stderr.isatty() and not console.is_dumb_terminal:
        return Bar(console, detailed=detailed)
    return Plain(detailed=detailed)

"""How far a contribution is final: told by the thread that computes it, awaited by the one that sends it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from smlt.core.sync.header import Header


class StepAbandoned(Exception):
    """The step in hand is given up; whoever sends it shall stop."""


class Progress:
    """One step's. The first region becomes final from its front on, the rest all at once.

    Args:
        step: the step.
    """

    def __init__(self, step: int) -> None:
        self.step = step
        self._changed = threading.Condition()
        self._elements = 0
        self._header: Header | None = None
        self._abandoned = False

    @classmethod
    def whole(cls, header: Header) -> Progress:
        """Of a contribution that is final."""
        progress = cls(header.step)
        progress.complete(header)
        return progress

    @property
    def is_complete(self) -> bool:
        """Whether all of the contribution is final."""
        return self._header is not None

    def reached(self, elements: int) -> None:
        """So many elements of the first region are final, at the least."""
        with self._changed:
            self._elements = max(self._elements, elements)
            self._changed.notify_all()

    def complete(self, header: Header) -> None:
        """All is final, and this is what the rank says with it."""
        with self._changed:
            self._header = header
            self._changed.notify_all()

    def abandon(self) -> None:
        """Whoever waits here shall stop."""
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()

    def check(self) -> None:
        """Raise StepAbandoned if the step is given up."""
        if self._abandoned:
            raise StepAbandoned

    def await_elements(self, elements: int) -> None:
        """Wait until so many elements of the first region are final.

        Raises:
            StepAbandoned: the step is given up.
        """
        self._await(lambda: self._elements >= elements or self._header is not None)

    def await_header(self) -> Header:
        """Wait until all is final.

        Raises:
            StepAbandoned: the step is given up.
        """
        self._await(lambda: self._header is not None)
        if self._header is None:
            raise StepAbandoned
        return self._header

    def _await(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._abandoned or condition())
        self.check()

"""A second thread that runs only while the first one waits for it: a coroutine whose body is ordinary code."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

PATIENCE_S = 5.0
"""How long a body that was told to unwind may take."""


class Unwind(BaseException):
    """Raised where a body pauses, to make it give up; not an Exception, so that `except Exception` lets it pass."""


@dataclass(frozen=True)
class Paused:
    """The body asks for something and waits."""

    request: Any


@dataclass(frozen=True)
class Ended:
    """The body returned, or raised this."""

    error: BaseException | None


class Strand:
    """Runs `body(pause)` in a thread of its own, by turns with the caller's.

    Args:
        body: gets `pause(request) -> answer`, which gives the turn back until the next `resume(answer)`.
        name: of the thread.
    """

    def __init__(self, body: Callable[[Callable[[Any], Any]], None], name: str) -> None:
        self._body = body
        self._answers: SimpleQueue[Any] = SimpleQueue()
        self._turns: SimpleQueue[Paused | Ended] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._ended: Ended | None = None
        self._started = False

    def resume(self, answer: Any = None) -> Paused | Ended:
        """Give the body its turn, starting it if need be, until it pauses or ends; what it ended with stays."""
        if self._ended is not None:
            return self._ended
        if self._started:
            self._answers.put(answer)
        else:
            self._started = True
            self._thread.start()
        turn = self._turns.get()
        if isinstance(turn, Ended):
            self._ended = turn
            self._thread.join()
        return turn

    @property
    def ended(self) -> bool:
        """Whether the body has returned, raised, or was unwound."""
        return self._ended is not None

    def unwind(self) -> None:
        """Make the body give up where it pauses, and wait for its thread to end."""
        if not self._started or self._ended is not None:
            return
        self._answers.put(Unwind())
        self._thread.join(PATIENCE_S)
        self._ended = Ended(None)

    def _run(self) -> None:
        try:
            self._body(self._pause)
        except Unwind:
            self._turns.put(Ended(None))
        except BaseException as error:
            self._turns.put(Ended(error))
        else:
            self._turns.put(Ended(None))

    def _pause(self, request: Any) -> Any:
        self._turns.put(Paused(request))
        answer = self._answers.get()
        if isinstance(answer, Unwind):
            self._answers.put(answer)  # for a body that goes on all the same
            raise Unwind
        return answer

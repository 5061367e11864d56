"""Overlap: what is final of a contribution travels while the rest is still being computed."""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from smlt.core.errors import ProtocolError
from smlt.core.sync.collectives import Collective, Seat
from smlt.core.sync.header import Header
from smlt.core.sync.progress import Progress, StepAbandoned
from smlt.core.task import Array


class StreamingCollective(Collective):
    """A pattern that can begin with the front of a contribution before its end is there."""

    @abstractmethod
    def stream(self, progress: Progress) -> tuple[Header, Sequence[Array]]:
        """Sum the contribution of `progress.step`, waiting for its numbers to become final; see `reduce`.

        Raises:
            StepAbandoned: the step was given up.
        """

    def reduce(self, header: Header) -> tuple[Header, Sequence[Array]]:
        """Sum a contribution that is final."""
        return self.stream(Progress.whole(header))


class Overlapped(Collective):
    """A streaming pattern in a thread of its own, which has the channel from `contribution` to the end of `reduce`.

    Args:
        seat: whose side this is.
        pattern: makes the pattern for a seat.
    """

    def __init__(self, seat: Seat, pattern: Callable[[Seat], StreamingCollective]) -> None:
        self._patience = seat.patience
        self._pattern = pattern(replace(seat, patience=self._wait))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"smlt sync of rank {seat.rank}")
        self._progress: Progress | None = None
        self._sum: Future[tuple[Header, Sequence[Array]]] | None = None

    def contribution(self, step: int) -> list[Array]:
        """Zeroed arrays, of which the pattern sends what `reached` names."""
        self._abandon()
        arrays = self._pattern.contribution(step)
        self._progress = Progress(step)
        self._sum = self._thread.submit(self._pattern.stream, self._progress)
        return arrays

    def reached(self, elements: int) -> None:
        """Let so much of the first region go."""
        if self._progress is not None:
            self._progress.reached(elements)

    def reduce(self, header: Header) -> tuple[Header, Sequence[Array]]:
        """Let all of it go, and wait for the sums."""
        if self._progress is None or self._sum is None or self._progress.step != header.step:
            raise ProtocolError(f"nothing was contributed to step {header.step}")
        self._progress.complete(header)
        return self._sum.result()

    def commit(self) -> None:
        """As the pattern does."""
        self._pattern.commit()

    def private(self) -> dict[str, Array]:
        """As the pattern says."""
        return self._pattern.private()

    def forget(self) -> None:
        """Give up the step in hand; what sending it has found wrong is found again when it is computed again."""
        self._abandon()

    def close(self) -> None:
        """Give up the step in hand, and end the thread.

        What sending found wrong before anybody asked for the sums is raised; where another error is on its way, it is
        added to that one's notes, as it may be the cause.
        """
        reason = self._abandon()
        self._thread.shutdown()
        if reason is None:
            return
        under_way = sys.exception()
        if under_way is None:
            raise reason
        under_way.add_note(f"meanwhile, sending the step in hand failed: {type(reason).__name__}: {reason}")

    def _abandon(self) -> BaseException | None:
        """Make the thread idle; returns what it has found wrong, unless somebody has been told."""
        progress, running, self._sum = self._progress, self._sum, None
        if progress is None or running is None:
            return None
        progress.abandon()
        reason = running.exception()
        self._progress = None
        return None if isinstance(reason, StepAbandoned) or progress.is_complete else reason

    def _wait(self, piece: str, peer: int) -> None:
        """While a peer is waited for: the rank itself waits only once it has nothing left to compute."""
        if self._progress is None:
            raise StepAbandoned
        self._progress.check()
        if self._progress.is_complete:
            self._patience(piece, peer)

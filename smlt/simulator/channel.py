"""The model of a channel: small values that all ranks of a round give each other, and a state that a donor serves.

What was published stays, also when its process is dead; a restart loses everything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from smlt.simulator.timeline import Timeline

if TYPE_CHECKING:
    from smlt.simulator.process import Process

RoundKey = tuple[int, int]
"""Generation and number of a round."""

Receive = Callable[..., None]
"""Told the ticket with which a process waits, and what came."""


Waiter = tuple[Any, ...]
"""A process, the ticket with which it waits, `Receive`, and arguments for that."""


class Gathering:
    """One value of each rank.

    Attributes:
        piece: what is gathered.
        values: by rank; None for who has not come.
        missing: how many have not.
        waiting: who waits for all of them, and with which ticket.
        result: what is made of the values, once for all; see `Process`.
    """

    __slots__ = ("missing", "piece", "result", "values", "waiting")

    def __init__(self, piece: str, workers: int) -> None:
        self.piece = piece
        self.values: list[Any] = [None] * workers
        self.missing = workers
        self.waiting: list[Waiter] = []
        self.result: Any = None


class ModelChannel:
    """What every round's members read and write.

    Args:
        timeline: virtual time.
        latency: draws the seconds of a request.
        straggles: draws how much later than the others one reader may get what it waits for; 0 for not.
        twice: told of a key that is written a second time.
        form: may take over those who all get the same sums at the same time; see `Formation`.
    """

    def __init__(
        self,
        timeline: Timeline,
        latency: Callable[[], float],
        straggles: Callable[[], float],
        twice: Callable[[Process, str], None],
        form: Callable[[list[Waiter], Gathering], bool],
    ) -> None:
        self._timeline, self._latency, self._straggles = timeline, latency, straggles
        self._twice, self._form = twice, form
        self._rounds: dict[RoundKey, dict[tuple[int, str], Gathering]] = {}
        self._states: dict[tuple[int, int, int, int], Any] = {}
        self._fetching: dict[tuple[int, int, int, int], list[tuple[Process, int, Receive]]] = {}
        self.life = 0
        """Grows with each restart."""

    def give(
        self, process: Process, key: RoundKey, step: int, piece: str, value: Any, receive: Receive, *args: Any
    ) -> None:
        """Publish a rank's value and wait for all; `receive` gets the process, the gathering and the arguments."""
        pieces = self._rounds.get(key)
        if pieces is None:
            pieces = self._rounds[key] = {}
        gathering = pieces.get((step, piece))
        if gathering is None:
            gathering = pieces[step, piece] = Gathering(piece, process.workers)
        if gathering.values[process.rank] is not None:
            self._twice(process, f"{key[0]}/{key[1]}/{step}/{piece}/{process.rank}")
            return
        gathering.values[process.rank] = value
        gathering.missing -= 1
        gathering.waiting.append((process, process.ticket, receive, *args))
        if gathering.missing == 0:
            pieces.pop((step - 2, piece), None)
            self._timeline.after(self._latency(), self._deliver, gathering)

    def missing(self, key: RoundKey, step: int, piece: str) -> int:
        """The first rank that has not come; -1 for none."""
        gathering = self._rounds.get(key, {}).get((step, piece))
        if gathering is None or gathering.missing == 0:
            return -1
        return gathering.values.index(None)

    def serve(self, key: RoundKey, rank: int, step: int, state: Any) -> None:
        """Publish a state."""
        place = (*key, rank, step)
        self._states[place] = state
        for process, ticket, receive in self._fetching.pop(place, ()):
            self._timeline.after(self._latency(), process.resume, ticket, receive, state)

    def fetch(self, process: Process, key: RoundKey, donor: int, step: int, receive: Receive) -> None:
        """Wait for the state that `donor` serves."""
        place = (*key, donor, step)
        if place in self._states:
            self._timeline.after(self._latency(), process.resume, process.ticket, receive, self._states[place])
        else:
            self._fetching.setdefault(place, []).append((process, process.ticket, receive))

    def forget_before(self, key: RoundKey) -> None:
        """Nobody comes back to the rounds before the last two."""
        generation, number = key
        for old in [each for each in self._rounds if each[0] == generation and each[1] < number - 1]:
            del self._rounds[old]
        for place in [each for each in self._states if each[:2] < (generation, number - 1)]:
            del self._states[place]

    def restart(self) -> list[tuple[Process, int]]:
        """Lose everything; returns who waited, and with which ticket."""
        self.life += 1
        waiting = [
            (waiter[0], waiter[1])
            for pieces in self._rounds.values()
            for gathering in pieces.values()
            for waiter in gathering.waiting
        ]
        waiting += [(process, ticket) for readers in self._fetching.values() for process, ticket, _ in readers]
        self._rounds.clear()
        self._states.clear()
        self._fetching.clear()
        return waiting

    def _deliver(self, gathering: Gathering) -> None:
        waiting, gathering.waiting = gathering.waiting, []
        late_s = self._straggles()
        if late_s and len(waiting) > 1:
            process, ticket, receive, *args = waiting.pop(int(late_s * 1e6) % len(waiting))
            self._timeline.after(late_s, process.resume, ticket, receive, gathering, *args)
        if gathering.piece == "reduced" and self._form(waiting, gathering):
            return
        for process, ticket, receive, *args in waiting:
            process.resume(ticket, receive, gathering, *args)

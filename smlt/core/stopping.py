"""How a run comes to its end: softly at an agreed step, at once, or by force; and what is said of it then.

No clock, no I/O: part of the controller's machine.
"""

from __future__ import annotations

from collections.abc import Iterator

from smlt.core.allowance import Allowance
from smlt.core.deployment import Deployment
from smlt.core.endings import LIMITS, Ending
from smlt.core.messages import Failure, Left
from smlt.core.run_events import Command, Finish, KillWorkers, Record, StopWorkers, Terms, Wish
from smlt.core.timetable import Timetable


class Stopping:
    """Ends generations and runs.

    Args:
        terms: of the run.
        fleet: whom it ends.
        allowance: whether there is money left to be gentle.
        timetable: knows how long ending takes.

    Attributes:
        wished: why the current generation is asked to end at an agreed step; empty where it is not.
        ending: why the run is being stopped; None while it is not.
    """

    def __init__(self, terms: Terms, fleet: Deployment, allowance: Allowance, timetable: Timetable) -> None:
        self._terms, self._fleet, self._allowance, self._timetable = terms, fleet, allowance, timetable
        self.wished = ""
        self.ending: Ending | None = None
        self._killed = self._is_over = False

    @property
    def is_at_once(self) -> bool:
        """Whether the run stops without an agreed step."""
        return self.ending is not None and self.ending.at_once

    @property
    def has_failed(self) -> bool:
        """Whether it stops because of a failure."""
        return self.ending is not None and self.ending.failure is not None

    def wish(self, reason: str) -> Iterator[Command]:
        """Ask the current generation to end at an agreed step."""
        self.wished = reason
        yield Record("wish", {"reason": reason})
        yield Wish(reason)

    def hasten(self, now: float, ending: Ending) -> Iterator[Command]:
        """Be less gentle with who does not end in time: a limit is a wall, a user may ask again."""
        waited_s = now - ending.since
        if self._allowance.is_spent or (not self._allowance.has_money and waited_s > self._timetable.stopping_s):
            yield from self.kill()  # what is committed would pass the budget
        elif ending.at_once:
            if waited_s > self._terms.leave_s:
                yield from self.kill()
        elif ending.reason in LIMITS and waited_s > 2 * self._timetable.stopping_s + self._terms.leave_s:
            yield from self.at_once(now, ending)

    def softly(self, now: float, status: str, reason: str) -> Iterator[Command]:
        """End at an agreed step, with a checkpoint; at once where none is near: a limit waits for no replacement."""
        ending, current = Ending(status, reason, since=now), self._fleet.current
        is_whole = current.is_open and (current.is_ready or current.is_leaving)
        if not is_whole and (reason in LIMITS or not current.has_survivors):
            yield from self.at_once(now, ending)
            return
        self.ending = ending
        yield from self._fleet.drop_next()
        yield from self.wish(reason)

    def at_once(self, now: float, ending: Ending) -> Iterator[Command]:
        """End without an agreed step: what is not in a checkpoint is lost."""
        again = self.is_at_once
        ending.since, ending.at_once = now, True
        self.ending = ending
        yield from self._fleet.drop_next()
        if not again:
            yield StopWorkers()
        if again or (ending.status == "cancelled" and not self._fleet.current.has_ready):  # there is nothing to lose
            yield from self.kill()
        yield from self.finish_if_all_gone()

    def kill(self) -> Iterator[Command]:
        """End the functions by force."""
        if not self._killed:
            self._killed = True
            if self.ending and not self.ending.at_once:  # whom the platform cannot end hears it
                self.ending.at_once = True
                yield StopWorkers()
            yield KillWorkers()

    def finish_if_all_gone(self) -> Iterator[Command]:
        """The run is over once nobody of the generation is left."""
        if self.ending and self._fleet.current.is_gone:
            yield from self.finish(self.ending.status, self.ending.reason, failure=self.ending.failure)

    def finish(
        self, status: str, reason: str, left: Left | None = None, failure: Failure | None = None
    ) -> Iterator[Command]:
        """The run is over."""
        if not self._is_over:
            yield from self._fleet.drop_next()
            self._is_over = True
            yield Finish(status, reason, left, failure)

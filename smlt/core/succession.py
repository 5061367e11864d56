"""Ranks that hand over one after another, where there is room for one function more but not for a second generation.

Says whose turn it is, and when; changes nothing but its own count of tries.
"""

from __future__ import annotations

from smlt.core.course import Course
from smlt.core.fleet import Generation
from smlt.core.run_events import Terms
from smlt.core.timetable import START_MARGIN, Timetable
from smlt.core.watch import Watch

TRIES = 3
"""After so many heirs in a row that came to nothing the generation ends as a whole, as without room."""

AGAIN_S = 2.0
"""So long after one that came to nothing the next one is launched."""


class Succession:
    """Plans the hand-overs of a generation's ranks.

    Args:
        terms: of the run.
        watch: knows how long a start takes.
        course: knows how long steps take.
        timetable: knows how long an end takes, and whether the job itself ends first.
    """

    def __init__(self, terms: Terms, watch: Watch, course: Course, timetable: Timetable) -> None:
        self._terms, self._watch, self._course, self._timetable = terms, watch, course, timetable
        self._failures = 0
        self._failed_at = float("-inf")

    def came_to_nothing(self, now: float) -> None:
        """An heir was lost before its turn."""
        self._failures += 1
        self._failed_at = now

    def begins_anew(self) -> None:
        """An heir has taken its place, or another generation trains: what failed before does not count."""
        self._failures = 0

    def due(self, generation: Generation, room: int, now: float) -> int | None:
        """The rank whose heir must be launched now; None for none yet, or where ranks cannot hand over one by one.

        The one that expires first is the first; it begins early enough for all others to have their turns after it.

        Args:
            generation: that is training.
            room: functions that may live beside it.
            now: by the controller's clock.
        """
        limit_s = self._terms.time_limit_s
        if limit_s is None or room < 1 or not self._is_possible(generation, limit_s):
            return None
        if now < self._failed_at + AGAIN_S:
            return None
        expiries = sorted((member.launched_at + limit_s, member.address.rank) for member in generation.members)
        latest = min(at - (turn + 1) * self._turn_s for turn, (at, _) in enumerate(expiries))
        first_at, rank = expiries[0]
        if now < latest - self._timetable.stopping_s or self._timetable.ends_within(now, first_at - now):
            return None
        return rank

    def _is_possible(self, generation: Generation, limit_s: float) -> bool:
        """Whether all ranks can have had their turns within half of a function's life: some may need a second try."""
        can_exchange = self._terms.exchange_every == 1 and not self._terms.has_private
        turns_s = generation.workers * self._turn_s
        in_time = turns_s <= (limit_s - self._timetable.stopping_s) / 2
        return can_exchange and generation.workers > 1 and in_time and self._failures < TRIES

    @property
    def _turn_s(self) -> float:
        """From the launch of an heir to the step that it takes part in."""
        return START_MARGIN * self._watch.start_s + 2 * self._course.seconds

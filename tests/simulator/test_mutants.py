"""Machines with a mistake planted in them: the invariants find each within a thousand seeds."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from smlt.core import rank_events as events
from smlt.core.allowance import Allowance
from smlt.core.controller import Controller
from smlt.core.messages import Round
from smlt.core.protocol import RankProtocol, Rules
from smlt.core.run_events import Command, Event, Kill, OpenRound, Terms
from smlt.simulator.scenario import Scenario, parse_kinds
from smlt.simulator.simulation import Outcome, simulate

MOST = 1000


class Forgetful(RankProtocol):
    """Goes on from the midst of a step: nothing is forgotten when the round changes."""

    def _decide(self, event: events.Event) -> events.Command:
        return events.AwaitRound() if isinstance(event, events.RoundChanged) else super()._decide(event)


class Hasty(RankProtocol):
    """Commits what it has computed itself, before the sums are there."""

    def _after_computing(self, event: events.Computed) -> events.Command:
        command = super()._after_computing(event)
        if self._cursor.step % 5 == 4 and isinstance(command, events.Exchange):
            return events.Commit(self._cursor, command.header)
        return command


class WrongDonor(RankProtocol):
    """Takes the state of who is furthest behind."""

    def _after_meeting(self, met: events.Met) -> events.Command:
        steps = [standing.cursor.step for standing in met.standings if standing.cursor]
        if steps and max(steps) != min(steps):
            ahead = max(steps)
            standings = [
                events.Standing() if standing.cursor and standing.cursor.step == ahead else standing
                for standing in met.standings
            ]
            met = events.Met(standings)
        return super()._after_meeting(met)


class Stale(RankProtocol):
    """Thinks that it has what only a donor has: a rank one step behind goes on with its own state."""

    def _after_meeting(self, met: events.Met) -> events.Command:
        command = super()._after_meeting(met)
        if isinstance(command, events.Fetch) and self._place.cursor is not None:
            self._stand(self._offered)
            return events.Stay()
        return command


class Stubborn(RankProtocol):
    """Stays at its last commit where all have gone back to the last exchange."""

    def _after_commit(self, now: float) -> events.Command:
        command = super()._after_commit(now)
        if self._rules.recovers_fast:
            self._place = events.Standing(self._cursor, self._best, self._end, self._save)
        return command


class Timid(RankProtocol):
    """Reads a checkpoint where a donor is there to begin anew with."""

    def _after_meeting(self, met: events.Met) -> events.Command:
        is_lost = any(standing.cursor is None for standing in met.standings)
        command = super()._after_meeting(met)
        return events.Restore() if self._rules.recovers_fast and is_lost else command


class EndlessEnd(RankProtocol):
    """Leaves before the state of the end is saved."""

    def _save_or_go_on(self) -> events.Command:
        return self._go_on() if self._end == self._cursor.step else super()._save_or_go_on()


def with_commands(change: Callable[[Command], Command | None]) -> Callable[[Terms], Controller]:
    """A controller whose commands are tampered with."""

    class Tampered(Controller):
        def handle(self, event: Event) -> list[Command]:
            changed = (change(command) for command in super().handle(event))
            return [command for command in changed if command is not None]

    return Tampered


def number_again(command: Command) -> Command:
    """The second round of a generation has the number of the first."""
    if isinstance(command, OpenRound) and command.round.number == 1:
        opened = command.round
        return OpenRound(Round(opened.generation, 0, opened.members, opened.resume_from))
    return command


RANKS: dict[str, Callable[[int, Rules], RankProtocol]] = {
    each.__name__: each for each in (Forgetful, Hasty, WrongDonor, Stale, Stubborn, Timid, EndlessEnd)
}
CONTROLLERS: dict[str, Callable[[Terms], Controller]] = {
    "reuses a round's number": with_commands(number_again),
    "replaces without killing": with_commands(lambda command: None if isinstance(command, Kill) else command),
}


def found(run: Callable[[Scenario], Outcome], kinds: str = "all") -> str:
    """What the first seed that finds it says; empty if none does."""
    drawn = (Scenario.random(seed, kinds=parse_kinds(kinds)) for seed in range(MOST))
    small = (scenario for scenario in drawn if scenario.workers <= 60)
    return next((outcome.broken for outcome in map(run, small) if outcome.broken), "")


@pytest.mark.parametrize("name", RANKS)
def test_a_broken_rank_is_found(name: str) -> None:
    assert found(lambda scenario: simulate(scenario, rank=RANKS[name]))


@pytest.mark.parametrize("name", CONTROLLERS)
def test_a_broken_controller_is_found(name: str) -> None:
    assert found(lambda scenario: simulate(scenario, controller=CONTROLLERS[name]))


def test_a_controller_that_does_not_look_at_its_budget_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Allowance, "can_pay", lambda self, functions: True)
    assert "is the budget" in found(simulate, "budget")

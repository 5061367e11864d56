"""All ranks of a round in step, while nothing distinguishes them: two machines, those of ranks 0 and 1, go for all.

A machine is pure, so equal machines with equal events come to equal states: whatever strikes one rank first dissolves
the formation, and every rank goes on with its own copy. This is what makes thousands of ranks cheap.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING

from smlt.core import rank_events as events
from smlt.core.messages import StepRecord
from smlt.core.protocol import RankProtocol
from smlt.core.sync.header import Header, merge
from smlt.simulator.hands import apply, computed, evaluation, gather_evaluation, on_computed, sum_up

if TYPE_CHECKING:
    from smlt.simulator.process import Process
    from smlt.simulator.world import World

LEAST = 4
"""Fewer ranks are as quick one by one."""


def as_rank(machine: RankProtocol, rank: int) -> RankProtocol:
    """A copy of a machine, for another rank that has been told the same."""
    twin = copy.copy(machine)
    twin._rank = rank
    return twin


class Formation:
    """Ranks that step together.

    Args:
        world: where.
        members: in rank order; all have got the same sums now, and have done nothing with them yet.
    """

    __slots__ = ("_ends_s", "_is_over", "_records", "leader", "members", "second", "world")

    def __init__(self, world: World, members: list[Process]) -> None:
        self.world, self.members = world, members
        self.leader, self.second = members[0], members[1]
        self._ends_s = 0.0
        self._is_over = False
        self._records: list[StepRecord] = []
        for process in members:
            process.ticket += 1
            process.is_waiting = False
            process.troubles = process.reported = 0
            process.formation = self

    def begin(self, merged: Header) -> None:
        """Take over with the sums of a step."""
        self._sum_up(merged)
        self._commit()

    def report(self, process: Process) -> None:
        """Bring up to date what a member says of itself in its mail."""
        second = self.second
        if process is not self.leader and process is not second:
            process.step, process.phase, process.phase_since_s = second.step, second.phase, second.phase_since_s
            process.courier.steps += self._records[process.reported :]
            process.reported = len(self._records)

    def explode(self) -> None:
        """Something strikes one of them: each goes on for itself, in the midst of its step or evaluation."""
        if self._is_over:
            return
        self._dissolve()
        left_s = max(0.0, self._ends_s - self.world.timeline.now)
        for process in self.members:
            command, seconds = process.command, left_s * self.world.rng.uniform(0.8, 1.0)
            if isinstance(command, events.Evaluate):
                process.later(seconds, gather_evaluation, command.cursor)
            else:
                process.later(seconds, on_computed)

    def _dissolve(self) -> None:
        self._is_over = True
        second = self.second
        for process in self.members:
            self.report(process)
            process.formation = None
            if process is self.leader or process is second:
                continue
            process.machine = as_rank(second.machine, process.rank)
            process.command = second.command
            process.state, process.private, process.is_fresh = second.state, second.private, second.is_fresh
            process.in_hand, process.exchanged, process.step_began_s = None, second.exchanged, second.step_began_s

    def _sum_up(self, merged: Header) -> None:
        for process in (self.leader, self.second):
            sum_up(process)
        self._tell(events.Exchanged(merged))

    def _next(self, process: Process, event: events.Event) -> None:
        process.command = process.machine.next(event)
        if self.world.trace is not None:
            self.world.trace.ranked(process.uuid, process.command)

    def _tell(self, event: events.Event) -> None:
        for process in (self.leader, self.second):
            self._next(process, event)

    def _step(self) -> None:
        if self._is_over:
            return
        pair = (self.leader, self.second)
        for process in pair:
            self._next(process, computed(process))
        first, other = self.leader.command, self.second.command
        if isinstance(first, events.Exchange) and isinstance(other, events.Exchange):
            headers = [first.header, other.header]
            self.world.invariants.contributed(self.leader, headers, [process.in_hand for process in pair])
            self._sum_up(merge(headers))
        self._commit()

    def _commit(self) -> None:
        for process in (self.leader, self.second):
            command = process.command
            assert isinstance(command, events.Commit), command
            self._next(process, apply(process, command))
        self._records.append(self.second.courier.steps[-1])
        self.world.invariants.committed_by_others(len(self.members) - 2)
        self._go_on()

    def _go_on(self) -> None:
        first, other, world = self.leader.command, self.second.command, self.world
        step = self.leader.machine.cursor.step
        if type(first) is not type(other) or not world.is_calm(step):
            self._disband()
        elif isinstance(first, events.Compute):
            for process in (self.leader, self.second):
                process.begin_step(step)
            self._wait(world.step_together_s(self.leader), self._step)
        elif isinstance(first, events.Evaluate):
            for process in (self.leader, self.second):
                process.doing("evaluating")
            self._wait(world.times(self.leader).evaluate_s * world.slowest, self._evaluate)
        elif isinstance(first, events.KeepBest):
            self._tell(events.BestKept())
            self._go_on()
        elif isinstance(first, events.Save) and not first.last and not self.leader.saver.is_busy:
            self._save(first)
        else:
            self._disband()

    def _wait(self, seconds: float, then: Callable[[], None]) -> None:
        drawn_s = self.world.draw(seconds)
        self._ends_s = self.world.timeline.now + drawn_s
        self.world.timeline.after(drawn_s, then)

    def _evaluate(self) -> None:
        if self._is_over:
            return
        for process in (self.leader, self.second):
            self._next(process, evaluation(process))
        self._go_on()

    def _save(self, command: events.Save) -> None:
        for process in self.members:
            process.state = self.second.state
            process.saver.begin(command)
        self._tell(events.Saved(self.world.timeline.now))
        self._go_on()

    def _disband(self) -> None:
        """What comes now is done by each for itself."""
        self._dissolve()
        for process in self.members:
            process.go_on(process.command)

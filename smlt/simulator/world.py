"""Everything that one simulated run consists of, wired together."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from smlt.core.controller import Controller
from smlt.core.job import BatchPhase, Job
from smlt.core.lease import lease_s
from smlt.core.messages import StepRecord
from smlt.core.protocol import RankProtocol, Rules
from smlt.core.run_events import Address, Launch, Terms
from smlt.core.sampler import Cursor, Schedule
from smlt.core.task import TaskShape
from smlt.core.units import Every
from smlt.simulator import faults
from smlt.simulator.channel import Gathering, ModelChannel, RoundKey, Waiter
from smlt.simulator.formation import LEAST, Formation
from smlt.simulator.invariants import Invariants
from smlt.simulator.pilot import Pilot
from smlt.simulator.platform import Platform
from smlt.simulator.process import Process
from smlt.simulator.scenario import MEMORY_MIB, TOGETHER, Fault, Scenario, Timing
from smlt.simulator.store import ModelStore
from smlt.simulator.timeline import Timeline
from smlt.simulator.trace import Trace

GROUPS = 4
"""Couriers carry in so many turns, one after the other."""

STEPS_AN_EPOCH = 16

ORPHAN_GRACE_S = 8.0
"""As the local backend's."""


class World:
    """One run's world.

    Args:
        scenario: what happens.
        controller, rank: the machines.
        trace: keeps what happens; None to keep nothing.
        timeline: the virtual time that it goes by; its own where none is given.

    Attributes:
        traps: faults that wait for a process to come to their point.
        has_struck: whether anything has gone wrong yet.
        log_generation, log_step, log_segments: what the run log says: the last generation that was launched, and the
            next step; of how many pieces it is.
        log_launched, log_ready: what it says of each generation: its launches, and when they were; and whether anybody
            was READY.
        log_lost: who is lost, as it says.
        log_memory_mib: with how much functions are launched by now, as it says.
        needs_mib: by rank, how much memory its functions need, where that is more than they have at first.
        expected: SHARED state before each step, as an undisturbed run has it.
    """

    def __init__(
        self,
        scenario: Scenario,
        controller: Callable[[Terms], Controller] = Controller,
        rank: Callable[[int, Rules], RankProtocol] = RankProtocol,
        trace: Callable[[Timeline], Trace] | None = None,
        timeline: Timeline | None = None,
    ) -> None:
        self.scenario, self.timing = scenario, scenario.timing
        self.rng = Random(scenario.seed)
        self.timeline = timeline or Timeline()
        self.trace = trace(self.timeline) if trace else None
        self.controller = controller
        self._rank = rank
        self.terms = _terms(scenario)
        fleet_usd_per_s = scenario.workers * scenario.usd_per_function_s
        grace_s, beat_s = max(ORPHAN_GRACE_S, 3 * scenario.timing.beat_s), scenario.timing.beat_s
        self.lease_s = max(lease_s(grace_s, scenario.budget_usd, fleet_usd_per_s), 6 * beat_s)
        self.orphan_grace_s = min(grace_s, self.lease_s / 2)
        self.store = ModelStore(self.timeline, self.rng, scenario.timing.store_s)
        self.invariants = Invariants(self)
        self.channel = ModelChannel(
            self.timeline, self._latency, self._straggles, self.invariants.written_twice, self._form
        )
        self.platform = Platform(self)
        self.rules = _rules(scenario)
        self.schedule = Course(STEPS_AN_EPOCH, self.rules.job.batch_phases, None, scenario.steps)
        self.shape = TaskShape(STEPS_AN_EPOCH, 1, 1, ())
        self.expected = self._expect()
        self.traps: dict[str, list[Fault]] = {}
        self.has_struck = False
        self.log_generation, self.log_step, self.log_segments = 0, 0, 0
        self.log_launched: dict[int, dict[Address, tuple[dict[str, Any], float]]] = {}
        self.log_lost: set[Address] = set()
        self.log_memory_mib = self.terms.memory_mib
        self.needs_mib: dict[int, int] = {}
        self.log_ready: set[int] = set()
        self.slowest = 1.0 + scenario.timing.spread
        self.pilots: list[Pilot] = []
        self._listening: list[dict[str, Process]] = [{} for _ in range(GROUPS)]
        self._turn = 0
        self._seats: dict[RoundKey, dict[int, Process]] = {}

    def begin(self) -> None:
        """Let the first controller begin, and announce all that will go wrong."""
        for fault in self.scenario.faults:
            self.timeline.after(fault.at_s, faults.strike, self, fault)
        self.succeed()
        self._carry()

    def succeed(self) -> None:
        """A controller takes over, unless the run is over."""
        if not any(pilot.finish for pilot in self.pilots):
            pilot = Pilot(self, self.store.control.epoch + 1)
            self.pilots.append(pilot)
            pilot.begin()

    def target(self, rank: int) -> Process | None:
        """The function of a rank that was launched last, if it is there."""
        for process in reversed(self.platform.processes.values()):
            if process.rank == rank % process.workers:
                return process
        return None

    def spring(self, process: Process, point: str) -> bool:
        """Whether a trap was laid for this process at this point; it has struck then."""
        for fault in self.traps.get(point, ()):
            if fault.rank % process.workers == process.rank and process.step >= fault.step:
                self.traps[point].remove(fault)
                faults.strike_process(self, process, fault)
                return True
        return False

    # Steps

    def _expect(self) -> list[int]:
        """SHARED state before each step, and after the last one."""
        states, cursor = [1], Cursor()
        for _ in range(self.scenario.steps):
            states.append(self.chain(states[-1], cursor))
            cursor = self.schedule.after(cursor)
        return states

    @staticmethod
    def chain(state: int, cursor: Cursor) -> int:
        """SHARED state after the step at `cursor`."""
        return hash((state, cursor.step, cursor.epoch, cursor.consumed))

    def exchanges(self, cursor: Cursor) -> bool:
        """Whether the step at `cursor` ends in an exchange."""
        following = cursor.step + 1
        return following == self.scenario.steps or following % self.rules.exchange_every == 0

    def metrics(self, step: int) -> dict[str, float]:
        """What an evaluation after so many steps gives."""
        return {"loss": 1.0 / (1 + step)}

    def machine(self, rank: int) -> RankProtocol:
        """The machine of a rank."""
        return self._rank(rank, self.rules)

    # Processes

    def listen(self, process: Process) -> None:
        """A courier begins to carry."""
        self._listening[process.rank % GROUPS][process.uuid] = process

    def gone(self, process: Process) -> None:
        """A process is over."""
        self._listening[process.rank % GROUPS].pop(process.uuid, None)

    def take_seat(self, process: Process) -> None:
        """A process joins a round."""
        if process.joined is not None:
            self._seats.setdefault(process.joined, {})[process.rank] = process

    def _carry(self) -> None:
        self._turn = (self._turn + 1) % GROUPS
        for process in list(self._listening[self._turn].values()):
            if process.is_alive and not process.is_frozen:
                process.courier.carry()
        self.timeline.after(self.timing.beat_s / GROUPS, self._carry)

    # Steps of many

    def is_calm(self, step: int) -> bool:
        """Whether nothing lies in wait within the step, or within the next."""
        return not any(
            fault.step <= step + 1 for point in TOGETHER.intersection(self.traps) for fault in self.traps[point]
        )

    def _form(self, waiting: list[Waiter], gathering: Gathering) -> bool:
        """Let all who get these sums go on as a formation, if all of them are here and well."""
        workers = len(gathering.values)
        if (
            not self.scenario.together
            or workers < LEAST
            or len(waiting) != workers
            or not self.is_calm(waiting[0][0].step)
        ):
            return False
        for process, ticket, *_ in waiting:
            if not process.is_well or process.ticket != ticket:
                return False
        members = sorted((waiter[0] for waiter in waiting), key=lambda process: process.rank)
        Formation(self, members).begin(gathering.values[0])
        return True

    # Times

    def times(self, one: Launch | Process) -> Timing:
        """How long things take a function, or one that is about to be launched."""
        del one
        return self.timing

    def step_together_s(self, leader: Process) -> float:
        """How long a step takes all ranks of a formation."""
        times = self.times(leader)
        return times.step_s * self.slowest + times.exchange_s

    def memory_needed_mib(self, process: Process) -> int:
        """How much memory a function needs."""
        return self.needs_mib.get(process.rank, 0)

    def record(self, process: Process, cursor: Cursor) -> StepRecord:
        """What a rank reports of a step that it has committed now."""
        now = self.timeline.now
        seconds = now - process.step_began_s
        number = process.round.number if process.round else -1
        return StepRecord(cursor.step, cursor.epoch, 1.0, 1, seconds, seconds, 0.0, 0.0, now, round=number)

    # Chance, money

    def draw(self, seconds: float) -> float:
        """How long something takes this time."""
        return seconds * (1.0 + self.timing.spread * (2.0 * self.rng.random() - 1.0))

    def _latency(self) -> float:
        return self.timing.channel_s * (0.5 + self.rng.random())

    def _straggles(self) -> float:
        return self.rng.expovariate(0.5) if self.rng.random() < 0.02 else 0.0

    def spent_usd(self) -> float:
        """What all functions have cost so far."""
        return self.platform.size_s() * self.scenario.usd_per_function_s


class Course(Schedule):
    """A schedule that is asked often by thousands: its cursors are worked out once."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        cursors = [Cursor()]
        for _ in range(self.total_steps + 1):
            cursors.append(super().after(cursors[-1]))
        object.__setattr__(self, "_cursors", cursors)

    def after(self, cursor: Cursor) -> Cursor:
        """The cursor once the step at `cursor` is committed."""
        cursors: list[Cursor] = self._cursors  # type: ignore[attr-defined]
        known = cursors[cursor.step]
        if known is cursor or known == cursor:
            return cursors[cursor.step + 1]
        return super().after(cursor)


def _rules(scenario: Scenario) -> Rules:
    job = Job(
        task="task.py:Task",
        steps=scenario.steps,
        global_batch=(BatchPhase(from_epoch=0, size=1),),
        eval_every=Every(scenario.eval_every, "step"),
        checkpoint_every=Every(scenario.save_every, "step") if scenario.save_every else "auto",
        keep_best="loss",
    )
    return Rules(
        job,
        exchange_every=scenario.exchange_every,
        has_private=scenario.has_private,
        recovers_fast=scenario.recovers_fast,
    )


def _terms(scenario: Scenario) -> Terms:
    beat_s = scenario.timing.beat_s
    return Terms(
        workers=scenario.workers,
        memory_mib=MEMORY_MIB,
        memory_choices_mib=scenario.memory_choices_mib,
        max_workers=scenario.max_workers or scenario.workers,
        deadline_s=scenario.deadline_s,
        budget_usd=scenario.budget_usd,
        time_limit_s=scenario.time_limit_s,
        start_deadline_s=30.0,
        silence_s=max(5.0, 5 * beat_s),
        stuck_s=max(5.0, 5 * beat_s),
        has_private=scenario.has_private,
        state_write_s=scenario.timing.state_write_s,
        exchange_every=scenario.exchange_every,
    )

"""A run in memory: real machines of ranks, and models of their processes, of the controller, the channel and the store.

What happens next is drawn; processes are killed, thought lost while they go on, and their channel fails. Whatever is
not as in the run that nothing disturbs is an AssertionError at the event that made it so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from smlt.core.messages import Left, Round
from smlt.core.protocol import Rules
from smlt.core.rank_events import Command
from tests.support.model_plan import Checkpoint, Plan, State
from tests.support.model_process import CheckpointDone, Process, Ready
from tests.support.model_ranks import ModelRanks


@dataclass(frozen=True)
class Fault:
    """Something goes wrong.

    Attributes:
        after: events since the fault before.
        kind: `kill`; `lose`, a process is thought lost and goes on; `trouble`, its channel fails; `wish`, the
            generation shall end; `kill_all`.
        rank: whose process; modulo the number of ranks.
        at: what the process does then, if it does so before long; None for whatever it does.
    """

    after: int
    kind: str
    rank: int
    at: type[Command] | None = None


@dataclass
class Member:
    """What the controller knows of a rank."""

    process: Process
    is_ready: bool = False
    left: Left | None = None
    is_gone: bool = False
    round: int = -1


class ModelRun:
    """A run to its goal.

    Args:
        plan: what is trained, and by whom.
        faults: what goes wrong, in turn.
        seed: of what happens next.

    Attributes:
        checkpoints: by the step.
        best_model, model: what rank 0 wrote, and why.
        commits: of all processes.
        two_went_on: whether a process was thought lost, and went on beside its replacement.
    """

    LONGEST = 20_000
    """Events; a run that takes more does not end."""
    PATIENCE = 60
    """Events; so long a fault waits for its process to do what it shall be doing."""

    def __init__(self, plan: Plan, faults: Sequence[Fault] = (), seed: int = 0) -> None:
        self.plan, self.faults = plan, list(faults)
        self.rules = Rules(plan.job, 3, plan.exchange_every, plan.has_private, plan.recovers_fast)
        self.draw = Random(seed)
        self.numbers = iter(range(10**9))
        self.now, self._due = 0, faults[0].after if faults else 0
        self.channel: dict[tuple[int, int, str, int], dict[int, Any]] = {}
        self.checkpoints: dict[int, Checkpoint] = {}
        self.best_model: State | None = None
        self.model: tuple[State, str] | None = None
        self.commits = 0
        self.two_went_on = False
        self.courses = {size: plan.course(size) for size in set(plan.sizes)}
        self.is_over = False
        self.generation, self.round, self.wish = 0, None, False
        self.processes: list[Process] = []
        self.members: list[Member] = []
        self._known = ""
        self._launch_generation()

    def to_the_end(self) -> ModelRun:
        """Until rank 0 has said that the goal is reached; then check what came out."""
        while not self.is_over:
            self.now += 1
            assert self.now < self.LONGEST, "the run does not end"
            if self.faults and self._is_time_for(self.faults[0]):
                self._fail(self.faults.pop(0))
                self._due = self.now + (self.faults[0].after if self.faults else 0)
            self._one_event()
        self._check_what_came_out()
        return self

    def check(self, process: Process) -> None:
        """A rank's state is that of the run which nothing disturbs, but for what it may have lost."""
        state, plan = process.state, self.plan
        assert state is not None
        self.commits += 1
        expected = plan.without_private(self.courses[process.world_size][state.cursor.step][process.rank])
        assert plan.without_private(state) == expected, f"{process.uuid} has {state}, not {expected}"
        if plan.recovers_fast:
            assert state.private == plan.private_since(process.begun, state.cursor, process.rank, process.world_size)

    def write(self, checkpoint: Checkpoint) -> None:
        """A manifest; who writes it again writes the same."""
        step = checkpoint.cursor.step
        before = self.checkpoints.setdefault(step, checkpoint)
        if self.plan.recovers_fast:
            assert replace(before, private=()) == replace(checkpoint, private=())
        elif len(before.private) == len(checkpoint.private):
            assert before == checkpoint

    def _check_what_came_out(self) -> None:
        course = ModelRanks(
            self.plan.job, self.plan.examples, metrics=self.plan.metrics, exchange_every=self.plan.exchange_every
        ).run()
        last = course.last.cursor
        assert last is not None
        expected = self.plan.without_private(self.courses[self.members[0].process.world_size][last.step][0])
        assert self.model is not None
        assert (self.plan.without_private(self.model[0]), self.model[1]) == (expected, course.last.reason)
        assert self.checkpoints[last.step].shared == expected.shared
        kept = course.steps("keepbest")
        if not self.two_went_on:  # two processes of one rank overwrite each other's best model
            assert (self.best_model and self.best_model.cursor.step) == (kept[-1] if kept else None)

    # What happens

    def _one_event(self) -> None:
        """A process has its turn, or the controller hears something, or sees that a process is gone."""
        moving = [each for each in self.processes if each.is_alive and not each.has_left]
        told = [each for each in self.processes if each.mails]
        dead = [
            member
            for member in self.members
            if not (member.process.is_alive or member.process.mails or member.is_gone or member.left)
        ]
        number = self.draw.randrange(len(moving) + len(told) + len(dead))
        if number < len(moving):
            moving[number].turn(self.draw)
        elif number < len(moving) + len(told):
            self._hear(told[number - len(moving)])
        else:
            self._lose(dead[number - len(moving) - len(told)])

    def _is_time_for(self, fault: Fault) -> bool:
        process = self.members[fault.rank % len(self.members)].process
        waited = self.now - self._due
        return waited >= 0 and (fault.at is None or isinstance(process.command, fault.at) or waited >= self.PATIENCE)

    def _fail(self, fault: Fault) -> None:
        member = self.members[fault.rank % len(self.members)]
        process = member.process
        if fault.kind == "wish":
            self.wish = True
        elif fault.kind == "kill_all":
            for each in self.members:
                each.process.kill(self.draw)
        elif process.has_left or not process.is_alive:
            return
        elif fault.kind == "kill":
            process.kill(self.draw)
        elif fault.kind == "lose" and not (member.is_gone or member.left):
            self.two_went_on = True
            self._lose(member)
        elif fault.kind == "trouble" and process.is_in_a_round:
            process.change_round(asks=True)

    # The controller

    def _launch_generation(self) -> None:
        size = self.plan.sizes[self.generation % len(self.plan.sizes)]
        self.generation += 1
        self.round, self.wish = None, False
        self.members = [Member(self._launch(rank, size)) for rank in range(size)]

    def _launch(self, rank: int, size: int) -> Process:
        process = Process(self, rank, size)
        self.processes.append(process)
        return process

    @property
    def _is_leaving(self) -> bool:
        return any(member.left for member in self.members)

    def _hear(self, process: Process) -> None:
        mail = process.mails.pop(0)
        member = self.members[process.rank] if process.rank < len(self.members) else None
        if isinstance(mail, CheckpointDone):
            self._known = str(max(mail.step, int(self._known or 0))) if process.rank == 0 else self._known
        if member is None or member.process is not process or member.is_gone:
            return
        if isinstance(mail, Left):
            self._on_left(member, mail)
        elif isinstance(mail, Ready):
            member.is_ready = True
            number = -1 if self.round is None else self.round.number
            if self._is_leaving:
                self._give_up(member)
            elif all(each.is_ready and not each.is_gone for each in self.members) and mail.after_round in (-1, number):
                self._open_round(number + 1)
        self._see_whether_it_is_over()

    def _open_round(self, number: int) -> None:
        for member in self.members:
            member.round = number
        uuids = tuple(member.process.uuid for member in self.members)
        self.round = Round(self.generation, number, uuids, self._known)

    def _on_left(self, member: Member, left: Left) -> None:
        """Those in the same round leave, too; whoever has come since waits for peers that will not come."""
        is_first = not self._is_leaving
        member.left = left
        for each in self.members if is_first else []:
            if not each.left and each.round != left.round:
                self._give_up(each)

    def _lose(self, member: Member) -> None:
        if self._is_leaving:
            member.is_gone = True
            self._see_whether_it_is_over()
        else:
            rank, size = member.process.rank, len(self.members)
            self.members[rank] = Member(self._launch(rank, size))

    def _give_up(self, member: Member) -> None:
        member.process.kill(self.draw)
        member.is_gone = True

    def _see_whether_it_is_over(self) -> None:
        if not all(member.left or member.is_gone for member in self.members):
            return
        first = self.members[0].left
        if first and first.reason in ("goal", "target"):
            self.is_over = True
        else:
            self._launch_generation()

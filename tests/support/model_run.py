"""A run in memory: real machines of ranks, and models of their processes, of the controller, the channel and the store.

What happens next is drawn; processes are killed, thought lost while they go on, and their channel fails. Whatever is
not as in the run that nothing disturbs is an AssertionError at the event that made it so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from random import Random
from typing import Any

import numpy as np

from smlt.core import rank_events as events
from smlt.core.job import Job
from smlt.core.messages import Left, Round
from smlt.core.protocol import RankProtocol, Rules
from smlt.core.rank_events import Command, Event, Standing
from smlt.core.sampler import Cursor, Schedule, share
from smlt.core.sync.header import Header, merge
from tests.support.model_ranks import ModelRanks

NOWHERE = (events.Claim, events.Build, events.AwaitRound, events.Forget)
"""Commands of a rank that is in no round."""

NOTHING = Header(-2)
"""What was said with no commit."""


@dataclass(frozen=True)
class State:
    """A rank's state at a commit: chains of hashes over all that was committed, each once and in order."""

    cursor: Cursor = field(default_factory=Cursor)
    shared: str = ""
    private: str = ""


@dataclass(frozen=True)
class Contribution:
    """What a rank gives to a sum: its examples, and where it has come by itself."""

    examples: tuple[int, ...]
    private: str


@dataclass(frozen=True)
class Checkpoint:
    """What is in the store."""

    cursor: Cursor
    shared: str
    private: tuple[str, ...]
    best: float | None
    goal: str


@dataclass(frozen=True)
class Ready:
    """A process waits for a round after this one."""

    after_round: int


@dataclass(frozen=True)
class CheckpointDone:
    """Rank 0 has seen a checkpoint complete."""

    step: int


Mail = Ready | CheckpointDone | Left


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


@dataclass(frozen=True)
class Plan:
    """What is trained, and by whom.

    Attributes:
        job: with "score" as its metric.
        scores: what an evaluation gives, by the step.
        sizes: ranks of each generation, in turn.
    """

    job: Job
    examples: int
    scores: Sequence[float]
    sizes: Sequence[int]
    exchange_every: int = 1
    has_private: bool = False
    save_interval_s: float = 30.0

    @property
    def schedule(self) -> Schedule:
        return Schedule.of(self.job, self.examples)

    def metrics(self, step: int) -> dict[str, float]:
        return {"score": self.scores[step % len(self.scores)]}

    def contribution(self, state: State, rank: int, world_size: int) -> Contribution:
        """What a rank computes in the step after `state`."""
        cursor = state.cursor
        batch = self.schedule.batch(np.arange(self.examples) + cursor.epoch * self.examples, cursor)
        mine = tuple(share(batch, rank, world_size).tolist())
        return Contribution(mine, _hash(state.private, cursor.step, mine) if self.has_private else "")

    def committed(self, state: State, own: Contribution, summed: Sequence[Contribution] | None) -> State:
        """The state after a step; `summed` is what all ranks contributed, where they exchanged."""
        shared = state.shared
        if summed is not None:
            batch = [example for each in summed for example in each.examples]
            shared = _hash(shared, state.cursor.step, batch, [each.private for each in summed if each.private])
        return State(self.schedule.after(state.cursor), shared, own.private)

    def course(self, world_size: int) -> list[list[State]]:
        """Each rank's states, by the step, where nothing goes wrong."""
        course = [[State()] * world_size]
        while not self.schedule.is_done(course[-1][0].cursor):
            given = [self.contribution(state, rank, world_size) for rank, state in enumerate(course[-1])]
            following = self.schedule.after(course[-1][0].cursor)
            exchanges = self.schedule.is_done(following) or following.step % self.exchange_every == 0
            summed = given if exchanges else None
            course.append([self.committed(state, own, summed) for state, own in zip(course[-1], given, strict=True)])
        return course


def _hash(*parts: object) -> str:
    return blake2b(repr(parts).encode(), digest_size=8).hexdigest()


class Process:
    """One incarnation of a rank: does what its machine says, a little at each turn."""

    def __init__(self, run: ModelRun, rank: int, world_size: int) -> None:
        self.run, self.rank, self.world_size, self.generation = run, rank, world_size, run.generation
        self.uuid = f"{rank} of {world_size} in generation {run.generation}, {next(run.numbers)}"
        self.machine = RankProtocol(rank, run.rules)
        self.state: State | None = None
        self.round: Round | None = None
        self.is_alive, self.has_left = True, False
        self.mails: list[Mail] = []
        self.uploads: list[tuple[int, events.Save, State]] = []
        self._asks, self._is_published, self._is_between_states = True, False, False
        self._must_be_at, self._saved_in, self._said = 0, (-1, -1), NOTHING
        self._own: Contribution | None = None
        self._summed: list[Contribution] | None = None
        self._commands: list[Command] = []
        self._tell(events.Begun())

    @property
    def command(self) -> Command:
        return self._commands[-1]

    @property
    def is_in_a_round(self) -> bool:
        return not isinstance(self.command, NOWHERE)

    def turn(self, draw: Random) -> None:
        """Do a little: notice a newer round, write a part of a checkpoint, or go on with the command."""
        if self.is_in_a_round and self._is_called() and draw.random() < 0.4:
            self.change_round()
        elif self._is_superseded() and draw.random() < 0.2:
            self.is_alive = False
        elif self.uploads and draw.random() < 0.3:
            self._upload()
        else:
            event = self._perform(self.command)
            if event is not None:
                self._tell(event)

    def change_round(self, *, asks: bool = False) -> None:
        """Give up what is in hand: another round is open, or needed."""
        self._asks = asks
        self._tell(events.RoundChanged())

    def kill(self, draw: Random) -> None:
        """Without a word more; the last that were said may not have been sent."""
        self.is_alive = False
        self.uploads.clear()
        del self.mails[draw.randint(0, len(self.mails)) :]

    def _tell(self, event: Event) -> None:
        self._commands.append(self.machine.next(event))
        self._is_published = False

    def _is_called(self) -> bool:
        """Whether a newer round of its generation is open, with it."""
        opened = self.run.round
        before = -1 if self.round is None else self.round.number
        return (
            opened is not None
            and opened.generation == self.generation
            and opened.number > before
            and self.uuid in opened.members
        )

    def _is_superseded(self) -> bool:
        """Whether another process has taken its place."""
        opened = self.run.round
        if self.run.generation != self.generation:
            return True
        return self.round is not None and opened is not None and self.uuid not in opened.members

    # What it does

    def _perform(self, command: Command) -> Event | None:
        """A part of a command; None where there is more to it."""
        match command:
            case events.Claim():
                return events.Claimed(won=True)
            case events.Build():
                return events.Built(self.run.plan.schedule)
            case events.AwaitRound():
                return self._await_round()
            case events.Meet(standing=standing):
                return self._meet(standing)
            case events.Restore():
                return self._restore()
            case events.Fetch(cursor=cursor, donor=donor):
                return self._fetch(cursor, donor)
            case events.Serve(cursor=cursor, readers=readers):
                self._put("state", cursor.step, [(self._at(cursor), self._said)] * readers)
                return events.Served()
            case events.Stay():
                return events.Stayed()
            case events.Forget():
                return self._forget()
            case events.Compute():
                return self._compute(command)
            case events.Exchange(header=header):
                return self._exchange(header)
            case events.Commit(cursor=cursor, merged=merged):
                return self._commit(cursor, merged)
            case events.Evaluate(cursor=cursor):
                self._at(cursor)
                metrics = self.run.plan.metrics(cursor.step)
                return self._gathered("eval", cursor.step, None) and events.Evaluated(metrics)
            case events.KeepBest() | events.Export() if self._is_superseded():
                self.is_alive = False  # it looks before it writes what another process writes, too
                return None
            case events.KeepBest(cursor=cursor):
                if self.rank == 0:
                    self.run.best_model = self._at(cursor)
                return events.BestKept()
            case events.Save():
                return self._save(command)
            case events.Export(cursor=cursor, reason=reason):
                if self.rank == 0:
                    self.run.model = (self._at(cursor), reason)
                return events.Exported()
            case events.Leave(cursor=cursor, reason=reason):
                self._leave(cursor, reason)
                return None

    def _await_round(self) -> Event | None:
        if self._asks:
            self._asks = False
            self.mails.append(Ready(-1 if self.round is None else self.round.number))
        elif self._is_called():
            self.round = self.run.round
            return events.RoundOpened()
        return None

    def _meet(self, standing: Standing) -> Event | None:
        if standing.cursor is not None:
            assert self.state is not None, f"{self.uuid} says it has a state"
            assert self.state.cursor == standing.cursor
        standings = self._gathered("hello", 0, standing)
        if standings is None:
            return None
        self._must_be_at = max(-1 if each.cursor is None else each.cursor.step for each in standings)
        return events.Met(standings)

    def _restore(self) -> Event | None:
        assert self.round is not None
        self._must_be_at = 0
        if self.state is not None:
            self.state = None  # something of the checkpoint is here already
            return None
        self._said = NOTHING
        if not self.round.resume_from:
            self.state = State()
            return events.Restored(Cursor())
        found = self.run.checkpoints[int(self.round.resume_from)]
        private = found.private[self.rank] if self.run.plan.has_private else ""
        self.state = State(found.cursor, found.shared, private)
        self.run.check(self)
        return events.Restored(found.cursor, found.best, found.goal)

    def _fetch(self, cursor: Cursor, donor: int) -> Event | None:
        served = self._values("state", cursor.step).get(donor)
        if not served:  # not there yet, or gone: a value vanishes when it was read so often as was said
            return None
        if not self._is_between_states:
            self._is_between_states = True
            return None
        (self.state, self._said), self._is_between_states = served.pop(), False
        self.run.check(self)
        return events.Fetched()

    def _forget(self) -> Event:
        has_state, self._is_between_states = not self._is_between_states, False
        if not has_state:
            self.state = None
        self._own = self._summed = None
        return events.Forgotten(has_state)

    def _compute(self, command: events.Compute) -> Event:
        state, run = self._at(command.cursor), self.run
        step = state.cursor.step
        assert step >= self._must_be_at, f"{self.uuid} goes on at step {step}, others at {self._must_be_at}"
        if self.round is not None and step == self._said.step + 1:
            assert step != self._said.end, f"{self.uuid} goes on at step {step}, before which the end was agreed"
            has_saved = self._saved_in == (self.round.number, step)
            assert has_saved or step != self._said.save, f"{self.uuid} does not save before step {step}"
        self._own = run.plan.contribution(state, self.rank, self.world_size)
        digest = int(_hash(state.shared), 16) if command.take_digest else 0
        now = float(run.now * (1 + self.rank))  # every process has its own clock
        return events.Computed(1.0, 1.0, digest, now, run.wish, run.plan.save_interval_s)

    def _exchange(self, header: Header) -> Event | None:
        assert self.state is not None
        assert header.step == self.state.cursor.step
        values = self._gathered("grad", header.step, (header, self._own))
        if values is None:
            return None
        self._summed = [contribution for _, contribution in values]
        return events.Exchanged(merge([header for header, _ in values]))

    def _commit(self, cursor: Cursor, merged: Header) -> Event:
        state = self._at(cursor)
        assert self._own is not None
        if self._summed is not None:
            self._said = merged
        self.state = self.run.plan.committed(state, self._own, self._summed)
        self._own = self._summed = None
        self.run.check(self)
        return events.Committed(float(self.run.now))

    def _save(self, command: events.Save) -> Event | None:
        """In the background, but for the last one of a generation."""
        state = self._at(command.cursor)
        assert self.round is not None
        self._saved_in = (self.round.number, command.cursor.step)
        if not command.last:
            self.uploads.append((self.round.number, command, state))
            return events.Saved(float(self.run.now))
        if self.uploads:
            self._upload()
            return None
        parts = self._gathered("save", command.cursor.step, state)
        if parts is None:
            return None
        self._complete(command, parts)
        return events.Saved(float(self.run.now))

    def _upload(self) -> None:
        number, command, state = self.uploads.pop(0)
        parts = self._values("part", command.cursor.step, number)
        parts[self.rank] = state
        if len(parts) == self.world_size:
            self._complete(command, [parts[rank] for rank in range(self.world_size)])

    def _complete(self, command: events.Save, parts: Sequence[State]) -> None:
        private = tuple(each.private for each in parts)
        written = Checkpoint(command.cursor, parts[0].shared, private, command.best, command.goal)
        self.run.write(written)
        self.mails.append(CheckpointDone(command.cursor.step))

    def _leave(self, cursor: Cursor | None, reason: str) -> None:
        assert cursor is not None
        self._at(cursor)
        if self._gathered("bye", cursor.step, None):
            assert self.round is not None
            self.mails.append(Left(reason, cursor.step, round=self.round.number))
            self.has_left = True

    def _at(self, cursor: Cursor) -> State:
        """The state, which must be that of the last commit before the cursor."""
        assert self.state is not None, f"{self.uuid} has no state"
        assert self.state.cursor == cursor, f"{self.uuid} is asked for {cursor}, and has {self.state.cursor}"
        return self.state

    # The channel

    def _values(self, piece: str, step: int, number: int | None = None) -> dict[int, Any]:
        """By rank, what there is under a round's keys."""
        assert self.round is not None
        number = self.round.number if number is None else number
        return self.run.channel.setdefault((self.generation, number, piece, step), {})

    def _put(self, piece: str, step: int, value: Any) -> None:
        values = self._values(piece, step)
        assert self.rank not in values, f"{self.uuid} writes {piece} of step {step} a second time in a round"
        values[self.rank] = value

    def _gathered(self, piece: str, step: int, value: Any) -> list[Any] | None:
        """Every rank's value, in rank order; None where some are still to come."""
        if not self._is_published:
            self._put(piece, step, value)
            self._is_published = True
            return None
        values = self._values(piece, step)
        return [values[rank] for rank in range(self.world_size)] if len(values) == self.world_size else None


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
        self.rules = Rules(plan.job, 3, plan.exchange_every, plan.has_private)
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
        """A rank's state is that of the run which nothing disturbs."""
        assert process.state is not None
        self.commits += 1
        expected = self.courses[process.world_size][process.state.cursor.step][process.rank]
        assert process.state == expected, f"{process.uuid} has {process.state}, not {expected}"

    def write(self, checkpoint: Checkpoint) -> None:
        """A manifest; who writes it again writes the same."""
        step = checkpoint.cursor.step
        before = self.checkpoints.setdefault(step, checkpoint)
        if len(before.private) == len(checkpoint.private):
            assert before == checkpoint

    def _check_what_came_out(self) -> None:
        course = ModelRanks(
            self.plan.job, self.plan.examples, metrics=self.plan.metrics, exchange_every=self.plan.exchange_every
        ).run()
        last = course.last.cursor
        assert last is not None
        expected = self.courses[self.members[0].process.world_size][last.step][0]
        assert self.model == (expected, course.last.reason)
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

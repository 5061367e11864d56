"""One incarnation of a rank in memory: a real machine, and a model of the process and of its channel's keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from smlt.core import rank_events as events
from smlt.core.messages import Left, Round
from smlt.core.protocol import RankProtocol
from smlt.core.rank_events import Command, Event, Standing
from smlt.core.sampler import Cursor
from smlt.core.sync.header import Header, merge
from tests.support.model_plan import Checkpoint, Contribution, State, hash_of

if TYPE_CHECKING:
    from tests.support.model_run import ModelRun

NOWHERE = (events.Claim, events.Build, events.AwaitRound, events.Forget)
"""Commands of a rank that is in no round."""

NOTHING = Header(-2)
"""What was said with no commit."""


@dataclass(frozen=True)
class Ready:
    """A process waits for a round after this one."""

    after_round: int


@dataclass(frozen=True)
class CheckpointDone:
    """Rank 0 has seen a checkpoint complete."""

    step: int


Mail = Ready | CheckpointDone | Left


class Process:
    """One incarnation of a rank: does what its machine says, a little at each turn."""

    def __init__(self, run: ModelRun, rank: int, world_size: int) -> None:
        self.run, self.rank, self.world_size, self.generation = run, rank, world_size, run.generation
        self.uuid = f"{rank} of {world_size} in generation {run.generation}, {next(run.numbers)}"
        self.machine = RankProtocol(rank, run.rules)
        self.state: State | None = None
        self.begun = State()
        self.round: Round | None = None
        self.is_alive, self.has_left = True, False
        self.mails: list[Mail] = []
        self.uploads: list[tuple[int, events.Save, State]] = []
        self._asks, self._is_published, self._is_between_states = True, False, False
        self._must_be_at, self._saved_in, self._said = 0, (-1, -1), NOTHING
        self._exchanged: State | None = None
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
        assert not self.run.plan.recovers_fast or self._must_be_at <= 0, f"{self.uuid} goes back, and others need not"
        self._must_be_at = 0
        if self.state is not None:
            self.state = None  # something of the checkpoint is here already
            return None
        self._said = NOTHING
        if not self.round.resume_from:
            self.state = self.begun = self._exchanged = State()
            return events.Restored(Cursor())
        found = self.run.checkpoints[int(self.round.resume_from)]
        private = found.private[self.rank] if self.run.plan.has_private else ""
        self.state = self.begun = self._exchanged = State(found.cursor, found.shared, private)
        self.run.check(self)
        return events.Restored(found.cursor, found.best, found.goal)

    def _fetch(self, cursor: Cursor, donor: int) -> Event | None:
        served = self._values("state", cursor.step).get(donor)
        if not served:  # not there yet, or gone: a value vanishes when it was read so often as was said
            return None
        if not self._is_between_states:
            self._is_between_states = True
            return None
        (state, self._said), self._is_between_states = served.pop(), False
        self.state = self.begun = self._exchanged = self.run.plan.without_private(state)
        self.run.check(self)
        return events.Fetched()

    def _forget(self) -> Event:
        has_state, self._is_between_states = not self._is_between_states, False
        if not has_state:
            self.state = None
        elif self.run.plan.recovers_fast:
            self.state = self._exchanged
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
        digest = int(hash_of(state.shared), 16) if command.take_digest else 0
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
        if self._summed is not None:
            self._exchanged = self.state
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

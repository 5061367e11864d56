"""The model of a launched function: what `smlt.core.function.FunctionWorker` does, done in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from smlt.core import rank_events as events
from smlt.core.errors import ChannelError, ProtocolError, SmltError
from smlt.core.function import BACK_OFF_S, CHANNEL_TRIES, LONGEST_BACK_OFF_S, LOST_PEER_S
from smlt.core.messages import Evaluation, Failure, Left, Ready, Round, StepRecord
from smlt.core.protocol import RankProtocol
from smlt.core.run_events import Address
from smlt.core.sampler import Cursor
from smlt.core.sync.header import Header, merge
from smlt.core.worker import RoundOver, StopNow
from smlt.simulator.channel import Gathering
from smlt.simulator.courier import ModelCourier
from smlt.simulator.store import PATIENCE_S, Kept

if TYPE_CHECKING:
    from smlt.simulator.formation import Formation
    from smlt.simulator.world import World

ROUND_CHANGED = events.RoundChanged()
LOST = -1
"""The PRIVATE state of a rank that has none."""


class Process:
    """One function that runs, with its machine.

    Args:
        world: where.
        machine: of its rank.
        address: which rank it was launched as.
        workers: ranks of its generation.
        uuid: of this process.
        epoch: of the controller that launched it.

    Attributes:
        ticket: what comes for an older one comes too late.
        state: SHARED state, as a chain over the steps it is made of.
        private: steps that its PRIVATE state is made of.
        in_hand: the step that was computed, from which state, and whether all ranks' work is in it; None for none.
        is_waiting: whether it would notice a new round now.
    """

    __slots__ = (
        "address", "backlog", "channel_life", "command", "courier", "epoch", "exited_at_s", "formation", "has_claimed",
        "in_hand", "is_alive", "is_fresh", "is_frozen", "is_hung", "is_unplugged", "is_waiting", "joined", "kill_asked",
        "machine", "needs_round", "phase", "phase_since_s", "piece", "private", "rank", "reported", "round", "skew_s",
        "slowness", "started_at_s", "state", "step", "step_began_s", "ticket", "troubles", "uuid", "workers", "world",
    )  # fmt: skip

    def __init__(
        self, world: World, machine: RankProtocol, address: Address, workers: int, uuid: str, epoch: int
    ) -> None:
        now = world.timeline.now
        self.world, self.machine, self.address, self.rank = world, machine, address, address.rank
        self.workers, self.uuid, self.epoch = workers, uuid, epoch
        self.courier = ModelCourier(self, epoch, now)
        self.is_alive, self.is_frozen, self.is_hung, self.is_unplugged = True, False, False, False
        self.kill_asked = self.has_claimed = self.needs_round = self.is_waiting = False
        self.is_fresh = True
        self.ticket = self.step = self.troubles = self.reported = 0
        self.backlog: list[tuple[Any, ...]] = []
        self.slowness, self.skew_s = 1.0, 0.0
        self.phase, self.phase_since_s = "starting", now
        self.piece = ""
        self.started_at_s = self.step_began_s = now
        self.exited_at_s = -1.0
        self.round: Round | None = None
        self.joined: tuple[int, int] | None = None
        self.channel_life = -1
        self.state, self.private = LOST, LOST
        self.in_hand: tuple[int, int, bool] | None = None
        self.command: events.Command = events.Claim()
        self.formation: Formation | None = None

    # What drives it

    def begin(self, ticket: int) -> None:
        """The process has started."""
        self.advance(events.Begun())

    def resume(self, ticket: int, receive: Callable[..., None], *args: Any) -> None:
        """Something that this process waited for has come."""
        if ticket != self.ticket or not self.is_alive:
            return
        if self.is_frozen:
            self.backlog.append((ticket, receive, *args))
        elif not self.is_hung:
            receive(ticket, *args)

    def advance(self, event: events.Event) -> None:
        """What was waited for has happened."""
        self.ticket += 1
        self.is_waiting = False
        try:
            command = self.machine.next(event)
        except ProtocolError as error:
            self._fail(error)
            return
        self.go_on(command)

    def go_on(self, command: events.Command) -> None:
        """The step loop, as `smlt.core.worker.drive`, until something must be waited for."""
        while True:
            self.command = command
            if self.world.trace is not None:
                self.world.trace.ranked(self.uuid, command)
            try:
                event = _PERFORM[type(command)](self, command)
                if event is None:
                    return
                command = self.machine.next(event)
            except RoundOver:
                self.advance(ROUND_CHANGED)
                return
            except StopNow as stop:
                self.finish(left=Left(stop.reason))
                return
            except SmltError as error:
                self._fail(error)
                return

    def attempt(self, do: Callable[..., None], *args: Any) -> None:
        """Something from within a command that the round or the controller may cut short."""
        try:
            do(*args)
        except RoundOver:
            self.advance(ROUND_CHANGED)
        except StopNow as stop:
            self.finish(left=Left(stop.reason))
        except SmltError as error:
            self._fail(error)

    def _fail(self, error: SmltError) -> None:
        self.world.invariants.failed(self, error)
        self.finish(failure=Failure(type(error).__name__, error.message, error.hint, ""))

    def heed(self) -> None:
        """Control has changed, or nobody is there: who waits notices at once."""
        if self.formation is not None:
            self.formation.explode()
        if self.is_waiting and not (self.is_frozen or self.is_hung):
            self.attempt(self._notice)

    def _notice(self) -> None:
        if type(self.command) is not events.AwaitRound:
            self._be_patient()
            return
        opened = self._wait_for_round()
        if opened:
            self.advance(opened)

    def finish(self, *, left: Left | None = None, failure: Failure | None = None) -> None:
        """Say the last word, if this process may, and return normally."""
        self.ticket += 1
        self.is_waiting = False
        self._say_last(self.ticket, left, failure)

    def _say_last(self, ticket: int, left: Left | None, failure: Failure | None) -> None:
        busy_s = self.courier.busy_until_s - self.world.timeline.now
        if busy_s > 0:
            self.later(busy_s, self._say_last, left, failure)
            return
        if self.has_claimed:
            self.courier.finish(failure, left)
        self.exit("")

    def exit(self, detail: str, *, lost: bool = False) -> None:
        """The process is over."""
        if self.is_alive:
            if self.formation is not None:
                self.formation.explode()
            self.is_alive = False
            self.world.platform.ended(self, detail, lost=lost)

    def later(self, seconds: float, receive: Callable[..., None], *args: Any) -> None:
        """Go on in so many seconds."""
        self.world.timeline.after(seconds, self.resume, self.ticket, receive, *args)

    @property
    def is_well(self) -> bool:
        """Whether nothing distinguishes it from the others of its round."""
        return (
            self.is_alive
            and not (self.is_frozen or self.is_hung or self.is_unplugged)
            and self.slowness == 1.0
            and self.formation is None
        )

    def doing(self, phase: str) -> None:
        """Say what the process does now."""
        if phase != self.phase:
            self.phase, self.phase_since_s = phase, self.world.timeline.now

    def awaits(self) -> int:
        """The rank it waits for, -1 for none."""
        if not self.piece or self.joined is None or not self.is_waiting:
            return -1
        return self.world.channel.missing(self.joined, self.step, self.piece)

    def draw(self, seconds: float) -> float:
        """How long something takes this time."""
        return self.world.draw(seconds) * self.slowness

    def reached(self, point: str) -> bool:
        """Whether this process is over now that it has come to a named point; who freezes or hangs does so there."""
        world = self.world
        if world.traps and world.spring(self, point):
            return not self.is_alive
        return False

    # Obeying, as FunctionWorker does

    def _newer_round(self) -> Round | None:
        opened, own = self.courier.control.round, self.address.generation
        number = -1 if self.round is None else self.round.number
        if opened is None or (opened.generation, opened.number) <= (own, number):
            return None
        if opened.generation == own and self.uuid == opened.members[self.rank]:
            return opened
        if opened.generation == own and self.round is None:
            return None
        raise StopNow("superseded")

    def obey(self) -> None:
        """Leave where the controller says so; raise RoundOver where a newer round is open."""
        control = self.courier.control
        if control.epoch > self.epoch:
            raise StopNow("superseded")
        if control.stop_now or control.closed:
            raise StopNow("stopped")
        if control.round is not self.round and self._newer_round() and self.joined is not None:
            raise RoundOver

    def _be_patient(self) -> None:
        self.obey()
        if self.courier.orphaned_for_s > LOST_PEER_S:
            raise StopNow("stopped")

    def _wait_for_round(self) -> events.RoundOpened | None:
        self.obey()
        if self.courier.orphaned_for_s > 0:
            raise StopNow("stopped")
        opened = self._newer_round()
        if opened is None:
            return None
        self.round, self.needs_round = opened, False
        return events.RoundOpened()

    # Channel

    def _give(self, step: int, piece: str, value: Any, receive: Callable[..., None]) -> None:
        """Publish a value and wait for those of all."""
        if self.is_broken():
            self.trouble()
        self.is_waiting, self.piece = True, piece
        self.doing(f"waiting for {piece}")
        self._be_patient()
        if self.joined is not None:  # always: only who is in a round gives
            self.world.channel.give(self, self.joined, step, piece, value, receive)

    def is_broken(self) -> bool:
        """Whether the channel does not answer this process any more."""
        return self.workers > 1 and (self.is_unplugged or self.channel_life != self.world.channel.life)

    def trouble(self) -> None:
        """The channel fails: another round is needed, unless that has been tried often enough.

        Raises:
            RoundOver, ChannelError: the one or the other.
        """
        self.troubles += 1
        self.is_unplugged = False
        if self.joined is None or self.troubles > CHANNEL_TRIES:
            raise ChannelError("the channel fails again and again")
        self.needs_round = True
        raise RoundOver

    def broken(self, ticket: int) -> None:
        """The channel has failed while this process waited."""
        self.attempt(self.trouble)

    # Commands

    def _claim(self, command: events.Claim) -> None:
        if not self.reached("claim"):
            self._request(self.world.store.request_s(), self._claimed)

    def _claimed(self, ticket: int) -> None:
        won = self.world.store.claim(self.address, self.uuid)
        self.has_claimed = won
        if won:
            self.world.listen(self)
        self.advance(events.Claimed(won))

    def _build(self, command: events.Build) -> None:
        self.doing("building")
        if not self.reached("build"):
            self.later(self.draw(self.world.timing.build_s), self._built)

    def _built(self, ticket: int) -> None:
        self.advance(events.Built(self.world.schedule))

    def _await_round(self, command: events.AwaitRound) -> events.Event | None:
        self.doing("ready")
        if self.reached("ready"):
            return None
        if self.round is None or self.needs_round:
            if self.troubles:
                self.later(min(BACK_OFF_S * 2**self.troubles, LONGEST_BACK_OFF_S), self._ask_again)
                return None
            self._say_ready()
        self.is_waiting = True
        return self._wait_for_round()

    def _ask_again(self, ticket: int) -> None:
        self._say_ready()
        self.is_waiting = True
        self.heed()

    def _say_ready(self) -> None:
        world = self.world
        after = -1 if self.round is None else self.round.number
        self.courier.ready = Ready(self.uuid, world.shape, world.schedule.total_steps, after)
        if not world.store.fails_now:
            self.courier.send()

    def _meet(self, command: events.Meet) -> events.Event | None:
        opened = self.round
        assert opened is not None
        self.joined = (opened.generation, opened.number)
        self.world.take_seat(self)
        self.channel_life = self.world.channel.life
        if self.reached("meet"):
            return None
        if self.workers == 1:
            return self._after_meeting([command.standing])
        self._give(0, "hello", command.standing, self._met)
        return None

    def _met(self, ticket: int, gathering: Gathering) -> None:
        self.advance(self._after_meeting(gathering.values))

    def _after_meeting(self, standings: Sequence[events.Standing]) -> events.Met:
        self.world.invariants.met(self, standings)
        return events.Met(standings)

    def _restore(self, command: events.Restore) -> None:
        self.doing("loading")
        if self.reached("restore"):
            return
        seconds = 0.0 if self.is_fresh else self.draw(self.world.timing.build_s)
        self.in_hand = None
        self.is_fresh = True
        if self.round and self.round.resume_from:
            seconds += self.world.store.request_s() + self.draw(self.world.timing.load_s)
        self.later(seconds, self._restored)

    def _restored(self, ticket: int) -> None:
        world = self.world
        key = self.round.resume_from if self.round else ""
        if not key:
            self.state, self.private, self.step = world.expected[0], 0, 0
            self.advance(events.Restored(Cursor()))
            return
        kept = world.store.checkpoints.get(int(key))
        if kept is None:
            world.invariants.lost_checkpoint(self, key)
            self.finish(failure=Failure("StorageError", f"there is no checkpoint {key}", "", ""))
            return
        self.is_fresh = False
        self.state, self.private, self.step = kept.state, kept.cursor.step, kept.cursor.step
        self.advance(events.Restored(kept.cursor, kept.best, kept.goal))

    def _fetch(self, command: events.Fetch) -> None:
        self.doing("loading")
        self.step = command.cursor.step
        if self.reached("fetch"):
            return
        if self.is_broken():
            self.trouble()
        self.is_waiting, self.piece = True, ""
        self._be_patient()
        if self.joined:
            self.world.channel.fetch(self, self.joined, command.donor, command.cursor.step, self._fetched)

    def _fetched(self, ticket: int, state: int) -> None:
        self.is_waiting = False
        self.later(self.draw(self.world.timing.load_s), self._loaded, state)

    def _loaded(self, ticket: int, state: int) -> None:
        self.is_fresh = False
        self.state, self.private = state, LOST
        self.in_hand = None
        self.advance(events.Fetched())

    def _serve(self, command: events.Serve) -> None:
        self.doing("serving")
        if not self.reached("serve"):
            self.later(self.draw(self.world.timing.load_s), self._served, command)

    def _served(self, ticket: int, command: events.Serve) -> None:
        if self.is_broken():
            self.broken(ticket)
            return
        if self.joined:
            self.world.channel.serve(self.joined, self.rank, command.cursor.step, self.state)
        self.advance(events.Served())

    def _stay(self, command: events.Stay) -> events.Event:
        return events.Stayed()

    def _forget(self, command: events.Forget) -> events.Event:
        self.in_hand = None
        self.joined = None
        return events.Forgotten()

    def _compute(self, command: events.Compute) -> None:
        self.obey()
        self.begin_step(command.cursor.step)
        if not self.reached("compute"):
            self.later(self.draw(self.world.timing.step_s), self.on_computed)

    def begin_step(self, step: int) -> None:
        """A step is computed from now on."""
        self.step, self.phase = step, "computing"
        self.phase_since_s = self.step_began_s = self.world.timeline.now

    def on_computed(self, ticket: int) -> None:
        """Forward and backward are done."""
        self.advance(self.computed())

    def computed(self) -> events.Computed:
        """The step is in hand, from the state that was there before it."""
        courier = self.courier
        if self.in_hand is not None:  # a sum over two steps is nobody's gradient
            self.in_hand = (self.step, hash((self.in_hand, self.state)), False)
        else:
            self.in_hand = (self.step, self.state, False)
        wished = bool(courier.control.wish) or courier.orphaned_for_s > 0
        now = self.world.timeline.now + self.skew_s
        return events.Computed(1.0, 1.0, 0, now, wished, self.world.scenario.save_interval_s)

    def _exchange(self, command: events.Exchange) -> events.Event | None:
        if self.workers == 1:
            self.sum_up()
            return events.Exchanged(merge([command.header]))
        self._give(command.header.step, "sums", (command.header, self.in_hand), self._summed)
        self.reached("contributed")
        return None

    def _summed(self, ticket: int, gathering: Gathering) -> None:
        """All contributions are there: reduce this rank's piece, and publish it."""
        self.is_waiting = False
        if gathering.result is None:
            self.world.invariants.contributed(self, [value[1] for value in gathering.values])
            gathering.result = merge([value[0] for value in gathering.values])
        self.later(self.draw(self.world.timing.exchange_s), self._reduced, gathering.result)

    def _reduced(self, ticket: int, merged: Header) -> None:
        self.attempt(self._give, merged.step, "reduced", merged, self._exchanged)
        self.reached("reduced")

    def _exchanged(self, ticket: int, gathering: Gathering) -> None:
        self.troubles = 0
        self.sum_up()
        self.advance(events.Exchanged(gathering.values[self.rank]))

    def sum_up(self) -> None:
        """What is in hand is now the work of all ranks."""
        if self.in_hand is not None:
            self.in_hand = (*self.in_hand[:2], True)

    def _commit(self, command: events.Commit) -> events.Event | None:
        if self.reached("commit"):
            return None
        return self.commit(command)

    def commit(self, command: events.Commit) -> events.Committed:
        """Apply the step."""
        world, cursor = self.world, command.cursor
        now = world.timeline.now
        world.invariants.committing(self, command)
        self.is_fresh = False
        self.state = world.chain(self.state, cursor)
        self.private = self.private + 1 if self.private != LOST else LOST
        self.in_hand = None
        self.step = cursor.step + 1
        seconds = now - self.step_began_s
        record = StepRecord(cursor.step, cursor.epoch, 1.0, 1, seconds, seconds, 0.0, 0.0, now)
        self.courier.steps.append(record)
        return events.Committed(now + self.skew_s)

    def _evaluate(self, command: events.Evaluate) -> None:
        self.doing("evaluating")
        if not self.reached("evaluate"):
            self.later(self.draw(self.world.timing.evaluate_s), self._gather_evaluation, command.cursor)

    def _gather_evaluation(self, ticket: int, cursor: Cursor) -> None:
        self._gather(cursor, "eval", self._evaluated)

    def _evaluated(self, ticket: int, _: Gathering | None) -> None:
        metrics = self.world.metrics(self.step)
        if self.rank == 0:
            self.courier.evaluations.append(Evaluation(self.step, 0, metrics, self.world.timing.evaluate_s))
        self.advance(events.Evaluated(metrics))

    def _keep_best(self, command: events.KeepBest) -> events.Event:
        return events.BestKept()

    def _save(self, command: events.Save) -> None:
        self.doing("saving")
        if not self.reached("save"):
            seconds = self.draw(self.world.timing.save_s / self.workers) + self.world.store.request_s()
            self._request(seconds, self._part_written, command)

    def _part_written(self, ticket: int, command: events.Save) -> None:
        self._gather(command.cursor, "save", self._parts_written)

    def _parts_written(self, ticket: int, _: Gathering | None) -> None:
        self.doing("saving")
        self.is_waiting = False
        if not self.reached("manifest"):
            self._request(self.world.store.request_s(), self._manifest_written)

    def _manifest_written(self, ticket: int) -> None:
        command, world = self.command, self.world
        assert isinstance(command, events.Save)
        kept = Kept(command.cursor, self.state, command.best, command.goal)
        world.invariants.saved(self, kept, world.store.keep(kept))
        if self.rank == 0:
            world.store.prune(command.cursor.step)
            self.courier.checkpoints.append((command.cursor.step, world.timing.save_s))
        self.advance(events.Saved(world.timeline.now + self.skew_s))

    def _request(self, seconds: float, receive: Callable[..., None], *args: Any) -> None:
        """Do something in the store; who waits in vain for too long fails."""
        if seconds > PATIENCE_S:
            self.later(PATIENCE_S, self._denied)
        else:
            self.later(seconds, receive, *args)

    def _denied(self, ticket: int) -> None:
        self.finish(failure=Failure("StorageError", "the store does not answer", "", ""))

    def _gather(self, cursor: Cursor, piece: str, receive: Callable[..., None]) -> None:
        """A value of each rank, from within something that takes time."""
        if self.workers == 1:
            receive(self.ticket, None)
            return
        self.attempt(self._give, cursor.step, piece, True, receive)

    def _export(self, command: events.Export) -> events.Event | None:
        if self.reached("export"):
            return None
        if self.rank == 0:
            self.world.invariants.exported_by(self)
        return events.Exported()

    def _leave(self, command: events.Leave) -> None:
        if command.cursor is None:
            self.finish()
            return
        self.doing("leaving")
        if not self.reached("leave"):
            self._gather(command.cursor, "bye", self._parted)

    def _parted(self, ticket: int, _: Gathering | None) -> None:
        command = self.command
        assert isinstance(command, events.Leave)
        if not self.reached("parted"):
            self.finish(left=Left(command.reason, self.step))


_PERFORM: dict[type[events.Command], Callable[[Any, Any], events.Event | None]] = {
    events.Claim: Process._claim,
    events.Build: Process._build,
    events.AwaitRound: Process._await_round,
    events.Meet: Process._meet,
    events.Restore: Process._restore,
    events.Fetch: Process._fetch,
    events.Serve: Process._serve,
    events.Stay: Process._stay,
    events.Forget: Process._forget,
    events.Compute: Process._compute,
    events.Exchange: Process._exchange,
    events.Commit: Process._commit,
    events.Evaluate: Process._evaluate,
    events.KeepBest: Process._keep_best,
    events.Save: Process._save,
    events.Export: Process._export,
    events.Leave: Process._leave,
}

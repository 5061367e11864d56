"""The model of a launched function: what `smlt.core.function.FunctionWorker` does, done in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from smlt.core import rank_events as events
from smlt.core.endings import OUT_OF_MEMORY
from smlt.core.errors import ChannelError, ProtocolError, SmltError
from smlt.core.function import CHANNEL_TRIES, LOST_PEER_S
from smlt.core.messages import Control, Failure, Left, Round
from smlt.core.protocol import RankProtocol
from smlt.core.run_events import Launch
from smlt.core.worker import RoundOver, StopNow
from smlt.simulator.courier import ModelCourier
from smlt.simulator.hands import HANDS, LOST, saved
from smlt.simulator.saver import ModelSaver

if TYPE_CHECKING:
    from smlt.simulator.formation import Formation
    from smlt.simulator.world import World

ROUND_CHANGED = events.RoundChanged()


class Process:
    """One function that runs, with its machine.

    Args:
        world: where.
        machine: of its rank.
        launch: which rank it was launched as, of how many, and with how much memory.
        uuid: of this process.
        epoch: of the controller that launched it.

    Attributes:
        ticket: what comes for an older one comes too late.
        state: SHARED state, as a chain over the steps it is made of.
        private: steps that its PRIVATE state is made of.
        exchanged: `state`, `private` and `step` after the last step that ended in an exchange.
        in_hand: the step that was computed, from which state, and whether all ranks' work is in it; None for none.
        is_waiting: whether it would notice a new round now.
        backlog, asleep: what came while it was frozen, for its training and beside that.
    """

    __slots__ = (
        "address", "asleep", "backlog", "channel_life", "command", "courier", "epoch", "exchanged", "formation",
        "has_claimed", "in_hand", "is_alive", "is_between_states", "is_fresh", "is_frozen", "is_hung", "is_unplugged",
        "is_waiting", "joined", "kill_asked", "machine", "memory_mib", "needs_round", "phase", "phase_since_s", "piece",
        "private", "rank", "reported", "round", "saver", "skew_s", "slowness", "state", "step", "step_began_s",
        "ticket", "troubles", "uuid", "workers", "world",
    )  # fmt: skip

    def __init__(self, world: World, machine: RankProtocol, launch: Launch, uuid: str, epoch: int) -> None:
        now = world.timeline.now
        self.world, self.machine, self.address, self.rank = world, machine, launch.address, launch.address.rank
        self.workers, self.memory_mib, self.uuid, self.epoch = launch.workers, launch.memory_mib, uuid, epoch
        self.courier = ModelCourier(self, epoch, now)
        self.is_alive, self.is_frozen, self.is_hung, self.is_unplugged = True, False, False, False
        self.kill_asked = self.has_claimed = self.needs_round = self.is_waiting = False
        self.is_fresh = True
        self.ticket = self.step = self.troubles = self.reported = 0
        self.backlog: list[tuple[Any, ...]] = []
        self.asleep: list[tuple[Any, ...]] = []
        self.saver = ModelSaver(self)
        self.is_between_states = False
        self.slowness, self.skew_s = 1.0, 0.0
        self.phase, self.phase_since_s = "starting", now
        self.piece = ""
        self.step_began_s = now
        self.round: Round | None = None
        self.joined: tuple[int, int] | None = None
        self.channel_life = -1
        self.state, self.private = LOST, LOST
        self.exchanged = LOST, LOST, 0
        self.in_hand: tuple[int, int, bool] | None = None
        self.command: events.Command = events.Claim()
        self.formation: Formation | None = None

    # What drives it

    def begin(self) -> None:
        """The process has started."""
        self.advance(events.Begun())

    def resume(self, ticket: int, receive: Callable[..., None], *args: Any) -> None:
        """Something that this process waited for has come."""
        if ticket != self.ticket or not self.is_alive:
            return
        if self.is_frozen:
            self.backlog.append((ticket, receive, *args))
        elif not self.is_hung:
            receive(self, *args)

    def advance(self, event: events.Event) -> None:
        """What was waited for has happened."""
        self.ticket += 1
        self.is_waiting = False
        try:
            command = self.machine.next(event)
        except ProtocolError as error:
            self.fail(error)
            return
        self.go_on(command)

    def go_on(self, command: events.Command) -> None:
        """The step loop, as `smlt.core.worker.drive`, until something must be waited for."""
        while True:
            self.command = command
            if self.world.trace is not None:
                self.world.trace.ranked(self.uuid, command)
            try:
                event = HANDS[type(command)](self, command)
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
                self.fail(error)
                return

    def attempt(self, do: Callable[..., None], *args: Any) -> None:
        """Something from within a command that the round or the controller may cut short."""
        try:
            do(self, *args)
        except RoundOver:
            self.advance(ROUND_CHANGED)
        except StopNow as stop:
            self.finish(left=Left(stop.reason))
        except SmltError as error:
            self.fail(error)

    def saved(self) -> None:
        """A checkpoint of this process's is over."""
        if not self.is_hung:
            saved(self)

    def begin_step(self, step: int) -> None:
        """A step is computed from now on."""
        self.step, self.phase = step, "computing"
        self.phase_since_s = self.step_began_s = self.world.timeline.now

    def fail(self, error: SmltError) -> None:
        """Say what went wrong, and leave."""
        self.world.invariants.failed(self, error)
        self.finish(failure=Failure(type(error).__name__, error.message, error.hint, ""))

    def heed(self) -> None:
        """Control has changed, or nobody is there: who waits notices at once."""
        if self.formation is not None:
            self.formation.explode()
        if self.is_waiting and not (self.is_frozen or self.is_hung):
            self.attempt(Process._notice)

    def _notice(self) -> None:
        if type(self.command) is not events.AwaitRound:
            self.be_patient()
            return
        opened = self.wait_for_round()
        if opened:
            self.advance(opened)

    def finish(self, *, left: Left | None = None, failure: Failure | None = None) -> None:
        """Say the last word, if this process may, and return normally."""
        self.ticket += 1
        self.is_waiting = False
        self._say_last(left, failure)

    def _say_last(self, left: Left | None, failure: Failure | None) -> None:
        busy_s = self.courier.busy_until_s - self.world.timeline.now
        if busy_s > 0:
            self.later(busy_s, Process._say_last, left, failure)
            return
        if self.has_claimed:
            self.courier.finish(failure, left)
        self.exit("")

    def run_out_of_memory(self) -> None:
        """Its memory does not suffice: it says so, or the platform does."""
        if self.world.rng.random() < 0.5:
            self.finish(failure=Failure(OUT_OF_MEMORY, "an allocation failed", "", ""))
        else:
            self.exit("it needed more memory", lost=True, out_of_memory=True)

    def exit(self, detail: str, *, lost: bool = False, out_of_memory: bool = False) -> None:
        """The process is over."""
        if self.is_alive:
            if self.formation is not None:
                self.formation.explode()
            self.is_alive = False
            self.world.platform.ended(self, detail, lost=lost, out_of_memory=out_of_memory)

    def later(self, seconds: float, receive: Callable[..., None], *args: Any) -> None:
        """Go on in so many seconds."""
        self.world.timeline.after(seconds, self.resume, self.ticket, receive, *args)

    @property
    def size(self) -> float:
        """How much it costs, as a multiple of a function of the first size."""
        return self.memory_mib / self.world.terms.memory_mib

    @property
    def is_short_of_memory(self) -> bool:
        """Whether it needs more memory than it has."""
        return self.memory_mib < self.world.memory_needed_mib(self)

    @property
    def has_state(self) -> bool:
        """Whether it has SHARED state that steps have made."""
        return self.state != LOST

    @property
    def is_well(self) -> bool:
        """Whether nothing distinguishes it from the others of its round."""
        return (
            self.is_alive
            and not (self.is_frozen or self.is_hung or self.is_unplugged)
            and self.slowness == 1.0
            and self.formation is None
        )

    def aside(self, seconds: float, receive: Callable[..., None], *args: Any) -> None:
        """Do something in so many seconds, beside the training."""
        self.world.timeline.after(seconds, self._resume_aside, receive, *args)

    def _resume_aside(self, receive: Callable[..., None], *args: Any) -> None:
        if not self.is_alive:
            return
        if self.is_frozen:
            self.asleep.append((receive, *args))
        else:
            receive(self, *args)

    def wake(self) -> None:
        """Go on where it stood: nothing was noticed of the time between."""
        self.is_frozen = False
        asleep, self.asleep = self.asleep, []
        for receive, *args in asleep:
            self._resume_aside(receive, *args)
        backlog, self.backlog = self.backlog, []
        for ticket, receive, *args in backlog:
            self.resume(ticket, receive, *args)
        self.heed()

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

    def _is_member(self, opened: Round | None) -> bool:
        if opened is None or opened.generation != self.address.generation:
            return False
        return opened.members[self.rank : self.rank + 1] == (self.uuid,)

    def _newer_round(self) -> Round | None:
        opened, own = self.courier.control.round, self.address.generation
        number = -1 if self.round is None else self.round.number
        if opened is None or (opened.generation, opened.number) <= (own, number):
            return None
        if self._is_member(opened):
            return opened
        if opened.generation == own and self.round is None:
            return None
        raise StopNow("superseded")

    def is_superseded_by(self, control: Control) -> bool:
        """Whether its controller is another one, and does not go on with this process."""
        return control.epoch > self.epoch and not self._is_member(control.round)

    def obey(self) -> None:
        """Leave where the controller says so; raise RoundOver where a newer round is open."""
        control = self.courier.control
        if self.is_superseded_by(control):
            raise StopNow("superseded")
        if control.stop_now or control.closed:
            raise StopNow("stopped")
        if control.round is not self.round and self._newer_round() and self.joined is not None:
            raise RoundOver

    def be_patient(self) -> None:
        """While a peer is waited for: obey; without a controller, do not wait for ever."""
        self.obey()
        if self.courier.orphaned_for_s > LOST_PEER_S:
            raise StopNow("stopped")

    def wait_for_round(self) -> events.RoundOpened | None:
        """The round that this process waits for, if it is open."""
        self.obey()
        if self.courier.orphaned_for_s > 0:
            raise StopNow("stopped")
        opened = self._newer_round()
        if opened is None:
            return None
        self.round, self.needs_round = opened, False
        return events.RoundOpened()

    # Channel

    def give(self, step: int, piece: str, value: Any, receive: Callable[..., None], *args: Any) -> None:
        """Publish a value and wait for those of all."""
        if self.is_broken():
            self.trouble()
        self.is_waiting, self.piece = True, piece
        self.doing(f"waiting for {piece}")
        self.be_patient()
        if self.joined is not None:  # always: only who is in a round gives
            self.world.channel.give(self, self.joined, step, piece, value, receive, *args)

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

    def broken(self) -> None:
        """The channel has failed while this process waited."""
        self.attempt(Process.trouble)

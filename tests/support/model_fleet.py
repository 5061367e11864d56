"""A model of everything that a controller commands: functions that do what they may do at any time, checked as they go.

What is checked with every command: intent is on record before a launch; there is one function of a rank at a time, and
never more in all than allowed; rounds have fresh numbers and the newest functions as members; who is over, or was ended
before, is not ended again; what is launched can be paid for; and nothing comes after the end.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from smlt.core.messages import CheckpointDone, Failure, Left, Ready, StepRecord
from smlt.core.run_events import (
    Address,
    Beat,
    CancelRequested,
    Checkpointed,
    Command,
    Event,
    FindState,
    Finish,
    Kill,
    KillWorkers,
    Launch,
    LaunchFailed,
    OpenRound,
    Record,
    ScaleRequested,
    StateFound,
    StepsDone,
    StopWorkers,
    Wish,
    WorkerExited,
    WorkerFailed,
    WorkerLeft,
    WorkerReady,
)
from tests.support.events import SHAPE, Desk, uuid_of

FAILURES = ("ChannelError", "CorruptObject", *["PeerLost"] * 9, "TaskError")


@dataclass
class Function:
    """A function that was launched."""

    address: Address
    is_ready: bool = False
    round: int = -1
    step: int = 0
    told: int = 0
    end: Left | None = None
    has_left: bool = False
    is_frozen: bool = False
    is_doomed: bool = False


@dataclass
class Round:
    """A round that was opened: `step` is None until all have met."""

    members: dict[str, int]
    saved: int
    met: set[str] = field(default_factory=set)
    step: int | None = None
    end: Left | None = None


class ModelFleet:
    """The functions of a run, and the controller that drives it.

    Args:
        workers: of the first generation.
        terms: what differs from the usual.
    """

    def __init__(self, workers: int, **terms: float) -> None:
        self.desk = Desk(workers=workers, **terms)
        self.functions: dict[Address, Function] = {}
        self.rounds: dict[tuple[int, int], Round] = {}
        self.finish: Finish | None = None
        self.saved = self.usd = 0.0
        self._recorded: set[Address] = set()
        self._newest: dict[tuple[int, int], Address] = {}
        self._killed: set[Address] = set()
        self._refused: set[Address] = set()
        self._stops = False
        self._refusals = 0
        self._wished_in = -1
        self.desk.worker_usd = 0.1
        self.desk.start()
        self._observe(self.desk.said)

    # What is commanded

    def tell(self, event: Event) -> None:
        said = len(self.desk.said)
        self.desk.tell(event)
        self._observe(self.desk.said[said:])

    def _observe(self, commands: list[Command]) -> None:
        for command in commands:
            assert self.finish is None, f"{command} after the end"
            match command:
                case Record(kind="launched", data=data):
                    self._recorded.add(Address(data["generation"], data["rank"], data["incarnation"]))
                    self.usd += self.desk.worker_usd
                    budget_usd = self.desk.terms.budget_usd
                    assert budget_usd is None or self.usd <= budget_usd, "launched beyond the budget"
                case Launch():
                    self._on_launch(command)
                case OpenRound(round=opened):
                    self._on_round(opened.generation, opened.number, opened.members, opened.resume_from)
                case Wish():
                    self._wished_in = self.desk.generation
                case StopWorkers():
                    self._stops = True
                case Kill(address=address):
                    assert address not in self._killed, f"{address} is ended again"
                    self._killed.add(address)
                    if address not in self._refused:  # it cannot know that yet
                        assert address in self.functions, f"{address} is ended, which is over"
                        self.functions[address].is_doomed = True
                case KillWorkers():
                    for function in self.functions.values():
                        function.is_doomed = True
                case Finish():
                    self.finish = command
        if any(isinstance(command, FindState) for command in commands) and not self.finish:
            self.tell(StateFound(f"checkpoints/{int(self.saved)}/manifest" if self.saved else ""))

    def _on_launch(self, launch: Launch) -> None:
        address = launch.address
        assert address in self._recorded, f"{address} was launched before that was on record"
        assert address not in self.functions, f"{address} was launched twice"
        rivals = [
            other for other in self._working if (other.generation, other.rank) == (address.generation, address.rank)
        ]
        assert rivals == [], f"{address} was launched beside {rivals}"
        self._newest[address.generation, address.rank] = address
        if self._refusals:
            self._refusals -= 1
            self._refused.add(address)
            return
        self.functions[address] = Function(address)
        there = [each for each in self.functions if each not in self._killed]
        assert len(there) <= self.desk.terms.max_workers, "more functions than allowed"

    @property
    def _working(self) -> list[Address]:
        return [
            address
            for address, function in self.functions.items()
            if not function.has_left and function.end is None and address not in self._killed
        ]

    def _on_round(self, generation: int, number: int, uuids: tuple[str, ...], resume_from: str) -> None:
        assert (generation, number) not in self.rounds, "a round's number was used before"
        assert all(key < (generation, number) for key in self.rounds), "a round came before an earlier one"
        newest = {rank: address for (of, rank), address in self._newest.items() if of == generation}
        assert list(uuids) == [uuid_of(newest[rank]) for rank in sorted(newest)], "a round has other members"
        saved = int(resume_from.split("/")[1]) if resume_from else 0
        self.rounds[generation, number] = Round({uuid: rank for rank, uuid in enumerate(uuids)}, saved)

    # What functions do

    def act(self, what: str, pick: int) -> None:
        """One happening; nothing where it cannot happen now."""
        if self.finish:
            return
        if hasattr(self, f"_run_{what}"):
            getattr(self, f"_run_{what}")(pick)
            return
        living = [
            function for function in self.functions.values() if what in ("exit", "thaw") or not function.is_frozen
        ]
        if living:
            function = living[pick % len(living)]
            self._join(function)
            getattr(self, f"_do_{what}")(function, pick)

    def _run_cancel(self, pick: int) -> None:
        if pick % 12 == 0:  # or it would be the end of most runs
            self.tell(CancelRequested(self.desk.now))

    def _run_scale(self, pick: int) -> None:
        self.tell(ScaleRequested(self.desk.now, 1 + pick % 5))

    def _run_refuse(self, pick: int) -> None:
        """The next launches are refused."""
        self._refusals += 1 + pick % 3

    def _run_spend(self, pick: int) -> None:
        self.usd += 0.02 * pick
        self._observe_tick()

    def _run_tick(self, pick: int) -> None:
        self.pass_time(0.1 + pick % 3)

    def _run_wait(self, pick: int) -> None:
        """Long enough for a limit; who is not frozen is heard of meanwhile."""
        for _ in range(1 + pick % 8):
            self.pass_time(4.0)

    def _run_blind(self, pick: int) -> None:
        self.desk.now += 10.0 * (1 + pick % 10)
        self._observe_tick(blind=True)

    def pass_time(self, seconds: float) -> None:
        """Those who are not frozen are heard of; those whom the controller has ended are over."""
        self.desk.now += seconds
        for address in self._refused:
            self.tell(LaunchFailed(self.desk.now, address, "quota exceeded"))
        self._refused.clear()
        for function in list(self.functions.values()):
            if function.is_doomed or (self._stops and function.has_left):
                self._do_exit(function, 0)
            elif not function.is_frozen:
                self._join(function)
                self._do_beat(function, 0)
        self._observe_tick()

    def _observe_tick(self, *, blind: bool = False) -> None:
        said = len(self.desk.said)
        self.desk.tick(0.0, self.usd, blind=blind)
        self._observe(self.desk.said[said:])

    def _round_of(self, function: Function) -> Round | None:
        return self.rounds.get((function.address.generation, function.round))

    def _join(self, function: Function) -> None:
        """See a round that was opened, and meet the others."""
        generation, uuid = function.address.generation, uuid_of(function.address)
        if function.has_left or function.end or not function.is_ready:
            return
        numbers = [number for (of, number), each in self.rounds.items() if of == generation and uuid in each.members]
        if not numbers or max(numbers) == function.round:
            return
        function.round = max(numbers)
        opened = self.rounds[generation, function.round]
        opened.met.add(uuid)
        if opened.met == set(opened.members):
            members = [each for each in self.functions.values() if uuid_of(each.address) in opened.members]
            opened.step = max(each.step for each in members) or opened.saved
            for each in members:
                each.step = each.told = opened.step

    def _do_beat(self, function: Function, _: int) -> None:
        opened = self._round_of(function)
        phase = "ready" if function.is_ready else "building"
        if opened:
            is_stuck = opened.step is None or opened.end is not None or not self._is_whole(opened)
            phase = "waiting for all" if is_stuck else "computing"
        self.tell(Beat(self.desk.now, function.address, phase, function.step))

    def _do_ready(self, function: Function, _: int) -> None:
        if not function.is_ready:
            function.is_ready = True
            self.tell(WorkerReady(self.desk.now, function.address, Ready(uuid_of(function.address), SHAPE, 10**6)))

    def _do_trouble(self, function: Function, _: int) -> None:
        """It asks for another round."""
        if function.round >= 0 and not function.has_left:
            ready = Ready(uuid_of(function.address), SHAPE, 10**6, function.round)
            self.tell(WorkerReady(self.desk.now, function.address, ready))

    def _is_whole(self, opened: Round) -> bool:
        """Whether all members are there, and in this round still."""
        present = {
            uuid_of(each.address)
            for each in self.functions.values()
            if self._round_of(each) is opened and not each.is_frozen and not each.has_left
        }
        return opened.step is not None and opened.end is None and present == set(opened.members)

    def _do_step(self, function: Function, pick: int) -> None:
        """All in its round commit steps; this one tells of those that it has not told yet."""
        opened = self._round_of(function)
        if opened is None or opened.step is None or function.has_left:
            return
        if self._is_whole(opened):
            opened.step += 1 + pick % 2
            for each in self.functions.values():
                if self._round_of(each) is opened:
                    each.step = opened.step
        records = [StepRecord(step, 0, 0.5, 8, 0.1, 0, 0, 0) for step in range(function.told, function.step)]
        if records:
            function.told = function.step
            self.tell(StepsDone(function.address, tuple(records)))

    def _do_save(self, function: Function, _: int) -> None:
        opened = self._round_of(function)
        if function.address.rank == 0 and opened and self._is_whole(opened):
            self.saved = max(self.saved, function.step)
            done = CheckpointDone(function.step, 100, 0.1)
            self.tell(Checkpointed(done, f"checkpoints/{function.step}/manifest", function.address))

    def _do_end(self, function: Function, pick: int) -> None:
        """All in its round come to an end that they agree on; it has come so far that it will leave, come what may."""
        opened = self._round_of(function)
        if opened is None or opened.step is None or function.has_left:
            return
        if opened.end is None and self._is_whole(opened):
            reason = "goal" if pick % 4 == 0 else "ended"
            if reason == "ended" and self._wished_in != function.address.generation and pick % 8:
                return
            opened.end = Left(reason, opened.step, round=function.round)
            self.saved = max(self.saved, opened.step)
        if opened.end:
            function.end = opened.end

    def _do_leave(self, function: Function, _: int) -> None:
        if function.end and not function.has_left:
            self._say(function, function.end)

    def _say(self, function: Function, left: Left) -> None:
        function.has_left = True
        self.tell(WorkerLeft(self.desk.now, function.address, left))

    def _do_stop(self, function: Function, pick: int) -> None:
        if not function.has_left and not function.end and (self._stops or pick % 8 == 0):
            self._say(function, Left("stopped", function.step))

    def _do_fail(self, function: Function, pick: int) -> None:
        if not function.has_left:
            function.has_left = True
            failure = Failure(FAILURES[pick % len(FAILURES)], "it broke", "", "")
            self.tell(WorkerFailed(self.desk.now, function.address, failure))

    def _do_exit(self, function: Function, _: int) -> None:
        del self.functions[function.address]
        is_lost = not function.has_left
        self.tell(WorkerExited(self.desk.now, function.address, is_lost, "killed by signal 9" if is_lost else ""))

    def _do_freeze(self, function: Function, _: int) -> None:
        function.is_frozen = True

    def _do_thaw(self, function: Function, _: int) -> None:
        function.is_frozen = False

    # From here on all goes well

    def cooperate(self) -> None:
        """A while in which nothing more goes wrong: who can come to the goal does."""
        self._refusals = 0
        for function in self.functions.values():
            function.is_frozen = False
        for _ in range(200):
            for function in list(self.functions.values()):
                if self.finish:
                    return
                if function.address in self.functions:
                    self._behave(function)
            if not self.finish:
                self.pass_time(1.0)

    def _behave(self, function: Function) -> None:
        if function.has_left:
            self._do_exit(function, 0)
            return
        self._do_ready(function, 0)
        self._join(function)
        self._do_stop(function, 1)
        if not function.has_left:
            self._do_end(function, 0)
            self._do_leave(function, 0)

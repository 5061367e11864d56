"""The run's pure state machine: events in, commands out. No clock, no I/O; the engine and the simulator drive it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from smlt.core.allowance import Allowance
from smlt.core.course import Course
from smlt.core.deployment import Deployment
from smlt.core.endings import AGREED, OUT_OF_MEMORY, PASSING, UNREADABLE, Ending, State, go_on
from smlt.core.fleet import Generation, Member, introduction
from smlt.core.memory_size import MemorySize
from smlt.core.messages import Failure, Left
from smlt.core.run_events import (
    Address,
    Adopted,
    Beat,
    CancelRequested,
    Checkpointed,
    Command,
    EvaluationDone,
    Event,
    FindState,
    Finish,
    Kill,
    LaunchFailed,
    OpenRound,
    PlanChanged,
    Record,
    ScaleRequested,
    Started,
    StateFound,
    StepsDone,
    Terms,
    Tick,
    WorkerExited,
    WorkerFailed,
    WorkerLeft,
    WorkerReady,
)
from smlt.core.stopping import Stopping
from smlt.core.stragglers import replacing_pays
from smlt.core.succession import Succession
from smlt.core.timetable import Due, Timetable
from smlt.core.watch import EVERYBODY, Losses, Watch

QUIET = (Beat, StepsDone, EvaluationDone, Checkpointed)
"""Events that leave the run in the state in which it is."""


@dataclass
class Controller:
    """The machine of one run.

    Args:
        terms: what it holds the run to.
    """

    terms: Terms
    state: State = State.PLANNING
    _fleet: Deployment = field(init=False)
    _stop: Stopping = field(init=False)
    _resume_from: str = ""
    _saved_step: int = -1
    _course: Course = field(default_factory=Course)
    _watch: Watch = field(init=False)
    _allowance: Allowance = field(init=False)
    _timetable: Timetable = field(init=False)
    _succession: Succession = field(init=False)
    _losses: Losses = field(default_factory=Losses)
    _overlaps: bool = True

    def __post_init__(self) -> None:
        self._watch, self._allowance = Watch(self.terms), Allowance(self.terms)
        self._timetable = Timetable(self.terms, self._watch, self._course, self._allowance)
        self._succession = Succession(self.terms, self._watch, self._course, self._timetable)
        self._fleet = Deployment(self.terms, self._allowance)
        self._stop = Stopping(self.terms, self._fleet, self._allowance, self._timetable)

    def handle(self, event: Event) -> list[Command]:
        """What to do now that `event` has happened."""
        if self.state is State.OVER:
            return []
        commands: list[Command] = []
        for command in self._handle(event):
            commands.append(command)
            if isinstance(command, Finish):
                self.state = State.OVER
                return commands
        state = self.state if isinstance(event, QUIET) else self._state_now()
        if state is not self.state:
            self.state = state
            commands.append(Record("state", {"state": state.value}))
        return commands

    def _state_now(self) -> State:
        if self._stop.ending:
            return State.STOPPING
        if not self._fleet.current.is_open:
            return State.STARTING
        if not self._fleet.current.is_leaving and not self._fleet.current.is_ready:
            return State.RECOVERING
        hands_over = self._fleet.next or self._stop.wished or self._fleet.current.heir
        return State.HANDING_OVER if hands_over else State.RUNNING

    def _handle(self, event: Event) -> Iterator[Command]:
        match event:
            case Started():
                yield from self._on_started(event)
            case WorkerReady():
                yield from self._on_ready(event)
            case Beat(address=address):
                member = self._fleet.member(address)
                if member:
                    member.heard_at, member.beat = event.now, event
            case StepsDone():
                yield from self._on_steps(event)
            case EvaluationDone(evaluation=done):
                self._watch.evaluation_took(done.seconds)
                yield Record("evaluated", vars(done))
            case Checkpointed():
                yield from self._on_checkpointed(event)
            case StateFound(manifest=manifest):
                self._resume_from = manifest
            case WorkerLeft():
                yield from self._on_left(event)
            case WorkerFailed():
                yield from self._on_failed(event)
            case WorkerExited():
                yield from self._on_exited(event)
            case LaunchFailed():
                yield from self._on_launch_failed(event)
            case ScaleRequested():
                yield from self._on_scale(event)
            case PlanChanged():
                yield from self._on_plan_changed(event)
            case CancelRequested():
                yield from self._on_cancel(event)
            case Tick():
                yield from self._on_tick(event)

    # Generations

    def _on_started(self, event: Started) -> Iterator[Command]:
        self._course.step = event.step
        self._fleet.newest, self._resume_from = event.first_generation - 1, event.resume_from
        self._allowance.started(event)
        if event.adopted:
            yield from self._adopt(event.now, event.adopted)
        else:
            yield from self._launch_current(event.now)

    def _adopt(self, now: float, adopted: Adopted) -> Iterator[Command]:
        """Go on with the functions that an earlier controller launched, in the round that is open."""
        self._fleet.current, self._stop.wished = Generation.adopted(adopted, now), adopted.wish
        self._fleet.current.memory_mib = self._fleet.memory.mib
        self._allowance.launched(self._fleet.current.workers)
        self._watch.evaluates(adopted.eval_examples)
        self._timetable.total_steps = adopted.total_steps
        about = {
            "generation": self._fleet.current.number,
            "round": adopted.round.number,
            "workers": self._fleet.current.workers,
        }
        yield Record("adopted", {**about, "step": self._course.step})
        yield from (Kill(heir) for heir in adopted.heirs)
        for rank in adopted.lost:
            how = "it was being replaced when its controller was lost"
            yield from self._lose(now, self._fleet.current.members[rank], how)

    def _launch_current(self, now: float) -> Iterator[Command]:
        if not self._allowance.can_pay(self._fleet.workers):
            yield from self._stop.finish("stopped", "budget")
            return
        yield from self._fleet.launch_current(now)

    def _open_round(self, now: float) -> Iterator[Command]:
        current = self._fleet.current
        opened = current.opened(self._resume_from, now)
        about = {"generation": current.number, "round": opened.number, "workers": current.workers}
        yield Record("round_opened", {**about, "step": self._course.step})
        yield OpenRound(opened)

    def _generation_over(self, now: float) -> Iterator[Command]:
        """Every rank of the current generation has left, or is gone after another has left."""
        words = [member.left for member in self._fleet.current.members if member.left]
        first = self._fleet.current.members[0].left
        yield from self._course.caught_up(max((word.step for word in words), default=0))
        if first and first.reason in ("goal", "target"):
            yield from self._stop.finish("succeeded", first.reason, left=first)
        elif self._stop.ending:
            yield from self._stop.finish(self._stop.ending.status, self._stop.ending.reason, left=first)
        else:  # also where rank 0 was lost before it could say what came out: the state is saved, another one will
            yield from self._follow(now)

    def _follow(self, now: float) -> Iterator[Command]:
        """The next generation takes the place of the current one."""
        self._stop.wished, self._overlaps = "", True
        self._succession.begins_anew()
        yield from self._fleet.drop_heir()
        if not self._fleet.take_next(now):
            yield from self._launch_current(now)
        elif self._fleet.current.is_ready:
            yield from self._open_round(now)

    # What workers say

    def _on_ready(self, event: WorkerReady) -> Iterator[Command]:
        member, ready = self._fleet.member(event.address), event.ready
        if member is None or member.is_gone:
            return
        generation, first = self._fleet.generation_of(event.address), member.ready is None
        generation.says_ready(member, ready)
        member.heard_at = event.now
        if first:
            seconds = event.now - member.launched_at
            self._watch.start_took(seconds)
            self._watch.evaluates(ready.shape.eval_examples)
            self._timetable.total_steps = ready.total_steps
            yield Record("ready", {**vars(event.address), **introduction(ready), "seconds": seconds})
        if self._stop.is_at_once:
            return
        if member is generation.heir:
            yield from self._hand_over_rank(event.now)
        elif generation is not self._fleet.current:
            if generation.is_ready and not self._stop.wished:
                yield from self._stop.wish("hand over")
        elif generation.is_leaving:
            yield from self._lose(event.now, member, "it asked for another round although others have left")
        elif generation.is_ready and ready.after_round in (-1, generation.round):
            yield from self._open_round(event.now)

    def _on_steps(self, event: StepsDone) -> Iterator[Command]:
        member = self._fleet.member(event.address)
        if event.address.generation != self._fleet.current.number:
            return
        if member is None:
            yield from self._course.note(event.address, event.steps, is_stale=True)
            return
        if not member.has_stepped:
            member.has_stepped = True
            self._watch.first_step_took(event.steps[0].seconds)
        member.stepped_in = max(member.stepped_in, event.steps[-1].round)
        if event.address.rank == 0:
            self._watch.steps_took(event.steps, self._fleet.current.workers)
        self._fleet.current.stragglers.note(event.address.rank, event.steps)
        yield from self._course.note(event.address, event.steps)

    def _on_checkpointed(self, event: Checkpointed) -> Iterator[Command]:
        done, address = event.done, event.address
        is_old = done.step <= self._saved_step or (address and address.generation != self._fleet.current.number)
        if is_old and address is not None and self._fleet.member(address) is None:
            return  # told late, by one who was thought lost; it may have been cleared away by now
        self._resume_from, self._saved_step = event.manifest, done.step
        self._watch.saving_took(done.seconds)
        about = {"bytes": done.size_bytes, "seconds": done.seconds, "stall_s": done.stall_s}
        yield Record("checkpointed", {"step": done.step, **about})

    def _on_left(self, event: WorkerLeft) -> Iterator[Command]:
        member = self._fleet.member(event.address)
        if member is None:
            return
        generation, left = self._fleet.generation_of(event.address), event.left
        if left.reason not in AGREED and not self._stop.is_at_once:
            yield from self._lose(event.now, member, f"it left: {left.reason}")
            return
        generation.says_left(member, left)
        if left.reason in AGREED:
            if event.manifest and left.step > self._saved_step:  # rank 0 may be lost before it can tell
                self._resume_from, self._saved_step = event.manifest, left.step
            yield from self._on_agreed_end(event.now, generation, left)
        if self._stop.has_failed:
            return  # the functions' exits decide when it is over
        if generation is self._fleet.current and generation.is_over:
            yield from self._generation_over(event.now)

    def _on_agreed_end(self, now: float, generation: Generation, left: Left) -> Iterator[Command]:
        """Those in the same round leave, too; whoever has come since waits for peers that will not come."""
        for member in generation.ends(left, now):
            yield from self._fleet.give_up(generation, member)

    def _on_failed(self, event: WorkerFailed) -> Iterator[Command]:
        member, failure = self._fleet.member(event.address), event.failure
        if member is None or member.is_gone or self._stop.has_failed:
            return
        if failure.kind in UNREADABLE:
            yield FindState()
        if failure.kind == OUT_OF_MEMORY:
            yield from self._on_out_of_memory(event.now, member, failure)
            return
        if failure.kind in PASSING:
            yield from self._lose(event.now, member, f"{failure.message} ({failure.hint})")
            return
        generation = self._fleet.generation_of(event.address)
        if member is generation.heir:
            yield from self._lose(event.now, member, failure.message)
            return
        generation.give_up(member)
        if generation is self._fleet.current:
            yield from self._fail(event.now, event.address.rank, failure.kind, failure)
        else:
            yield from self._do_without_next(failure.message)

    # Losing a rank

    def _on_exited(self, event: WorkerExited) -> Iterator[Command]:
        self._fleet.old.pop(event.address, None)
        member = self._fleet.member(event.address)
        if member is None:
            return
        known = member.is_gone
        self._fleet.generation_of(event.address).give_up(member)
        yield Record("exited", {**vars(event.address), "detail": event.detail})
        if member.left is None and not known and event.out_of_memory:
            yield from self._on_out_of_memory(event.now, member, Failure(OUT_OF_MEMORY, event.detail, "", ""))
        elif member.left is None and not known:
            how = self._timetable.expired(member, event.now) or event.detail or "it returned without a word"
            yield from self._lose(event.now, member, how)
        yield from self._stop.finish_if_all_gone()

    def _on_out_of_memory(self, now: float, member: Member, failure: Failure) -> Iterator[Command]:
        """Its memory did not suffice: it is launched again with more, and so is all that is launched from now on."""
        generation, rank = self._fleet.generation_of(member.address), member.address.rank
        if self._stop.ending is None and member.memory_mib >= self._fleet.memory.mib:
            if self._fleet.memory.grow():
                yield from self._memory_raised(member, failure.message)
            elif generation is self._fleet.current and not generation.is_leaving and member is not generation.heir:
                generation.give_up(member)
                yield from self._fail(
                    now, rank, "out of memory", self._fleet.memory.too_small(rank, member.memory_mib, failure)
                )
                return
        yield from self._lose(
            now, member, f"out of memory: {failure.message}", may_come_again=member.memory_mib >= self._fleet.memory.mib
        )

    def _memory_raised(self, member: Member, how: str) -> Iterator[Command]:
        self._allowance.enlarged()
        self._fleet.current.memory_mib = self._fleet.memory.mib  # rank by rank, where a rank needs it
        about = {"from_mib": member.memory_mib, "memory_mib": self._fleet.memory.mib, "detail": how}
        yield Record("memory_raised", {**vars(member.address), **about})

    def _lose(self, now: float, member: Member, how: str, *, may_come_again: bool = True) -> Iterator[Command]:
        """A rank is lost: replace it, unless its generation is over anyway.

        Args:
            may_come_again: whether its next function is no better off, so that such losses must be counted.
        """
        generation, address = self._fleet.generation_of(member.address), member.address
        yield from self._fleet.give_up(generation, member)
        yield Record("lost", {**vars(address), "step": self._course.step, "detail": how})
        if member is generation.heir:
            generation.heir = None
            self._succession.came_to_nothing(now)
        elif generation.is_leaving:
            if generation.is_over and not self._stop.has_failed:
                yield from self._generation_over(now)
        elif self._stop.ending is None:
            losses = self._losses.count(address.generation, address.rank, self._course.step) if may_come_again else 0
            yield from self._replace(now, generation, address, how, losses)
        elif not self._stop.ending.at_once:  # without it the others come to no agreed step
            yield from self._stop.at_once(now, self._stop.ending)
        else:
            yield from self._stop.finish_if_all_gone()

    def _replace(
        self, now: float, generation: Generation, address: Address, how: str, losses: int
    ) -> Iterator[Command]:
        is_current = generation is self._fleet.current
        if is_current and generation.is_open and not generation.has_survivors and self._fleet.next:
            yield from self._give_up_current(now)  # those who are nearly ready are the quickest to go on
        elif losses > self.terms.max_losses and is_current:
            yield from self._fail_of_losses(now, address.rank, how, losses)
        elif losses > self.terms.max_losses:
            yield from self._do_without_next(how)
        elif generation.heir and generation.heir.address.rank == address.rank:
            yield from self._succeed(now)  # it is on its way, or there
        elif self._allowance.can_pay(1):
            yield from self._fleet.relaunch(generation, address.rank, now)
        else:
            yield from self._do_without_money(now, generation)

    def _do_without_money(self, now: float, generation: Generation) -> Iterator[Command]:
        """A rank of a generation cannot be launched, and nobody trains without it."""
        if generation is self._fleet.current:
            yield from self._stop.at_once(now, self._stop.ending or Ending("stopped", "budget"))
        else:
            yield from self._do_without_next("the budget does not allow another function")

    # Ranks that hand over one after another

    def _prepare_heir(self, now: float) -> Iterator[Command]:
        """Let the next function of a rank make ready, while the one before goes on."""
        current = self._fleet.current
        room = self.terms.max_workers - len(self._fleet.old) - current.functions
        rank = self._succession.due(current, room, now) if current.heir is None and not self._fleet.next else None
        if rank is not None and self._fleet.is_as_wanted and self._allowance.can_pay(1):
            yield from self._fleet.launch_heir(rank, now)

    def _hand_over_rank(self, now: float) -> Iterator[Command]:
        """The heir that is READY takes its place, once all other ranks are known to have the state that it needs."""
        heir = self._fleet.current.heir
        if heir is None or heir.ready is None or self._stop.ending or self._stop.wished:
            return
        if self._fleet.current.can_spare(heir.address.rank):
            yield from self._succeed(now)

    def _succeed(self, now: float) -> Iterator[Command]:
        """A rank's heir has the place of the function before, which may be lost by now; if not, it leaves."""
        current = self._fleet.current
        before = current.succeed()
        hands_over = before.is_here
        self._succession.begins_anew()
        if hands_over:
            self._fleet.old[before.address] = now
        if current.is_ready:
            yield from self._open_round(now)
        if hands_over:
            self._course.rank_succeeded(current.members[before.address.rank].address, current.round)

    def _give_up_current(self, now: float) -> Iterator[Command]:
        """Nobody of the current generation has a state any more."""
        for member in self._fleet.current.members:
            yield from self._fleet.give_up(self._fleet.current, member)
        yield from self._follow(now)

    def _do_without_next(self, why: str) -> Iterator[Command]:
        """The next generation fails, and the current one goes on; another is launched when it is over."""
        yield Record("hand_over_failed", {"detail": why})
        yield from self._fleet.drop_next()
        self._overlaps = False

    def _fail_of_losses(self, now: float, rank: int, how: str, losses: int) -> Iterator[Command]:
        who = "all ranks waited for each other" if rank == EVERYBODY else f"rank {rank} was lost"
        message = f"{who} at step {self._course.step}: {how}; this happened {losses} times without progress"
        failure = Failure("JobFailed", message, go_on(self._resume_from), "")
        yield from self._fail(now, max(0, rank), "worker lost", failure)

    def _fail(self, now: float, rank: int, reason: str, failure: Failure) -> Iterator[Command]:
        yield Record("failed", {"rank": rank, **vars(failure)})
        yield from self._stop.at_once(now, Ending("failed", reason, failure))

    def _on_launch_failed(self, event: LaunchFailed) -> Iterator[Command]:
        """The platform refuses: try again, a little later each time; for as long as a start may take, if need be."""
        member, address = self._fleet.member(event.address), event.address
        if member is None or member.is_gone:
            return
        generation = self._fleet.generation_of(address)
        if member is generation.heir:
            yield from self._lose(event.now, member, f"it could not be launched: {event.detail}")
            return
        wait_s = generation.refuse(member, event.now)
        is_current = generation is self._fleet.current
        if self._stop.is_at_once:
            yield from self._stop.finish_if_all_gone()
        elif is_current and event.now + wait_s - (member.refused_at or 0.0) > self.terms.start_deadline_s:
            message = f"rank {address.rank} could not be launched: {event.detail}"
            failure = Failure("CloudError", message, event.hint or go_on(self._resume_from), "")
            if self._stop.ending:
                yield from self._stop.at_once(event.now, self._stop.ending)
            else:
                yield from self._fail(event.now, address.rank, "launch failed", failure)
        else:
            yield Record("launch_failed", {**vars(address), "detail": event.detail, "again_in_s": wait_s})

    def _retry(self, generation: Generation, now: float) -> Iterator[Command]:
        """Launch what was refused or had to wait, and is due, if there is the money for it."""
        due = self._fleet.due(generation, now)
        if not due or self._stop.is_at_once:
            return
        if self._allowance.can_pay(len(due)):
            yield from self._fleet.launch_again(generation, due, now)
        else:
            yield from self._do_without_money(now, generation)

    # Time and money

    def _on_tick(self, event: Tick) -> Iterator[Command]:
        now = event.now
        self._allowance.ticked(event)
        if event.blind:
            self._watch.was_blind(now)
        yield from self._fleet.kill_old(now)
        if self._stop.ending:
            yield from self._stop.hasten(now, self._stop.ending)
        elif limit := self._allowance.limit_reached(now, self.stopping_s):
            yield from self._stop.softly(now, "stopped", limit)
            if self._allowance.is_spent:
                yield from self._stop.kill()
        if not self._stop.is_at_once:
            yield from self._mind_workers(now)
        if self._stop.ending is None:
            yield from self._mind_allocation(now)
            yield from self._mind_time_limit(now)
            yield from self._mind_stragglers(now)

    def _mind_workers(self, now: float) -> Iterator[Command]:
        """Who is lost without a word, or was refused."""
        for generation in self._fleet.living:
            for member, how in self._watch.lost(generation, now):
                if not member.is_gone and any(generation is living for living in self._fleet.living):
                    yield from self._lose(now, member, how)
        if not self._stop.is_at_once:
            for generation in self._fleet.living:
                yield from self._retry(generation, now)
        if self._watch.is_stalled(self._fleet.current, now):
            yield Record("stalled", {"generation": self._fleet.current.number, "round": self._fleet.current.round})
            losses = self._losses.count(self._fleet.current.number, EVERYBODY, self._course.step)
            if losses > self.terms.max_losses:
                yield from self._fail_of_losses(now, EVERYBODY, "no step came through", losses)
            else:
                yield from self._open_round(now)

    def _mind_time_limit(self, now: float) -> Iterator[Command]:
        """Before the platform ends the functions: make the next generation ready, then end this one."""
        if self._stop.wished or not self._fleet.current.is_open or self._fleet.current.is_leaving:
            return
        due, failure = self._timetable.due(self._fleet.current, now), self._timetable.too_short()
        if failure:
            yield from self._fail(now, 0, "time limit too short", failure)
        elif due is Due.END:
            yield from self._fleet.drop_heir()
            yield from self._stop.wish("time limit")
        elif due is Due.NEXT and self._may_overlap():
            yield from self._fleet.launch_next(now, "time limit")
        elif not self._fleet.fits_twice:
            yield from self._prepare_heir(now)
            yield from self._hand_over_rank(now)

    def _mind_stragglers(self, now: float) -> Iterator[Command]:
        """Tell of a rank that holds the others up, and replace it where that pays."""
        current = self._fleet.current
        if self._stop.ending or self._fleet.next or self._stop.wished or current.heir:
            return  # its generation is about to end, or its function
        straggler = current.stragglers.found() if current.is_ready and not current.is_leaving else None
        if straggler is None:
            return
        member, seconds = current.members[straggler.rank], straggler.seconds_a_step
        pays = replacing_pays(straggler, self._timetable.steps_left, self._watch.start_s, self._setback_s)
        pays = pays and self._allowance.can_pay(1)
        yield Record("straggler", {**vars(member.address), "seconds_a_step": seconds, "replaced": pays})
        if pays:
            yield from self._lose(now, member, f"it is slow: each step waits {seconds:.2g} s for it")

    @property
    def _setback_s(self) -> float:
        """What is computed again where a rank is lost: the step in hand; with PRIVATE state, all since the save."""
        steps = max(1, self._course.step - max(0, self._saved_step)) if self.terms.has_private else 1
        return steps * self._course.seconds

    def _may_overlap(self) -> bool:
        """Whether a second generation may live beside the current one."""
        fits = len(self._fleet.old) + self._fleet.current.workers + self._fleet.workers <= self.terms.max_workers
        return self._overlaps and self._fleet.next is None and fits and self._allowance.can_pay(self._fleet.workers)

    @property
    def memory(self) -> MemorySize:
        """Of what it launches."""
        return self._fleet.memory

    @property
    def is_as_wanted(self) -> bool:
        """Whether it trains with the fleet that it shall have, and no other is on its way."""
        return self.state is State.RUNNING and self._fleet.is_as_wanted and not self._fleet.old

    @property
    def steps_left(self) -> int:
        """Steps to the end of the job; 0 before anybody has said how many there are."""
        return self._timetable.steps_left

    @property
    def stopping_s(self) -> float:
        """Time to end at an agreed step."""
        return self._timetable.stopping_s

    # What users ask for

    def _on_scale(self, event: ScaleRequested) -> Iterator[Command]:
        """Another number of workers, by the same door as a hand-over."""
        refused = self._why_not_scale(event.workers)
        if event.order is not None:
            order = {"number": event.order, "order": "scale", "workers": event.workers, "refused": refused}
            yield Record("order", order)
        if refused or event.workers == self._fleet.workers:
            return
        self._fleet.workers = event.workers
        yield Record("scale", {"workers": event.workers})
        yield from self._fleet.drop_next()
        yield from self._mind_allocation(event.now)

    def _on_plan_changed(self, event: PlanChanged) -> Iterator[Command]:
        """Another fleet for the rest of the run; the next tick knows what its functions cost, and launches them."""
        if self._why_not_scale(event.workers) or not self._fleet.is_as_wanted:
            return
        self._fleet.workers, self._fleet.memory.mib = event.workers, event.memory_mib
        yield Record("replanned", {"workers": event.workers, "memory_mib": event.memory_mib, **event.why})
        yield from self._fleet.drop_next()

    def _why_not_scale(self, workers: int) -> str:
        most = min(self.terms.max_workers, self.terms.max_ranks or self.terms.max_workers)
        if self._stop.ending:
            return f"the run is stopping: {self._stop.ending.reason}"
        if not 1 <= workers <= most:
            return f"this run can have 1 to {most} workers"
        if workers > self._fleet.workers and not self._allowance.can_pay(workers):
            return f"the budget does not pay for {workers} workers"
        return ""

    def _mind_allocation(self, now: float) -> Iterator[Command]:
        """See to it that the run has as many workers as it shall have, once it neither starts nor recovers."""
        current = self._fleet.current
        if self._fleet.is_as_wanted or self._fleet.next or self._stop.wished or self._fleet.old:
            return
        if not current.is_open or current.is_leaving or not current.is_ready:
            return
        if self._may_overlap():
            yield from self._fleet.launch_next(now, "scale")
        elif self._allowance.can_pay(self._fleet.workers):
            yield from self._stop.wish("scale")

    def _on_cancel(self, event: CancelRequested) -> Iterator[Command]:
        if event.order is not None:
            order = {"number": event.order, "order": "cancel", "at_once": event.at_once, "refused": ""}
            yield Record("order", order)
        if self._stop.ending is None and not event.at_once:
            yield from self._stop.softly(event.now, "cancelled", "cancelled")
        else:
            yield from self._stop.at_once(event.now, self._stop.ending or Ending("cancelled", "cancelled"))

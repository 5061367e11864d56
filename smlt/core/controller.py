"""The run's pure state machine: events in, commands out. No clock, no I/O; the engine and the simulator drive it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from smlt.core.allowance import Allowance
from smlt.core.course import Course
from smlt.core.endings import AGREED, LIMITS, OUT_OF_MEMORY, PASSING, UNREADABLE, Ending, State, go_on
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
    KillWorkers,
    Launch,
    LaunchFailed,
    OpenRound,
    Record,
    ScaleRequested,
    Started,
    StateFound,
    StepsDone,
    StopWorkers,
    Terms,
    Tick,
    Wish,
    WorkerExited,
    WorkerFailed,
    WorkerLeft,
    WorkerReady,
)
from smlt.core.stragglers import replacing_pays
from smlt.core.timetable import Due, Timetable
from smlt.core.watch import EVERYBODY, Losses, Watch

QUIET = (Beat, StepsDone, EvaluationDone, Checkpointed)
"""Events that leave the run in the state in which it is."""


@dataclass
class Controller:
    """The machine of one run.

    Args:
        terms: what it holds the run to.

    Attributes:
        memory: of what it launches.
    """

    terms: Terms
    state: State = State.PLANNING
    memory: MemorySize = field(init=False)
    _current: Generation = field(default_factory=lambda: Generation(0, 0, 0.0, 0))
    _next: Generation | None = None
    _old: dict[Address, float] = field(default_factory=dict)
    _launched: int = 0
    _workers: int = 0
    _resume_from: str = ""
    _saved_step: int = -1
    _course: Course = field(default_factory=Course)
    _watch: Watch = field(init=False)
    _allowance: Allowance = field(init=False)
    _timetable: Timetable = field(init=False)
    _losses: Losses = field(default_factory=Losses)
    _overlaps: bool = True
    _wished: str = ""
    _ending: Ending | None = None
    _killed: bool = False

    def __post_init__(self) -> None:
        self._watch, self._allowance = Watch(self.terms), Allowance(self.terms)
        self._timetable = Timetable(self.terms, self._watch, self._course, self._allowance)
        self._workers, self.memory = self.terms.workers, MemorySize(self.terms)

    def handle(self, event: Event) -> list[Command]:
        """What to do now that `event` has happened."""
        if self.state is State.OVER:
            return []
        commands: list[Command] = []
        for command in self._handle(event):
            commands.append(command)
            if isinstance(command, Finish):
                return commands
        state = self.state if isinstance(event, QUIET) else self._state_now()
        if state is not self.state:
            self.state = state
            commands.append(Record("state", {"state": state.value}))
        return commands

    def _state_now(self) -> State:
        if self._ending:
            return State.STOPPING
        if not self._current.is_open:
            return State.STARTING
        if not self._current.is_leaving and not self._current.is_ready:
            return State.RECOVERING
        return State.HANDING_OVER if self._next or self._wished else State.RUNNING

    def _handle(self, event: Event) -> Iterator[Command]:
        match event:
            case Started():
                yield from self._on_started(event)
            case WorkerReady():
                yield from self._on_ready(event)
            case Beat(address=address):
                member = self._member(address)
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
            case CancelRequested():
                yield from self._on_cancel(event)
            case Tick():
                yield from self._on_tick(event)

    # Generations

    def _on_started(self, event: Started) -> Iterator[Command]:
        self._course.step = event.step
        self._launched, self._resume_from = event.first_generation - 1, event.resume_from
        self._allowance.started(event)
        if event.adopted:
            yield from self._adopt(event.now, event.adopted)
        else:
            yield from self._launch_current(event.now)

    def _adopt(self, now: float, adopted: Adopted) -> Iterator[Command]:
        """Go on with the functions that an earlier controller launched, in the round that is open."""
        self._current, self._wished = Generation.adopted(adopted, now), adopted.wish
        self._allowance.launched(self._current.workers)
        self._watch.evaluates(adopted.eval_examples)
        self._timetable.total_steps = adopted.total_steps
        about = {"generation": self._current.number, "round": adopted.round.number, "workers": self._current.workers}
        yield Record("adopted", {**about, "step": self._course.step})
        for rank in adopted.lost:
            how = "it was being replaced when its controller was lost"
            yield from self._lose(now, self._current.members[rank], how)

    def _launch_current(self, now: float) -> Iterator[Command]:
        if not self._allowance.can_pay(self._workers):
            yield from self._finish("stopped", "budget")
            return
        self._launched += 1
        self._current = Generation(self._launched, self._workers, now, self.memory.mib)
        self._current.postpone(self.terms.max_workers - len(self._old), now)  # for the others those must go who left
        yield from self._launch(self._current.members, self._workers)

    def _launch_next(self, now: float, reason: str) -> Iterator[Command]:
        """Let another generation make ready, while this one goes on."""
        self._launched += 1
        self._next = Generation(self._launched, self._workers, now, self.memory.mib)
        yield Record("hand_over", {"generation": self._launched, "workers": self._workers, "reason": reason})
        yield from self._launch(self._next.members, self._workers)

    def _launch(self, members: Sequence[Member], workers: int) -> Iterator[Command]:
        """Start functions; that they may be running is on record before any of them is."""
        self._allowance.launched(len(members))
        yield from (_intent(member) for member in members)
        yield from (Launch(member.address, workers, member.memory_mib) for member in members if member.is_here)

    def _drop_next(self) -> Iterator[Command]:
        if self._next:
            yield from (Kill(member.address) for member in self._next.here)
            self._next = None

    def _open_round(self, now: float) -> Iterator[Command]:
        current = self._current
        opened = current.opened(self._resume_from, now)
        about = {"generation": current.number, "round": opened.number, "workers": current.workers}
        yield Record("round_opened", {**about, "step": self._course.step})
        yield OpenRound(opened)

    def _generation_over(self, now: float) -> Iterator[Command]:
        """Every rank of the current generation has left, or is gone after another has left."""
        words = [member.left for member in self._current.members if member.left]
        first = self._current.members[0].left
        yield from self._course.caught_up(max((word.step for word in words), default=0))
        if first and first.reason in ("goal", "target"):
            yield from self._finish("succeeded", first.reason, left=first)
        elif self._ending:
            yield from self._finish(self._ending.status, self._ending.reason, left=first)
        else:  # also where rank 0 was lost before it could say what came out: the state is saved, another one will
            yield from self._follow(now)

    def _follow(self, now: float) -> Iterator[Command]:
        """The next generation takes the place of the current one."""
        self._old |= {member.address: now for member in self._current.here}
        self._wished = ""
        if self._next is None:
            yield from self._launch_current(now)
            return
        self._current, self._next = self._next, None
        self._current.hurry(now)
        if self._current.is_ready:
            yield from self._open_round(now)

    # What workers say

    def _on_ready(self, event: WorkerReady) -> Iterator[Command]:
        member, ready = self._member(event.address), event.ready
        if member is None or member.is_gone:
            return
        generation, first = self._generation_of(event.address), member.ready is None
        generation.says_ready(member, ready)
        member.heard_at = event.now
        if first:
            seconds = event.now - member.launched_at
            self._watch.start_took(seconds)
            self._watch.evaluates(ready.shape.eval_examples)
            self._timetable.total_steps = ready.total_steps
            yield Record("ready", {**vars(event.address), **introduction(ready), "seconds": seconds})
        if self._ending and self._ending.at_once:
            return
        if generation is not self._current:
            if generation.is_ready and not self._wished:
                yield from self._wish("hand over")
        elif generation.is_leaving:
            yield from self._lose(event.now, member, "it asked for another round although others have left")
        elif generation.is_ready and ready.after_round in (-1, generation.round):
            yield from self._open_round(event.now)

    def _on_steps(self, event: StepsDone) -> Iterator[Command]:
        member = self._member(event.address)
        if event.address.generation != self._current.number:
            return
        if member is None:
            yield from self._course.note(event.address, event.steps, is_stale=True)
            return
        if not member.has_stepped:
            member.has_stepped = True
            self._watch.first_step_took(event.steps[0].seconds)
        if event.address.rank == 0:
            self._watch.steps_took(event.steps)
        self._current.stragglers.note(event.address.rank, event.steps)
        yield from self._course.note(event.address, event.steps)

    def _on_checkpointed(self, event: Checkpointed) -> Iterator[Command]:
        done, address = event.done, event.address
        is_old = done.step <= self._saved_step or (address and address.generation != self._current.number)
        if is_old and address is not None and self._member(address) is None:
            return  # told late, by one who was thought lost; it may have been cleared away by now
        self._resume_from, self._saved_step = event.manifest, done.step
        self._watch.saving_took(done.seconds)
        about = {"bytes": done.size_bytes, "seconds": done.seconds, "stall_s": done.stall_s}
        yield Record("checkpointed", {"step": done.step, **about})

    def _on_left(self, event: WorkerLeft) -> Iterator[Command]:
        member = self._member(event.address)
        if member is None:
            return
        generation, left = self._generation_of(event.address), event.left
        if left.reason not in AGREED and not (self._ending and self._ending.at_once):
            yield from self._lose(event.now, member, f"it left: {left.reason}")
            return
        generation.says_left(member, left)
        if left.reason in AGREED:
            if event.manifest and left.step > self._saved_step:  # rank 0 may be lost before it can tell
                self._resume_from, self._saved_step = event.manifest, left.step
            yield from self._on_agreed_end(event.now, generation, left)
        if self._ending and self._ending.failure:
            return  # the functions' exits decide when it is over
        if generation is self._current and generation.is_over:
            yield from self._generation_over(event.now)

    def _on_agreed_end(self, now: float, generation: Generation, left: Left) -> Iterator[Command]:
        """Those in the same round leave, too; whoever has come since waits for peers that will not come."""
        for member in generation.ends(left, now):
            yield from self._give_up(generation, member)

    def _on_failed(self, event: WorkerFailed) -> Iterator[Command]:
        member, failure = self._member(event.address), event.failure
        if member is None or member.is_gone or (self._ending and self._ending.failure):
            return
        if failure.kind in UNREADABLE:
            yield FindState()
        if failure.kind == OUT_OF_MEMORY:
            yield from self._on_out_of_memory(event.now, member, failure)
            return
        if failure.kind in PASSING:
            yield from self._lose(event.now, member, f"{failure.message} ({failure.hint})")
            return
        generation = self._generation_of(event.address)
        generation.give_up(member)
        if generation is self._current:
            yield from self._fail(event.now, event.address.rank, failure.kind, failure)
        else:
            yield from self._do_without_next(failure.message)

    # Losing a rank

    def _on_exited(self, event: WorkerExited) -> Iterator[Command]:
        self._old.pop(event.address, None)
        member = self._member(event.address)
        if member is None:
            return
        known = member.is_gone
        self._generation_of(event.address).give_up(member)
        yield Record("exited", {**vars(event.address), "detail": event.detail})
        if member.left is None and not known and event.out_of_memory:
            yield from self._on_out_of_memory(event.now, member, Failure(OUT_OF_MEMORY, event.detail, "", ""))
        elif member.left is None and not known:
            yield from self._lose(event.now, member, event.detail or "it returned without a word")
        yield from self._finish_if_all_gone()

    def _on_out_of_memory(self, now: float, member: Member, failure: Failure) -> Iterator[Command]:
        """Its memory did not suffice: it is launched again with more, and so is all that is launched from now on."""
        generation, rank = self._generation_of(member.address), member.address.rank
        if self._ending is None and member.memory_mib >= self.memory.mib:
            if self.memory.grow():
                yield from self._memory_raised(member, failure.message)
            elif generation is self._current and not generation.is_leaving:
                generation.give_up(member)
                yield from self._fail(
                    now, rank, "out of memory", self.memory.too_small(rank, member.memory_mib, failure)
                )
                return
        yield from self._lose(
            now, member, f"out of memory: {failure.message}", may_come_again=member.memory_mib >= self.memory.mib
        )

    def _memory_raised(self, member: Member, how: str) -> Iterator[Command]:
        self._allowance.enlarged()
        about = {"from_mib": member.memory_mib, "memory_mib": self.memory.mib, "detail": how}
        yield Record("memory_raised", {**vars(member.address), **about})

    def _lose(self, now: float, member: Member, how: str, *, may_come_again: bool = True) -> Iterator[Command]:
        """A rank is lost: replace it, unless its generation is over anyway.

        Args:
            may_come_again: whether its next function is no better off, so that such losses must be counted.
        """
        generation, address = self._generation_of(member.address), member.address
        yield from self._give_up(generation, member)
        yield Record("lost", {**vars(address), "step": self._course.step, "detail": how})
        if generation.is_leaving:
            if generation.is_over and not (self._ending and self._ending.failure):
                yield from self._generation_over(now)
        elif self._ending is None:
            losses = self._losses.count(address.rank, self._course.step) if may_come_again else 0
            yield from self._replace(now, generation, address, how, losses)
        elif not self._ending.at_once:  # without it the others come to no agreed step
            yield from self._stop_at_once(now, self._ending)

    def _give_up(self, generation: Generation, member: Member) -> Iterator[Command]:
        if member.is_here:
            yield Kill(member.address)
        generation.give_up(member)

    def _replace(
        self, now: float, generation: Generation, address: Address, how: str, losses: int
    ) -> Iterator[Command]:
        is_current = generation is self._current
        if is_current and generation.is_open and not generation.has_survivors and self._next:
            yield from self._give_up_current(now)  # those who are nearly ready are the quickest to go on
        elif losses > self.terms.max_losses and is_current:
            yield from self._fail_of_losses(now, address.rank, how, losses)
        elif losses > self.terms.max_losses:
            yield from self._do_without_next(how)
        elif self._allowance.can_pay(1):
            yield from self._launch([generation.relaunched(address.rank, now, self.memory.mib)], generation.workers)
        elif is_current:
            yield from self._stop_at_once(now, Ending("stopped", "budget"))
        else:
            yield from self._do_without_next("the budget does not allow another function")

    def _give_up_current(self, now: float) -> Iterator[Command]:
        """Nobody of the current generation has a state any more."""
        for member in self._current.members:
            yield from self._give_up(self._current, member)
        yield from self._follow(now)

    def _do_without_next(self, why: str) -> Iterator[Command]:
        """The next generation fails, and the current one goes on; another is launched when it is over."""
        yield Record("hand_over_failed", {"detail": why})
        yield from self._drop_next()
        self._overlaps = False

    def _fail_of_losses(self, now: float, rank: int, how: str, losses: int) -> Iterator[Command]:
        who = "all ranks waited for each other" if rank == EVERYBODY else f"rank {rank} was lost"
        message = f"{who} at step {self._course.step}: {how}; this happened {losses} times without progress"
        failure = Failure("JobFailed", message, go_on(self._resume_from), "")
        yield from self._fail(now, max(0, rank), "worker lost", failure)

    def _fail(self, now: float, rank: int, reason: str, failure: Failure) -> Iterator[Command]:
        yield Record("failed", {"rank": rank, **vars(failure)})
        yield from self._stop_at_once(now, Ending("failed", reason, failure))

    def _on_launch_failed(self, event: LaunchFailed) -> Iterator[Command]:
        """The platform refuses: try again, a little later each time; for as long as a start may take, if need be."""
        member, address = self._member(event.address), event.address
        if member is None or member.is_gone:
            return
        generation = self._generation_of(address)
        wait_s = generation.refuse(member, event.now)
        is_current = generation is self._current
        if self._ending and self._ending.at_once:
            yield from self._finish_if_all_gone()
        elif is_current and event.now + wait_s - (member.refused_at or 0.0) > self.terms.start_deadline_s:
            message = f"rank {address.rank} could not be launched: {event.detail}"
            failure = Failure("CloudError", message, event.hint or go_on(self._resume_from), "")
            if self._ending:
                yield from self._stop_at_once(event.now, self._ending)
            else:
                yield from self._fail(event.now, address.rank, "launch failed", failure)
        else:
            yield Record("launch_failed", {**vars(address), "detail": event.detail, "again_in_s": wait_s})

    def _retry(self, generation: Generation, now: float) -> Iterator[Command]:
        """Launch what was refused or had to wait, and is due."""
        room = self.terms.max_workers - len(self._old) - sum(each.functions for each in self._generations)
        for member in generation.retried(now, room):
            if member.memory_mib < self.memory.mib:  # what it was to have has not sufficed for another meanwhile
                member.memory_mib = self.memory.mib
                yield _intent(member)
            yield Launch(member.address, generation.workers, member.memory_mib)

    # Time and money

    def _on_tick(self, event: Tick) -> Iterator[Command]:
        now = event.now
        self._allowance.ticked(event)
        if event.blind:
            self._watch.was_blind(now)
        yield from self._kill_old(now)
        if self._ending:
            yield from self._hasten(now, self._ending)
        elif limit := self._allowance.limit_reached(now, self.stopping_s):
            yield from self._stop_softly(now, "stopped", limit)
            if self._allowance.is_spent:
                yield from self._kill()
        if not (self._ending and self._ending.at_once):
            yield from self._mind_workers(now)
        if self._ending is None:
            yield from self._mind_allocation(now)
            yield from self._mind_time_limit(now)
            yield from self._mind_stragglers(now)

    def _mind_workers(self, now: float) -> Iterator[Command]:
        """Who is lost without a word, or was refused."""
        for generation in self._generations:
            for member, how in self._watch.lost(generation, now):
                if not member.is_gone and any(generation is living for living in self._generations):
                    yield from self._lose(now, member, how)
        if not (self._ending and self._ending.at_once):
            for generation in self._generations:
                yield from self._retry(generation, now)
        if self._watch.is_stalled(self._current, now):
            yield Record("stalled", {"generation": self._current.number, "round": self._current.round})
            losses = self._losses.count(EVERYBODY, self._course.step)
            if losses > self.terms.max_losses:
                yield from self._fail_of_losses(now, EVERYBODY, "no step came through", losses)
            else:
                yield from self._open_round(now)

    def _kill_old(self, now: float) -> Iterator[Command]:
        """Functions that are there long after their last word."""
        for address, since in list(self._old.items()):
            if now - since > self.terms.leave_s:
                del self._old[address]
                yield Kill(address)

    def _mind_time_limit(self, now: float) -> Iterator[Command]:
        """Before the platform ends the functions: make the next generation ready, then end this one."""
        if self._wished or not self._current.is_open or self._current.is_leaving:
            return
        due, failure = self._timetable.due(self._current, now), self._timetable.too_short()
        if failure:
            yield from self._fail(now, 0, "time limit too short", failure)
        elif due is Due.END:
            yield from self._wish("time limit")
        elif due is Due.NEXT and self._may_overlap():
            yield from self._launch_next(now, "time limit")

    def _mind_stragglers(self, now: float) -> Iterator[Command]:
        """Tell of a rank that holds the others up, and replace it where that pays."""
        current = self._current
        if self._ending or self._next or self._wished:
            return  # its generation is about to end
        straggler = current.stragglers.found() if current.is_ready and not current.is_leaving else None
        if straggler is None:
            return
        member, seconds = current.members[straggler.rank], straggler.seconds_a_step
        pays = replacing_pays(straggler, self._timetable.steps_left, self._watch.start_s, self._course.seconds)
        pays = pays and self._allowance.can_pay(1)
        yield Record("straggler", {**vars(member.address), "seconds_a_step": seconds, "replaced": pays})
        if pays:
            yield from self._lose(now, member, f"it is slow: each step waits {seconds:.2g} s for it")

    def _may_overlap(self) -> bool:
        """Whether a second generation may live beside the current one."""
        fits = len(self._old) + self._current.workers + self._workers <= self.terms.max_workers
        return self._overlaps and self._next is None and fits and self._allowance.can_pay(self._workers)

    @property
    def stopping_s(self) -> float:
        """Time to end at an agreed step."""
        return self._timetable.stopping_s

    # Wishes and endings

    def _on_scale(self, event: ScaleRequested) -> Iterator[Command]:
        """Another number of workers, by the same door as a hand-over."""
        refused = self._why_not_scale(event.workers)
        if event.order is not None:
            order = {"number": event.order, "order": "scale", "workers": event.workers, "refused": refused}
            yield Record("order", order)
        if refused or event.workers == self._workers:
            return
        self._workers = event.workers
        yield Record("scale", {"workers": event.workers})
        yield from self._drop_next()
        yield from self._mind_allocation(event.now)

    def _why_not_scale(self, workers: int) -> str:
        most = min(self.terms.max_workers, self.terms.max_ranks or self.terms.max_workers)
        if self._ending:
            return f"the run is stopping: {self._ending.reason}"
        return "" if 1 <= workers <= most else f"this run can have 1 to {most} workers"

    def _mind_allocation(self, now: float) -> Iterator[Command]:
        """See to it that the run has as many workers as it shall have, once it neither starts nor recovers."""
        current = self._current
        if current.workers == self._workers or self._next or self._wished or self._old:
            return
        if not current.is_open or current.is_leaving or not current.is_ready:
            return
        if self._may_overlap():
            yield from self._launch_next(now, "scale")
        elif self._allowance.can_pay(self._workers):
            yield from self._wish("scale")

    def _on_cancel(self, event: CancelRequested) -> Iterator[Command]:
        if event.order is not None:
            order = {"number": event.order, "order": "cancel", "at_once": event.at_once, "refused": ""}
            yield Record("order", order)
        if self._ending is None and not event.at_once:
            yield from self._stop_softly(event.now, "cancelled", "cancelled")
        else:
            yield from self._stop_at_once(event.now, self._ending or Ending("cancelled", "cancelled"))

    def _wish(self, reason: str) -> Iterator[Command]:
        """Ask the current generation to end at an agreed step."""
        self._wished = reason
        yield Record("wish", {"reason": reason})
        yield Wish(reason)

    def _hasten(self, now: float, ending: Ending) -> Iterator[Command]:
        """Be less gentle with who does not end in time: a limit is a wall, a user may ask again."""
        waited_s = now - ending.since
        if self._allowance.is_spent or (not self._allowance.has_money and waited_s > self.stopping_s):
            yield from self._kill()  # what is committed would pass the budget
        elif ending.at_once:
            if waited_s > self.terms.leave_s:
                yield from self._kill()
        elif ending.reason in LIMITS and waited_s > 2 * self.stopping_s + self.terms.leave_s:
            yield from self._stop_at_once(now, ending)

    def _stop_softly(self, now: float, status: str, reason: str) -> Iterator[Command]:
        """End at an agreed step, with a checkpoint; at once where none is near: a limit waits for no replacement."""
        ending, current = Ending(status, reason, since=now), self._current
        is_whole = current.is_open and (current.is_ready or current.is_leaving)
        if not is_whole and (reason in LIMITS or not current.has_survivors):
            yield from self._stop_at_once(now, ending)
            return
        self._ending = ending
        yield from self._drop_next()
        yield from self._wish(reason)

    def _stop_at_once(self, now: float, ending: Ending) -> Iterator[Command]:
        again = self._ending is not None and self._ending.at_once
        ending.since, ending.at_once = now, True
        self._ending = ending
        yield from self._drop_next()
        if again:
            yield from self._kill()
        else:
            yield StopWorkers()
        yield from self._finish_if_all_gone()

    def _kill(self) -> Iterator[Command]:
        if not self._killed:
            self._killed = True
            if self._ending and not self._ending.at_once:  # whom the platform cannot end hears it
                self._ending.at_once = True
                yield StopWorkers()
            yield KillWorkers()

    def _finish_if_all_gone(self) -> Iterator[Command]:
        if self._ending and self._current.is_gone:
            yield from self._finish(self._ending.status, self._ending.reason, failure=self._ending.failure)

    def _finish(
        self, status: str, reason: str, left: Left | None = None, failure: Failure | None = None
    ) -> Iterator[Command]:
        if self.state is not State.OVER:
            yield from self._drop_next()
            self.state = State.OVER
            yield Finish(status, reason, left, failure)

    # Who is who

    @property
    def _generations(self) -> list[Generation]:
        return [self._current, self._next] if self._next else [self._current]

    def _generation_of(self, address: Address) -> Generation:
        return self._next if self._next and address.generation == self._next.number else self._current

    def _member(self, address: Address) -> Member | None:
        """Who this is, if it is the newest incarnation of a rank of a living generation."""
        generation = self._generation_of(address)
        if generation.number != address.generation or address.rank >= generation.workers:
            return None
        member = generation.members[address.rank]
        return member if member.address == address else None


def _intent(member: Member) -> Record:
    """What is on record before a function is launched."""
    return Record("launched", {**vars(member.address), "memory_mib": member.memory_mib})

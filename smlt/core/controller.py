"""The run's pure state machine: events in, commands out. No clock, no I/O; the engine and the simulator drive it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum

from smlt.core.fleet import Generation, Member
from smlt.core.messages import Failure, Left, StepRecord
from smlt.core.run_events import (
    Address,
    Beat,
    CancelRequested,
    Checkpointed,
    Command,
    EvaluationDone,
    Event,
    Finish,
    Kill,
    KillWorkers,
    Launch,
    LaunchFailed,
    OpenRound,
    Record,
    ScaleRequested,
    Started,
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
from smlt.core.watch import Watch

GO_ON = "the last checkpoint is kept: run the same command with the same --name to go on"
"""The hint where a run failed for no fault of the task's."""
BEGIN_AGAIN = "no checkpoint was written yet: run the same command with the same --name to begin again"
"""The same where there is nothing to go on from."""

LIMITS = ("deadline", "budget")
"""Reasons to stop that are the user's limits."""

PASSING = ("StorageError", "ChannelError", "PeerLost", "CloudError")
"""Errors that say nothing against the task: who failed with one is replaced."""

START_MARGIN = 1.5
"""A generation is launched ahead by the longest start that was seen, times this."""


class State(Enum):
    """Where the run is."""

    PLANNING = "planning"
    STARTING = "starting"
    RUNNING = "running"
    HANDING_OVER = "handing_over"
    RECOVERING = "recovering"
    STOPPING = "stopping"
    OVER = "over"


@dataclass
class _Ending:
    """Why the run is being stopped, and what will be said of it."""

    status: str
    reason: str
    failure: Failure | None = None
    since: float = 0.0


@dataclass
class _Course:
    """The steps that were committed, once each and in order.

    Attributes:
        step: the next one.
        seconds: that the last ones took at most.
        generation, ended: of the last one: which generation made it, and when it ended (Unix time).
        ahead: steps that only other ranks than 0 have reported: rank 0 died before it could.
    """

    step: int = 0
    seconds: float = 0.0
    generation: int = 0
    ended: float = 0.0
    ahead: dict[int, StepRecord] = field(default_factory=dict)

    def note(self, rank: int, records: tuple[StepRecord, ...]) -> tuple[StepRecord, ...]:
        """Those of a rank's records that go on where the course ends; a step back is one that rank 0 made again."""
        if rank != 0:
            self.ahead |= {record.step: record for record in records if record.step >= self.step}
            return ()
        missing = [self.ahead[step] for step in range(self.step, records[0].step) if step in self.ahead]
        known = (*missing, *records)
        self.step = known[-1].step + 1
        self.seconds = max(record.seconds for record in known)
        self.ahead = {step: record for step, record in self.ahead.items() if step >= self.step}
        return known


@dataclass
class Controller:
    """The machine of one run.

    Args:
        terms: what it holds the run to.
    """

    terms: Terms
    state: State = State.PLANNING
    _current: Generation = field(default_factory=lambda: Generation(0, 0.0))
    _next: Generation | None = None
    _launched: int = 0
    _workers: int = 0
    _resume_from: str = ""
    _total_steps: int = 0
    _course: _Course = field(default_factory=_Course)
    _watch: Watch = field(init=False)
    _started_at: float = 0.0
    _committed_usd: float = 0.0
    _worker_usd: float = 0.0
    _wished: str = ""
    _ending: _Ending | None = None
    _killed: bool = False
    _losses: int = 0
    _lost_at_step: int = -1
    _refused: dict[Address, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._watch = Watch(self.terms)
        self._workers = self.terms.workers

    def handle(self, event: Event) -> list[Command]:
        """What to do now that `event` has happened."""
        if self.state is State.OVER:
            return []
        return list(self._handle(event))

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
            case Checkpointed(done=done, manifest=manifest):
                self._resume_from = manifest
                self._watch.saving_took(done.seconds)
                yield Record("checkpointed", {"step": done.step, "bytes": done.size_bytes, "seconds": done.seconds})
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
                yield from self._on_cancel(event.now)
            case Tick():
                yield from self._on_tick(event)

    # Generations

    def _on_started(self, event: Started) -> Iterator[Command]:
        self._started_at, self._course.step = event.now, event.step
        self._launched, self._resume_from = event.first_generation - 1, event.resume_from
        if self.terms.budget_usd is not None and event.spent_usd >= self.terms.budget_usd:
            yield from self._finish("stopped", "budget")
        else:
            yield from self._launch_current(event.now)

    def _launch_current(self, now: float) -> Iterator[Command]:
        if not self._can_pay(self._workers):
            yield from self._finish("stopped", "budget")
            return
        self._launched += 1
        self._current = Generation.launched(self._launched, self._workers, now)
        yield from self._launch(self._current.members)
        yield from self._enter(State.STARTING)

    def _launch_next(self, now: float, reason: str) -> Iterator[Command]:
        """Let another generation make ready, while this one goes on."""
        self._launched += 1
        self._next = Generation.launched(self._launched, self._workers, now)
        yield from self._enter(State.HANDING_OVER)
        yield Record("hand_over", {"generation": self._launched, "workers": self._workers, "reason": reason})
        yield from self._launch(self._next.members)

    def _launch(self, members: list[Member]) -> Iterator[Command]:
        for member in members:
            yield Record("launched", vars(member.address))
        for member in members:
            workers = self._generation_of(member.address).workers
            yield Launch(member.address, workers)

    def _drop_next(self) -> Iterator[Command]:
        if self._next:
            yield from (Kill(member.address) for member in self._next.members if not member.is_gone)
            self._next = None

    def _open_round(self) -> Iterator[Command]:
        current = self._current
        opened = current.opened(self._resume_from)
        for member in current.members:
            member.beat = None  # what it was doing it does no more
        yield Record(
            "round_opened",
            {
                "generation": current.number,
                "round": opened.number,
                "workers": current.workers,
                "step": self._course.step,
            },
        )
        yield from self._enter(State.HANDING_OVER if self._next else State.RUNNING)
        yield OpenRound(opened)

    def _generation_over(self, now: float) -> Iterator[Command]:
        """Every rank of the current generation has left, or is gone after another has left."""
        words = [member.left for member in self._current.members if member.left]
        first = self._current.members[0].left
        if any(word.reason in ("goal", "target") for word in words):
            if first:
                yield from self._finish("succeeded", first.reason, left=first)
                return
            # Rank 0 was lost before it could say what came out; the state is saved, so another one will.
        elif self._ending:
            yield from self._finish(self._ending.status, self._ending.reason, left=first)
            return
        self._wished = ""
        if self._next is None:
            yield from self._launch_current(now)
            return
        self._current, self._next = self._next, None
        if self._current.is_ready:
            yield from self._open_round()
        else:
            yield from self._enter(State.STARTING)

    # What workers say

    def _on_ready(self, event: WorkerReady) -> Iterator[Command]:
        member, ready = self._member(event.address), event.ready
        if member is None:
            return
        first, member.ready, member.heard_at = member.ready is None, ready, event.now
        if first:
            self._watch.start_took(event.now - member.launched_at)
            yield Record(
                "ready",
                {
                    **vars(event.address),
                    "examples": ready.shape.examples,
                    "parameters": ready.shape.parameters,
                    "total_steps": ready.total_steps,
                    "fingerprint": ready.shape.fingerprint,
                    "seconds": event.now - member.launched_at,
                },
            )
            self._watch.evaluates(ready.shape.eval_examples)
            self._total_steps = ready.total_steps
        if self._wished == "now":
            return
        generation = self._generation_of(event.address)
        if generation is self._current:
            if generation.is_ready and ready.after_round in (-1, generation.round):
                yield from self._open_round()
        elif generation.is_ready and not self._wished:
            yield from self._wish("hand over")

    def _on_steps(self, event: StepsDone) -> Iterator[Command]:
        if event.address.generation != self._current.number or self._member(event.address) is None:
            return
        course, before = self._course, replace(self._course)
        known = course.note(event.address.rank, event.steps)
        if not known:
            return
        self._watch.steps_took(known)
        if known[0].step < before.step:
            yield Record("rolled_back", {"step": known[0].step})
        if before.generation and before.generation != event.address.generation:
            stall_s = known[0].ended - known[0].seconds - before.ended
            yield Record("handed_over", {"generation": event.address.generation, "stall_s": stall_s})
        course.generation, course.ended = event.address.generation, known[-1].ended
        yield Record("steps", {"generation": event.address.generation, "items": [vars(record) for record in known]})

    def _on_left(self, event: WorkerLeft) -> Iterator[Command]:
        member = self._member(event.address)
        if member is None:
            return
        generation, reason = self._generation_of(event.address), event.left.reason
        if reason not in ("goal", "target", "ended") and not self._ending:
            yield from self._lose(event.now, member, f"it left: {reason}")
            return
        member.left = event.left
        if self._ending and self._ending.failure:
            return  # the functions' exits decide when it is over
        if generation is self._current and generation.is_over:
            yield from self._generation_over(event.now)

    def _on_failed(self, event: WorkerFailed) -> Iterator[Command]:
        member, failure = self._member(event.address), event.failure
        if member is None or (self._ending and self._ending.failure):
            return
        if failure.kind in PASSING and self._ending is None:
            yield from self._lose(event.now, member, f"{failure.message} ({failure.hint})")
            return
        member.is_gone = True
        yield Record("failed", {"rank": event.address.rank, **vars(failure)})
        yield from self._stop_at_once(event.now, _Ending("failed", failure.kind, failure))

    # Losing a rank

    def _on_exited(self, event: WorkerExited) -> Iterator[Command]:
        member = self._member(event.address)
        if member is None:
            return
        known, member.is_gone = member.is_gone, True
        yield Record("exited", {**vars(event.address), "detail": event.detail})
        if member.left is None and not known:
            yield from self._lose(event.now, member, event.detail or "it returned without a word")
        yield from self._finish_if_all_gone()

    def _lose(self, now: float, member: Member, how: str) -> Iterator[Command]:
        """A rank is lost: replace it, unless its generation is over anyway."""
        was_gone, member.is_gone = member.is_gone, True
        generation, address = self._generation_of(member.address), member.address
        if not was_gone:
            yield Kill(address)
        yield Record("lost", {**vars(address), "step": self._course.step, "detail": how})
        if self._ending:
            if self._wished != "now":  # without it the others come to no agreed step
                yield from self._stop_at_once(now, self._ending)
        elif generation.is_leaving:
            if generation is self._current and generation.is_over:
                yield from self._generation_over(now)
        elif self._is_hopeless():
            message = f"rank {address.rank} was lost at step {self._course.step}: {how}"
            if self._losses > 1:
                message += f"; {self._losses} losses without a step in between"
            failure = Failure("JobFailed", message, self._go_on, "")
            yield Record("failed", {"rank": address.rank, **vars(failure)})
            yield from self._stop_at_once(now, _Ending("failed", "worker lost", failure))
        elif not self._can_pay(1):
            yield from self._stop_at_once(now, _Ending("stopped", "budget"))
        else:
            yield from self._launch([generation.relaunched(address.rank, now)])
            if generation is self._current and generation.is_open:
                yield from self._enter(State.RECOVERING)

    def _is_hopeless(self) -> bool:
        """Count a loss; whether there were too many without a step in between."""
        if self._course.step != self._lost_at_step:
            self._losses, self._lost_at_step = 0, self._course.step
        self._losses += 1
        return self._losses > self.terms.max_losses

    def _on_launch_failed(self, event: LaunchFailed) -> Iterator[Command]:
        """The platform refuses: try again, a little later each time, as long as a start may take."""
        member = self._member(event.address)
        if member is None or self._ending:
            return
        wait_s = 2 * self._refused.get(event.address, (0.0, 0.5))[1]
        if event.now + wait_s - member.launched_at > self.terms.start_deadline_s:
            failure = Failure(
                "CloudError", f"rank {event.address.rank} could not be launched: {event.detail}", self._go_on, ""
            )
            yield Record("failed", {"rank": event.address.rank, **vars(failure)})
            yield from self._stop_at_once(event.now, _Ending("failed", "launch failed", failure))
            return
        self._refused[event.address] = (event.now + wait_s, wait_s)
        yield Record("launch_failed", {**vars(event.address), "detail": event.detail, "again_in_s": wait_s})

    def _relaunch_refused(self, now: float) -> Iterator[Command]:
        for address, (due, _) in list(self._refused.items()):
            if self._member(address) is None:
                del self._refused[address]
            elif now >= due:
                self._refused[address] = (float("inf"), self._refused[address][1])
                yield Launch(address, self._generation_of(address).workers)

    # Time and money

    def _on_tick(self, event: Tick) -> Iterator[Command]:
        now = event.now
        self._committed_usd, self._worker_usd = event.committed_usd, event.worker_usd
        generations = [self._current, *([self._next] if self._next else [])]
        if event.blind:
            self._watch.was_blind(generations, now)
        if self._ending:
            yield from self._hasten(now, self._ending)
            return
        limit = self._limit_reached(event)
        if limit:
            yield from self._stop_softly(now, "stopped", limit)
            return
        yield from self._relaunch_refused(now)
        for generation in generations:
            for member, how in self._watch.lost(generation, now):
                if self._ending is None:
                    yield from self._lose(now, member, how)
        if self._ending:
            return
        if self._watch.is_stalled(self._current, now):
            yield Record("stalled", {"generation": self._current.number, "round": self._current.round})
            yield from self._open_round()
        yield from self._mind_time_limit(now)

    def _mind_time_limit(self, now: float) -> Iterator[Command]:
        """Before the platform ends the functions: make the next generation ready, then end this one."""
        if self.terms.time_limit_s is None or self._wished or not self._current.is_open:
            return
        left_s = self._current.launched_at + self.terms.time_limit_s - now
        if self.stopping_s > self.terms.time_limit_s:
            failure = Failure(
                "ConfigError",
                f"a function may live {self.terms.time_limit_s:.0f} s here, and ending one in order takes "
                f"{self.stopping_s:.0f} s: {self.terms.exchange_every + 1} steps and writing the state",
                "choose a longer function time limit, a smaller [job].global_batch or a shorter [sync].period",
                "",
            )
            yield Record("failed", {"rank": 0, **vars(failure)})
            yield from self._stop_at_once(now, _Ending("failed", "time limit too short", failure))
        elif left_s <= self.stopping_s:
            yield from self._wish("time limit")
        elif left_s <= self.stopping_s + self._lead_s and self._may_overlap() and not self._ends_within(left_s):
            yield from self._launch_next(now, "time limit")

    @property
    def _lead_s(self) -> float:
        """How long ahead the next generation is launched; not so long that hardly a step is made in between."""
        return min(START_MARGIN * self._watch.start_s, (self.terms.time_limit_s or 0.0) / 2)

    def _ends_within(self, seconds: float) -> bool:
        """Whether the job's last step comes so soon that no other generation is needed."""
        left = self._total_steps - self._course.step
        return left * self._course.seconds + self.stopping_s < seconds

    def _may_overlap(self) -> bool:
        """Whether a second generation may live beside the current one."""
        fits = self._current.workers + self._workers <= self.terms.max_workers
        return self._next is None and fits and self._can_pay(self._workers)

    def _can_pay(self, functions: int) -> bool:
        """Whether so many functions more can be started, and stopped cleanly, within the budget."""
        if self.terms.budget_usd is None:
            return True
        return self._committed_usd + functions * self._worker_usd <= self.terms.budget_usd

    def _limit_reached(self, event: Tick) -> str:
        terms = self.terms
        if terms.deadline_s is not None and event.now - self._started_at > terms.deadline_s - self.stopping_s:
            return "deadline"
        if terms.budget_usd is not None and event.committed_usd >= terms.budget_usd:
            return "budget"
        return ""

    @property
    def stopping_s(self) -> float:
        """Time to end at an agreed step: the step in hand, those to the next exchange, and writing the state."""
        return self._watch.saving_s + (self.terms.exchange_every + 1) * self._course.seconds

    # Wishes and endings

    def _on_scale(self, event: ScaleRequested) -> Iterator[Command]:
        """Another number of workers, by the same door as a hand-over."""
        if self._ending or not 1 <= event.workers <= self.terms.max_workers or event.workers == self._workers:
            return
        self._workers = event.workers
        yield Record("scale", {"workers": event.workers})
        yield from self._drop_next()
        if self._wished or not self._current.is_open:
            return  # a generation that has not begun is kept; the one after it has the new number
        if self._may_overlap():
            yield from self._launch_next(event.now, "scale")
        else:
            yield from self._wish("scale")

    def _on_cancel(self, now: float) -> Iterator[Command]:
        if self._ending is None:
            yield from self._stop_softly(now, "cancelled", "cancelled")
        else:
            yield from self._stop_at_once(now, self._ending)

    def _wish(self, reason: str) -> Iterator[Command]:
        """Ask the current generation to end at an agreed step."""
        self._wished = reason
        if not self._ending:
            yield from self._enter(State.HANDING_OVER)
        yield Record("wish", {"reason": reason})
        yield Wish(reason)

    def _hasten(self, now: float, ending: _Ending) -> Iterator[Command]:
        """Be less gentle with who does not end in time: a limit is a wall, a user may ask again."""
        waited_s = now - ending.since
        if self._wished == "now":
            if waited_s > self.terms.leave_s:
                yield from self._kill()
        elif ending.reason in LIMITS and waited_s > 2 * self.stopping_s + self.terms.leave_s:
            yield from self._stop_at_once(now, ending)

    @property
    def _go_on(self) -> str:
        return GO_ON if self._resume_from else BEGIN_AGAIN

    def _stop_softly(self, now: float, status: str, reason: str) -> Iterator[Command]:
        """End at an agreed step, with a checkpoint; at once where no step is being computed."""
        ending = _Ending(status, reason, since=now)
        if self.state not in (State.RUNNING, State.HANDING_OVER):
            yield from self._stop_at_once(now, ending)
            return
        self._ending = ending
        yield from self._drop_next()
        yield from self._enter(State.STOPPING)
        yield from self._wish(reason)

    def _stop_at_once(self, now: float, ending: _Ending) -> Iterator[Command]:
        ending.since = now
        self._ending = ending
        yield from self._drop_next()
        if self._wished != "now":
            self._wished = "now"
            yield from self._enter(State.STOPPING)
            yield StopWorkers()
        else:
            yield from self._kill()
        yield from self._finish_if_all_gone()

    def _kill(self) -> Iterator[Command]:
        if not self._killed:
            self._killed = True
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

    def _enter(self, state: State) -> Iterator[Command]:
        if self.state is not state:
            self.state = state
            yield Record("state", {"state": state.value})

    def _generation_of(self, address: Address) -> Generation:
        return self._next if self._next and address.generation == self._next.number else self._current

    def _member(self, address: Address) -> Member | None:
        """Who this is, if it is the newest incarnation of a rank of a living generation, and not given up."""
        generation = self._generation_of(address)
        if generation.number != address.generation or address.rank >= generation.workers:
            return None
        member = generation.members[address.rank]
        return member if member.address == address else None

"""The run's pure state machine: events in, commands out. No clock, no I/O; the engine and the simulator drive it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from smlt.core.errors import ProtocolError
from smlt.core.messages import Failure, Left, Ready, Round
from smlt.core.run_events import (
    CancelRequested,
    Checkpointed,
    Command,
    EvaluationDone,
    Event,
    Finish,
    KillWorkers,
    Launch,
    OpenRound,
    Record,
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

GO_ON = "the last checkpoint is kept: run the same command with the same --name to go on"
"""The hint where a run failed for no fault of the task's."""
BEGIN_AGAIN = "no checkpoint was written yet: run the same command with the same --name to begin again"
"""The same where there is nothing to go on from."""

LIMITS = ("deadline", "budget")
"""Reasons to stop that are the user's limits."""


class State(Enum):
    """Where the run is."""

    PLANNING = "planning"
    STARTING = "starting"
    RUNNING = "running"
    HANDING_OVER = "handing_over"
    STOPPING = "stopping"
    OVER = "over"


@dataclass
class _Rank:
    """What is known of one rank of the living generation."""

    launched_at: float
    ready: Ready | None = None
    left: Left | None = None
    gone: bool = False


@dataclass
class _Ending:
    """Why the run is being stopped, and what will be said of it."""

    status: str
    reason: str
    failure: Failure | None = None
    since: float = 0.0


@dataclass
class Controller:
    """The machine of one run.

    Args:
        terms: what it holds the run to.
    """

    terms: Terms
    state: State = State.PLANNING
    _generation: int = 0
    _ranks: dict[int, _Rank] = field(default_factory=dict)
    _resume_from: str = ""
    _step: int = 0
    _step_s: float = 0.0
    _started_at: float = 0.0
    _wished: str = ""
    _ending: _Ending | None = None
    _killed: bool = False

    def handle(self, event: Event) -> list[Command]:
        """What to do now that `event` has happened."""
        if self.state is State.OVER:
            return []
        return list(self._handle(event))

    def _handle(self, event: Event) -> Iterator[Command]:
        match event:
            case Started():
                self._started_at, self._step = event.now, event.step
                self._generation, self._resume_from = event.first_generation - 1, event.resume_from
                if self.terms.budget_usd is not None and event.spent_usd >= self.terms.budget_usd:
                    yield from self._finish("stopped", "budget")
                else:
                    yield from self._launch_generation(event.now)
            case WorkerReady():
                yield from self._on_ready(event)
            case StepsDone():
                yield from self._on_steps(event)
            case EvaluationDone(evaluation=done):
                yield Record("evaluated", vars(done))
            case Checkpointed(done=done, manifest=manifest):
                self._resume_from = manifest
                yield Record("checkpointed", {"step": done.step, "bytes": done.size_bytes, "seconds": done.seconds})
            case WorkerLeft():
                yield from self._on_left(event)
            case WorkerFailed():
                yield from self._on_failed(event)
            case WorkerExited():
                yield from self._on_exited(event)
            case CancelRequested():
                yield from self._on_cancel(event.now)
            case Tick():
                yield from self._on_tick(event)

    def _launch_generation(self, now: float) -> Iterator[Command]:
        self._generation += 1
        self._wished = ""
        self._ranks = {rank: _Rank(launched_at=now) for rank in range(self.terms.workers)}
        for rank in self._ranks:
            yield Record("launched", {"generation": self._generation, "rank": rank, "incarnation": 0})
        for rank in self._ranks:
            yield Launch(self._generation, rank, 0, self._resume_from)
        yield from self._enter(State.STARTING)

    def _on_ready(self, event: WorkerReady) -> Iterator[Command]:
        ready = event.ready
        self._ranks[event.rank].ready = ready
        yield Record(
            "ready",
            {
                "generation": self._generation,
                "rank": event.rank,
                "examples": ready.shape.examples,
                "parameters": ready.shape.parameters,
                "total_steps": ready.total_steps,
                "fingerprint": ready.shape.fingerprint,
                "seconds": event.now - self._ranks[event.rank].launched_at,
            },
        )
        members = [rank.ready.uuid for rank in self._ranks.values() if rank.ready]
        if len(members) < self.terms.workers or self._ending:
            return
        yield Record(
            "round_opened",
            {"generation": self._generation, "round": 0, "workers": len(members), "step": ready.step},
        )
        yield from self._enter(State.RUNNING)
        yield OpenRound(Round(self._generation, 0, tuple(members)))

    def _on_steps(self, event: StepsDone) -> Iterator[Command]:
        if event.rank != 0:
            return
        self._step = event.steps[-1].step + 1
        self._step_s = max(record.seconds for record in event.steps)
        yield Record("steps", {"generation": self._generation, "items": [vars(record) for record in event.steps]})

    def _on_left(self, event: WorkerLeft) -> Iterator[Command]:
        self._ranks[event.rank].left = event.left
        if any(rank.left is None for rank in self._ranks.values()):
            return
        word = self._ranks[0].left
        if word is None:
            raise ProtocolError("a generation without rank 0 has left")
        if self._ending and self._ending.failure:
            return  # the functions' exits decide when it is over
        if word.reason in ("goal", "target"):
            yield from self._finish("succeeded", word.reason, left=word)
        elif self._ending:
            yield from self._finish(self._ending.status, self._ending.reason, left=word)
        elif word.reason == "ended":
            yield from self._launch_generation(event.now)
        else:
            failure = Failure("JobFailed", f"the workers left: {word.reason}", self._go_on, "")
            yield from self._finish("failed", word.reason, failure=failure)

    def _on_failed(self, event: WorkerFailed) -> Iterator[Command]:
        self._ranks[event.rank].gone = True
        if self._ending and self._ending.failure:
            return
        failure = event.failure
        yield Record("failed", {"rank": event.rank, **vars(failure)})
        yield from self._stop_at_once(event.now, _Ending("failed", failure.kind, failure))

    def _on_exited(self, event: WorkerExited) -> Iterator[Command]:
        if event.generation != self._generation:
            return
        rank = self._ranks[event.rank]
        if rank.gone and self._ending is None:
            return
        known = rank.gone
        rank.gone = True
        yield Record("exited", {"generation": event.generation, "rank": event.rank, "detail": event.detail})
        if rank.left is None and not known and self._ending is None:
            how = event.detail or "it returned without a word"
            failure = Failure(
                "JobFailed",
                f"rank {event.rank} was lost at step {self._step}: {how}",
                self._go_on,
                "",
            )
            yield Record("failed", {"rank": event.rank, **vars(failure)})
            yield from self._stop_at_once(event.now, _Ending("failed", "worker lost", failure))
        elif rank.left is None and self._ending and self._wished != "now":
            yield from self._stop_at_once(event.now, self._ending)  # without it the others come to no agreed step
        yield from self._finish_if_all_gone()

    def _on_cancel(self, now: float) -> Iterator[Command]:
        if self._ending is None:
            yield from self._stop_softly(now, "cancelled", "cancelled")
        else:
            yield from self._stop_at_once(now, self._ending)

    def _on_tick(self, event: Tick) -> Iterator[Command]:
        if self._ending:
            yield from self._hasten(event.now, self._ending)
            return
        late = [
            rank
            for rank, known in self._ranks.items()
            if known.ready is None and event.now - known.launched_at > self.terms.start_deadline_s
        ]
        if late:
            failure = Failure(
                "JobFailed",
                f"rank {late[0]} did not start within {self.terms.start_deadline_s:.0f} s",
                "is the machine or the platform overloaded? try fewer workers",
                "",
            )
            yield Record("failed", {"rank": late[0], **vars(failure)})
            yield from self._stop_at_once(event.now, _Ending("failed", "worker did not start", failure))
            return
        limit = self._limit_reached(event)
        if limit:
            yield from self._stop_softly(event.now, "stopped", limit)
        elif self.state is State.RUNNING and not self._wished and self._time_is_up(event.now):
            self._wished = "time limit"
            yield from self._enter(State.HANDING_OVER)
            yield Record("wish", {"reason": "time limit"})
            yield Wish("time limit")

    def _hasten(self, now: float, ending: _Ending) -> Iterator[Command]:
        """Be less gentle with who does not end in time: a limit is a wall, a user may ask again."""
        waited_s = now - ending.since
        if self._wished == "now":
            if waited_s > self.terms.leave_s:
                yield from self._kill()
        elif ending.reason in LIMITS and waited_s > 2 * self.stopping_s + self.terms.leave_s:
            yield from self._stop_at_once(now, ending)

    def _limit_reached(self, event: Tick) -> str:
        terms, margin = self.terms, self.stopping_s
        if terms.deadline_s is not None and event.now - self._started_at > terms.deadline_s - margin:
            return "deadline"
        if terms.budget_usd is not None and event.committed_usd >= terms.budget_usd:
            return "budget"
        return ""

    def _time_is_up(self, now: float) -> bool:
        if self.terms.time_limit_s is None:
            return False
        first = min(rank.launched_at for rank in self._ranks.values())
        return now - first > self.terms.time_limit_s - self.stopping_s

    @property
    def _go_on(self) -> str:
        return GO_ON if self._resume_from else BEGIN_AGAIN

    @property
    def stopping_s(self) -> float:
        """Time to end at an agreed step: the step in hand, the one that announces, and writing the state."""
        return self.terms.state_write_s + 2 * self._step_s

    def _stop_softly(self, now: float, status: str, reason: str) -> Iterator[Command]:
        """End at an agreed step, with a checkpoint; at once where no step is being computed."""
        ending = _Ending(status, reason, since=now)
        if self.state not in (State.RUNNING, State.HANDING_OVER):
            yield from self._stop_at_once(now, ending)
            return
        self._ending = ending
        self._wished = reason
        yield from self._enter(State.STOPPING)
        yield Record("wish", {"reason": reason})
        yield Wish(reason)

    def _stop_at_once(self, now: float, ending: _Ending) -> Iterator[Command]:
        ending.since = now
        self._ending = ending
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
        if self._ending and all(rank.gone for rank in self._ranks.values()):
            yield from self._finish(self._ending.status, self._ending.reason, failure=self._ending.failure)

    def _finish(
        self, status: str, reason: str, left: Left | None = None, failure: Failure | None = None
    ) -> Iterator[Command]:
        if self.state is not State.OVER:
            self.state = State.OVER
            yield Finish(status, reason, left, failure)

    def _enter(self, state: State) -> Iterator[Command]:
        if self.state is not state:
            self.state = state
            yield Record("state", {"state": state.value})

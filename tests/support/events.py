"""What a controller is told in tests, short."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from smlt.core import run_events
from smlt.core.controller import Controller
from smlt.core.messages import CheckpointDone, Evaluation, Failure, Left, Ready, StepRecord
from smlt.core.run_events import Command, Event, Terms
from smlt.core.task import TaskShape

SHAPE = TaskShape(100, 20, 7, ())
TERMS = Terms(workers=2, deadline_s=None, budget_usd=None, time_limit_s=None, start_deadline_s=60.0)
FAILURE = Failure("TaskError", "it broke", "mend it", "Traceback …")


class Desk:
    """A controller, the clock of its events, and everything it has said."""

    def __init__(self, **terms: Any) -> None:
        self.terms = replace(TERMS, **terms)
        self.machine = Controller(self.terms)
        self.now = 1000.0
        self.said: list[Command] = []

    def tell(self, event: Event) -> list[Command]:
        """What it wants done; `Record`s are left out, see `said`."""
        commands = self.machine.handle(event)
        self.said += commands
        return [command for command in commands if not isinstance(command, run_events.Record)]

    def records(self, kind: str) -> list[dict[str, Any]]:
        return [
            command.data for command in self.said if isinstance(command, run_events.Record) and command.kind == kind
        ]

    @property
    def state(self) -> str:
        return self.machine.state.value

    def start(self, *, generation: int = 1, resume_from: str = "", step: int = 0) -> list[Command]:
        return self.tell(run_events.Started(self.now, generation, resume_from, step))

    def run(self) -> list[Command]:
        """Start, and let all ranks be ready."""
        self.start()
        return self.all_ready()

    def ready(self, rank: int, step: int = 0) -> list[Command]:
        return self.tell(run_events.WorkerReady(self.now, rank, Ready(f"uuid-{rank}", SHAPE, 50, step)))

    def all_ready(self, step: int = 0) -> list[Command]:
        return [command for rank in range(self.terms.workers) for command in self.ready(rank, step)]

    def steps(self, *steps: int, rank: int = 0, seconds: float = 0.1) -> list[Command]:
        records = tuple(StepRecord(step, 0, 0.5, 8, seconds, 0.0, 0.0, 0.0) for step in steps)
        return self.tell(run_events.StepsDone(rank, records))

    def evaluated(self, step: int) -> list[Command]:
        return self.tell(run_events.EvaluationDone(Evaluation(step, 0, {"mse": 0.1}, 0.2)))

    def checkpointed(self, step: int) -> list[Command]:
        return self.tell(run_events.Checkpointed(CheckpointDone(step, 100, 0.1), f"checkpoints/{step}/manifest"))

    def left(self, rank: int, reason: str, step: int = 0) -> list[Command]:
        return self.tell(run_events.WorkerLeft(self.now, rank, Left(reason, step)))

    def all_leave(self, reason: str, step: int = 0) -> list[Command]:
        return [command for rank in range(self.terms.workers) for command in self.left(rank, reason, step)]

    def failed(self, rank: int, failure: Failure = FAILURE) -> list[Command]:
        return self.tell(run_events.WorkerFailed(self.now, rank, failure))

    def exited(self, rank: int, generation: int = 1, *, lost: bool = False, detail: str = "") -> list[Command]:
        return self.tell(run_events.WorkerExited(self.now, rank, generation, lost, detail))

    def all_exit(self, generation: int = 1) -> list[Command]:
        return [command for rank in range(self.terms.workers) for command in self.exited(rank, generation)]

    def cancel(self) -> list[Command]:
        return self.tell(run_events.CancelRequested(self.now))

    def tick(self, seconds: float = 0.0, usd: float = 0.0) -> list[Command]:
        self.now += seconds
        return self.tell(run_events.Tick(self.now, usd))


def launches(generation: int, workers: int, resume_from: str = "") -> Sequence[Command]:
    return [run_events.Launch(generation, rank, 0, resume_from) for rank in range(workers)]

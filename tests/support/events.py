"""What a controller is told in tests, short."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from smlt.core import run_events
from smlt.core.controller import Controller
from smlt.core.messages import CheckpointDone, Evaluation, Failure, Left, Ready, Round, StepRecord
from smlt.core.run_events import Address, Command, Event, Terms
from smlt.core.task import TaskShape

SHAPE = TaskShape(100, 20, 7, ())
MEMORY_MIB = 1024
TERMS = Terms(
    workers=2, memory_mib=MEMORY_MIB, max_workers=8, deadline_s=None, budget_usd=None, time_limit_s=None,
    start_deadline_s=60.0, memory_choices_mib=(MEMORY_MIB, 2048, 4096, 5120),
)  # fmt: skip
FAILURE = Failure("TaskError", "it broke", "mend it", "Traceback …")
PASSING = Failure("ChannelError", "the channel closed", "", "Traceback …")
TOTAL_STEPS = 100_000


class Desk:
    """A controller, the clock of its events, and everything it has said.

    A rank's events come from its newest incarnation in the generation that is training, unless a test says otherwise.
    """

    def __init__(self, **terms: Any) -> None:
        self.terms = replace(TERMS, **terms)
        self.machine = Controller(self.terms)
        self.now = 1000.0
        self.usd = self.worker_usd = self.larger_worker_usd = 0.0
        self.generation = 0
        self.launched: dict[tuple[int, int], run_events.Launch] = {}
        self.said: list[Command] = []

    def tell(self, event: Event) -> list[Command]:
        """What it wants done; `Record`s are left out, see `said`."""
        commands = self.machine.handle(event)
        self.said += commands
        for command in commands:
            if isinstance(command, run_events.Launch):
                self.launched[command.address.generation, command.address.rank] = command
            if isinstance(command, run_events.OpenRound):
                self.generation = command.round.generation
        if self.state == "starting":
            self.generation = max(generation for generation, _ in self.launched)
        return [command for command in commands if not isinstance(command, run_events.Record)]

    def records(self, kind: str) -> list[dict[str, Any]]:
        return [
            command.data for command in self.said if isinstance(command, run_events.Record) and command.kind == kind
        ]

    @property
    def state(self) -> str:
        return self.machine.state.value

    def address(self, rank: int, generation: int | None = None) -> Address:
        """Of the newest incarnation of a rank."""
        return self.launched[self.generation if generation is None else generation, rank].address

    def workers(self, generation: int | None = None) -> int:
        return self.launched[self.generation if generation is None else generation, 0].workers

    def start(self, *, generation: int = 1, resume_from: str = "", step: int = 0) -> list[Command]:
        return self.tell(
            run_events.Started(self.now, generation, resume_from, step, self.usd, self.worker_usd)
        )  # fmt: skip

    def run(self, start_s: float = 0.0) -> list[Command]:
        """Start, and let all ranks be ready after so long."""
        self.start()
        self.now += start_s
        return self.all_ready()

    def ready(self, rank: int, *, generation: int | None = None, after_round: int = -1) -> list[Command]:
        address = self.address(rank, generation)
        ready = Ready(uuid_of(address), SHAPE, TOTAL_STEPS, after_round)
        return self.tell(run_events.WorkerReady(self.now, address, ready))

    def all_ready(self, generation: int | None = None) -> list[Command]:
        chosen = self.generation if generation is None else generation
        ranks = range(self.workers(chosen))
        return [command for rank in ranks for command in self.ready(rank, generation=chosen)]

    def beat(
        self, rank: int, phase: str = "computing", phase_s: float = 0.0, *, step: int = 0, generation: int | None = None
    ) -> list[Command]:
        return self.tell(run_events.Beat(self.now, self.address(rank, generation), phase, step, -1, phase_s))

    def all_beat(self, phase: str = "computing", phase_s: float = 0.0) -> list[Command]:
        ranks = range(self.workers())
        return [command for rank in ranks for command in self.beat(rank, phase, phase_s)]

    def steps(
        self, *steps: int, rank: int = 0, seconds: float = 0.1, compute_s: float = 0.0, at: Address | None = None
    ) -> list[Command]:
        """Reported; step t ended at t times `seconds` by the worker's clock."""
        records = tuple(
            StepRecord(step, 0, 0.5, 8, seconds, compute_s, 0.0, 0.0, (step + 1) * seconds) for step in steps
        )
        return self.tell(run_events.StepsDone(at or self.address(rank), records))

    def evaluated(self, step: int, seconds: float = 0.2) -> list[Command]:
        return self.tell(run_events.EvaluationDone(Evaluation(step, 0, {"mse": 0.1}, seconds)))

    def checkpointed(self, step: int, seconds: float = 0.1, at: Address | None = None) -> list[Command]:
        done = CheckpointDone(step, 100, seconds)
        return self.tell(run_events.Checkpointed(done, f"checkpoints/{step}/manifest", at or self.address(0)))

    def left(
        self, rank: int, reason: str, step: int = 0, *, generation: int | None = None, round_number: int = -1
    ) -> list[Command]:
        left = Left(reason, step, round=round_number)
        return self.tell(run_events.WorkerLeft(self.now, self.address(rank, generation), left))

    def all_leave(self, reason: str, step: int = 0) -> list[Command]:
        generation = self.generation
        ranks = range(self.workers(generation))
        return [command for rank in ranks for command in self.left(rank, reason, step, generation=generation)]

    def failed(self, rank: int, failure: Failure = FAILURE, *, generation: int | None = None) -> list[Command]:
        return self.tell(run_events.WorkerFailed(self.now, self.address(rank, generation), failure))

    def exited(
        self,
        rank: int,
        generation: int | None = None,
        *,
        lost: bool = False,
        detail: str = "",
        out_of_memory: bool = False,
    ) -> list[Command]:
        address = self.address(rank, generation)
        return self.tell(run_events.WorkerExited(self.now, address, lost, detail, out_of_memory))

    def killed(self, rank: int, generation: int | None = None) -> list[Command]:
        return self.exited(rank, generation, lost=True, detail="killed by signal 9")

    def all_exit(self, generation: int | None = None) -> list[Command]:
        chosen = self.generation if generation is None else generation
        return [command for rank in range(self.workers(chosen)) for command in self.exited(rank, chosen)]

    def refused(self, rank: int, generation: int | None = None) -> list[Command]:
        return self.tell(
            run_events.LaunchFailed(self.now, self.address(rank, generation), "quota exceeded", "ask for more")
        )

    def scale(self, workers: int) -> list[Command]:
        return self.tell(run_events.ScaleRequested(self.now, workers))

    def cancel(self) -> list[Command]:
        return self.tell(run_events.CancelRequested(self.now))

    def tick(self, seconds: float = 0.0, usd: float = 0.0, *, blind: bool = False) -> list[Command]:
        """Time passes; `usd` is committed by now."""
        self.now += seconds
        return self.tell(
            run_events.Tick(self.now, usd, self.worker_usd, blind, larger_worker_usd=self.larger_worker_usd)
        )

    def live(self, seconds: float, usd: float = 0.0) -> list[Command]:
        """Time passes, and every rank of the generation that is training is heard of, computing."""
        self.now += seconds
        return [*self.all_beat(), *self.tick(0.0, usd)]


def uuid_of(address: Address) -> str:
    """Of the process that is this incarnation."""
    return f"uuid-{address.generation}.{address.rank}.{address.incarnation}"


def launches(generation: int, ranks: int, workers: int | None = None) -> Sequence[Command]:
    """Of the first ranks of a generation, which are all of its workers unless a test says otherwise."""
    return [run_events.Launch(Address(generation, rank), workers or ranks, MEMORY_MIB) for rank in range(ranks)]


def relaunch(generation: int, rank: int, incarnation: int, workers: int = 2, memory_mib: int = MEMORY_MIB) -> Command:
    return run_events.Launch(Address(generation, rank, incarnation), workers, memory_mib)


def opened(
    generation: int, number: int, incarnations: Sequence[int] = (0, 0), resume_from: str = ""
) -> Command:  # fmt: skip
    """A round of as many ranks as `incarnations` are given, by rank."""
    members = (uuid_of(Address(generation, rank, incarnation)) for rank, incarnation in enumerate(incarnations))
    return run_events.OpenRound(Round(generation, number, tuple(members), resume_from))


def running(workers: int = 2, steps: int = 3, **terms: float) -> Desk:
    """A run that has made some steps of 0.1 s, told by all ranks."""
    desk = Desk(workers=workers, **terms)
    desk.run()
    for rank in reversed(range(workers)):
        desk.steps(*range(steps), rank=rank)
    return desk


def failure_of(finishes: Sequence[Command]) -> Failure:
    """What the run failed of."""
    (finish,) = finishes
    assert isinstance(finish, run_events.Finish)
    assert finish.status == "failed"
    assert finish.failure is not None
    return finish.failure

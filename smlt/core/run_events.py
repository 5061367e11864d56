"""What a run's controller is told, what it answers, and the terms it holds the run to: frozen data, no behaviour."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from smlt.core.lease import LEAVE_S
from smlt.core.messages import CheckpointDone, Evaluation, Failure, Left, Ready, Round, StepRecord


@dataclass(frozen=True, order=True)
class Address:
    """A function: which incarnation of which rank of which generation."""

    generation: int
    rank: int
    incarnation: int = 0

    @property
    def label(self) -> str:
        """As in `smlt.core.backend.RankSpec.label`."""
        return f"{self.generation}.{self.rank}.{self.incarnation}"


@dataclass(frozen=True)
class Terms:
    """What the controller holds a run to.

    Attributes:
        workers: ranks of the first generation.
        memory_mib: of each function, until that does not suffice.
        max_workers: functions that may live at once.
        deadline_s: seconds from the start to the moment when the run must have stopped; None for no deadline.
        budget_usd: money the run may commit; None for no limit.
        time_limit_s: seconds that a function may live; None for no limit.
        start_deadline_s: a function that is not READY by then has not started.
        leave_s: how long workers may take to leave once told to do so at once.
        state_write_s: the least time set aside for writing the state before a limit.
        silence_s: a worker that has not been heard of for so long is lost.
        stuck_s: the least time in which a rank that all others wait for must come to something else.
        slow_phase_s: the same for evaluating, saving and loading, which take as long as they take.
        exchange_every: steps from one moment when a generation can end to the next.
        largest_batch: examples of the largest step to come; 0 where nobody knows.
        start_s: a first guess of how long a function takes to be READY.
        max_ranks: a generation can have so many ranks: each needs an example of every step; None for `max_workers`.
        max_losses: a rank that is lost more often without progress fails the run.
        memory_choices_mib: sizes of a function on offer, ascending; empty where a larger one has no more memory.
        has_private: whether ranks have PRIVATE state, which only a checkpoint hands on.
    """

    workers: int
    memory_mib: int
    max_workers: int
    deadline_s: float | None
    budget_usd: float | None
    time_limit_s: float | None
    start_deadline_s: float
    leave_s: float = LEAVE_S
    state_write_s: float = 2.0
    silence_s: float = 5.0
    stuck_s: float = 5.0
    slow_phase_s: float = 60.0
    exchange_every: int = 1
    largest_batch: int = 0
    start_s: float = 5.0
    max_losses: int = 3
    max_ranks: int | None = None
    memory_choices_mib: tuple[int, ...] = ()
    has_private: bool = False


# Events: what happened. `now` is seconds by one clock that never goes back.


@dataclass(frozen=True)
class Adopted:
    """A round of a controller that is gone, whose functions go on with this one.

    Attributes:
        round: that is open.
        wish: that stands; empty for none.
        incarnations: by rank, the one in the round, or the newest where that one is lost.
        newest: by rank, the newest that was launched: a later one than that in the round was to take its place.
        launched_at: by rank, when that was, by the clock of all events.
        memory_mib: by rank, with how much.
        lost: ranks whose newest incarnation is not in the round: they were being replaced.
        total_steps, eval_examples: of the job.
    """

    round: Round
    wish: str
    incarnations: tuple[int, ...]
    newest: tuple[int, ...]
    launched_at: tuple[float, ...]
    memory_mib: tuple[int, ...]
    lost: tuple[int, ...]
    total_steps: int
    eval_examples: int

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Of all ranks."""
        return self._addresses(self.incarnations)

    @property
    def heirs(self) -> tuple[Address, ...]:
        """Of functions that are to be ended: nobody waits for them any more."""
        return tuple(heir for heir in self._addresses(self.newest) if heir not in self.addresses)

    def _addresses(self, incarnations: tuple[int, ...]) -> tuple[Address, ...]:
        return tuple(Address(self.round.generation, rank, number) for rank, number in enumerate(incarnations))


@dataclass(frozen=True)
class Started:
    """The run begins, or goes on.

    Attributes:
        first_generation: number of the first generation of this session.
        resume_from: key of the manifest to go on from; empty for none.
        step: where that is.
        spent_usd: by earlier sessions; with `worker_usd` for each rank that is adopted, what is committed.
        worker_usd: what one function costs, started and stopped cleanly.
        adopted: what goes on from an earlier session; None where functions are to be launched.
    """

    now: float
    first_generation: int
    resume_from: str
    step: int
    spent_usd: float = 0.0
    worker_usd: float = 0.0
    adopted: Adopted | None = None


@dataclass(frozen=True)
class WorkerReady:
    """A rank has built its task and waits."""

    now: float
    address: Address
    ready: Ready


@dataclass(frozen=True)
class Beat:
    """A worker lives.

    Attributes:
        phase, step, awaits, phase_s: as in `smlt.core.messages.Mail`.
    """

    now: float
    address: Address
    phase: str
    step: int
    awaits: int = -1
    phase_s: float = 0.0


@dataclass(frozen=True)
class StepsDone:
    """A rank reports committed steps."""

    address: Address
    steps: tuple[StepRecord, ...]


@dataclass(frozen=True)
class EvaluationDone:
    """Rank 0 reports an evaluation."""

    evaluation: Evaluation


@dataclass(frozen=True)
class Checkpointed:
    """A checkpoint is complete; `manifest` is its key, `address` who says so."""

    done: CheckpointDone
    manifest: str
    address: Address | None = None


@dataclass(frozen=True)
class StateFound:
    """`FindState` has found the newest checkpoint that can be read; `manifest` is empty where there is none."""

    manifest: str


@dataclass(frozen=True)
class WorkerLeft:
    """A rank's last word; after an agreed end, `manifest` is the key of the checkpoint that all have seen to."""

    now: float
    address: Address
    left: Left
    manifest: str = ""


@dataclass(frozen=True)
class WorkerFailed:
    """A rank's last word is an error."""

    now: float
    address: Address
    failure: Failure


@dataclass(frozen=True)
class WorkerExited:
    """A function is over, as the platform sees it.

    Attributes:
        detail: says how if it was not by returning.
        out_of_memory: as in `smlt.core.backend.FunctionState`.
    """

    now: float
    address: Address
    lost: bool
    detail: str
    out_of_memory: bool = False


@dataclass(frozen=True)
class LaunchFailed:
    """The platform did not start a function; `detail` says why, `hint` how to mend it."""

    now: float
    address: Address
    detail: str
    hint: str = ""


@dataclass(frozen=True)
class ScaleRequested:
    """The user wants another number of workers; `order` is the number of the order to answer, if somebody waits."""

    now: float
    workers: int
    order: int | None = None


@dataclass(frozen=True)
class PlanChanged:
    """Another fleet is better for the rest of the run.

    Attributes:
        workers, memory_mib: of it.
        why: for the record.
    """

    now: float
    workers: int
    memory_mib: int
    why: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CancelRequested:
    """The user wants to stop; the second time, or where the user says so, at once. `order` as above."""

    now: float
    at_once: bool = False
    order: int | None = None


@dataclass(frozen=True)
class Tick:
    """Time has passed.

    Attributes:
        committed_usd: what is spent, and what stopping now would still cost.
        worker_usd: what one function more would add to that, started and stopped cleanly.
        blind: the run's store was out of reach since the last tick, so that nothing could be heard of anybody.
        leased_usd: what is spent, and what the functions could still spend by the next tick and their leases' end.
        larger_worker_usd: `worker_usd` of a function of the next larger size, if there is one.
    """

    now: float
    committed_usd: float
    worker_usd: float = 0.0
    blind: bool = False
    leased_usd: float = 0.0
    larger_worker_usd: float = 0.0


Event = (
    Started
    | WorkerReady
    | Beat
    | StepsDone
    | EvaluationDone
    | Checkpointed
    | StateFound
    | WorkerLeft
    | WorkerFailed
    | WorkerExited
    | LaunchFailed
    | ScaleRequested
    | PlanChanged
    | CancelRequested
    | Tick
)

# Commands: what to do.


@dataclass(frozen=True)
class Launch:
    """Start a function with so much memory; `workers` is the number of its generation's ranks."""

    address: Address
    workers: int
    memory_mib: int


@dataclass(frozen=True)
class OpenRound:
    """Tell all workers that this round is open."""

    round: Round


@dataclass(frozen=True)
class Wish:
    """Ask the generation to end at an agreed step."""

    reason: str


@dataclass(frozen=True)
class StopWorkers:
    """Tell all workers to leave at once."""


@dataclass(frozen=True)
class Kill:
    """End one function now, if it is still there."""

    address: Address


@dataclass(frozen=True)
class KillWorkers:
    """End the functions that are still there."""


@dataclass(frozen=True)
class FindState:
    """Look for the newest checkpoint that can be read, and tell by `StateFound`."""


@dataclass(frozen=True)
class Record:
    """Note something in the run log."""

    kind: str
    data: dict[str, Any]


@dataclass(frozen=True)
class Finish:
    """The run is over. `left` is rank 0's last word, `failure` what went wrong."""

    status: str
    stop_reason: str
    left: Left | None = None
    failure: Failure | None = None


Command = Launch | OpenRound | Wish | StopWorkers | Kill | KillWorkers | FindState | Record | Finish

"""What a run's controller is told, what it answers, and the terms it holds the run to: frozen data, no behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from smlt.core.messages import CheckpointDone, Evaluation, Failure, Left, Ready, Round, StepRecord


@dataclass(frozen=True)
class Terms:
    """What the controller holds a run to.

    Attributes:
        workers: ranks of a generation.
        deadline_s: seconds from the start to the moment when the run must have stopped; None for no deadline.
        budget_usd: money the run may commit; None for no limit.
        time_limit_s: seconds that a function may live; None for no limit.
        start_deadline_s: a function that is not READY by then has not started.
        leave_s: how long workers may take to leave once told to do so at once.
        state_write_s: time set aside for writing the state before a limit.
    """

    workers: int
    deadline_s: float | None
    budget_usd: float | None
    time_limit_s: float | None
    start_deadline_s: float
    leave_s: float = 5.0
    state_write_s: float = 2.0


# Events: what happened. `now` is seconds by one clock that never goes back.


@dataclass(frozen=True)
class Started:
    """The run begins, or goes on.

    Attributes:
        first_generation: number of the first generation of this session.
        resume_from: key of the manifest to go on from; empty for none.
        step: where that is.
        spent_usd: by earlier sessions.
    """

    now: float
    first_generation: int
    resume_from: str
    step: int
    spent_usd: float = 0.0


@dataclass(frozen=True)
class WorkerReady:
    """A rank has built its task and waits."""

    now: float
    rank: int
    ready: Ready


@dataclass(frozen=True)
class StepsDone:
    """A rank reports committed steps."""

    rank: int
    steps: tuple[StepRecord, ...]


@dataclass(frozen=True)
class EvaluationDone:
    """Rank 0 reports an evaluation."""

    evaluation: Evaluation


@dataclass(frozen=True)
class Checkpointed:
    """A checkpoint is complete; `manifest` is its key."""

    done: CheckpointDone
    manifest: str


@dataclass(frozen=True)
class WorkerLeft:
    """A rank's last word."""

    now: float
    rank: int
    left: Left


@dataclass(frozen=True)
class WorkerFailed:
    """A rank's last word is an error."""

    now: float
    rank: int
    failure: Failure


@dataclass(frozen=True)
class WorkerExited:
    """A function is over, as the platform sees it; `detail` says how if it was not by returning."""

    now: float
    rank: int
    generation: int
    lost: bool
    detail: str


@dataclass(frozen=True)
class CancelRequested:
    """The user wants to stop; the second time, at once."""

    now: float


@dataclass(frozen=True)
class Tick:
    """Time has passed; `committed_usd` is what is spent, and what stopping now would still cost."""

    now: float
    committed_usd: float


Event = (
    Started
    | WorkerReady
    | StepsDone
    | EvaluationDone
    | Checkpointed
    | WorkerLeft
    | WorkerFailed
    | WorkerExited
    | CancelRequested
    | Tick
)

# Commands: what to do.


@dataclass(frozen=True)
class Launch:
    """Start the function of a rank."""

    generation: int
    rank: int
    incarnation: int
    resume_from: str


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
class KillWorkers:
    """End the functions that are still there."""


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


Command = Launch | OpenRound | Wish | StopWorkers | KillWorkers | Record | Finish

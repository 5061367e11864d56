"""What workers and the controller say to each other through the run's object store."""

from __future__ import annotations

from dataclasses import dataclass, field

from smlt.core.task import TaskShape


@dataclass(frozen=True)
class Ready:
    """A worker has built its task and waits for a round.

    Attributes:
        uuid: of this process; a platform's retry of the same incarnation has another one.
        shape: of the task.
        total_steps: of the whole job.
        after_round: the last round it took part in, which is dead for it; -1 for none.
    """

    uuid: str
    shape: TaskShape
    total_steps: int
    after_round: int = -1


@dataclass(frozen=True)
class StepRecord:
    """One committed step as one rank saw it; seconds by its own clock.

    Attributes:
        seconds: from the end of the step before (or the start of the round) to its end.
        compute_s, sync_s, commit_s: forward and backward; synchronisation with its waiting; the optimizer.
        examples: of the global batch.
        ended: Unix time when the step was committed.
        sent_bytes, received_bytes, requests: what the channel moved since the step before; of its requests, `puts` are
            those that write.
        round: in which it was made.
    """

    step: int
    epoch: int
    loss: float
    examples: int
    seconds: float
    compute_s: float
    sync_s: float
    commit_s: float
    ended: float = 0.0
    sent_bytes: int = 0
    received_bytes: int = 0
    requests: int = 0
    round: int = -1
    puts: int = 0


@dataclass(frozen=True)
class Evaluation:
    """Metrics of an evaluation after `step` committed steps."""

    step: int
    epoch: int
    metrics: dict[str, float]
    seconds: float


@dataclass(frozen=True)
class CheckpointDone:
    """A checkpoint is complete: its manifest is written.

    Attributes:
        seconds: that it took, most of them beside the training.
        stall_s: for so long it held the training of rank 0 up.
    """

    step: int
    size_bytes: int
    seconds: float
    stall_s: float = 0.0


@dataclass(frozen=True)
class Rejoined:
    """A rank has begun anew at the exchange before `step`, with what `donor` gave and no PRIVATE state of its own."""

    step: int
    donor: int


@dataclass(frozen=True)
class Failure:
    """Why a rank failed. `kind` is the error's class name; `traceback` is for the log."""

    kind: str
    message: str
    hint: str
    traceback: str


@dataclass(frozen=True)
class Left:
    """A worker's last word.

    Attributes:
        reason: `goal`, `target`, `ended`, `stopped`, `superseded` or `claim_lost`.
        step, epoch: where it left.
        round: the round that it left; -1 where it was in none.
        weights_sha256, state_sha256: of rank 0's state where the job's goal was reached.
    """

    reason: str
    step: int = 0
    epoch: int = 0
    weights_sha256: str = ""
    state_sha256: str = ""
    round: int = -1


@dataclass(frozen=True)
class Mail:
    """One message from a worker: a beat, and what has gathered since the last one, in this order.

    Attributes:
        phase: what the worker is doing: `starting, building, ready, loading, computing, waiting for PIECE, committing,
            evaluating, saving, leaving`.
        phase_s: for how long by its own clock.
        step: where it is.
        awaits: the rank it waits for, -1 for none.
    """

    phase: str
    step: int
    awaits: int = -1
    phase_s: float = 0.0
    ready: Ready | None = None
    output: tuple[str, ...] = ()
    steps: tuple[StepRecord, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    checkpoints: tuple[CheckpointDone, ...] = ()
    rejoined: tuple[Rejoined, ...] = ()
    failure: Failure | None = None
    left: Left | None = None


@dataclass(frozen=True)
class Round:
    """A fixed membership within a generation.

    Attributes:
        members: the uuid of each rank's process, in rank order.
        resume_from: key of the checkpoint manifest to go on from where no member has a state; empty for the beginning.
    """

    generation: int
    number: int
    members: tuple[str, ...]
    resume_from: str = ""


@dataclass(frozen=True)
class Control:
    """The control record: the controller's one word to all workers, replaced as a whole by compare-and-swap.

    Attributes:
        epoch: which controller; a worker obeys the highest it has seen.
        beat: grows as long as the controller lives.
        round: the round that is open, if any.
        wish: why the generation shall end at an agreed step; empty for no wish.
        stop_now: workers leave at once, without a checkpoint.
        closed: the run has no controller and wants none: it is over.
        setbacks: how often the run had to go back to a checkpoint under this controller.
        observed_s: for how long this controller had driven the run when the round was opened.
        holder: the controller's own uuid: no two controllers ever want to write the same record.
        is_deciding: whether the controller has yet to see if it can go on with the functions of the open round: they
            stay, and no money is committed for them meanwhile.
    """

    epoch: int
    beat: int = 0
    round: Round | None = None
    wish: str = ""
    stop_now: bool = False
    closed: bool = False
    setbacks: int = 0
    observed_s: float = 0.0
    holder: str = ""
    is_deciding: bool = False


@dataclass(frozen=True)
class ScaleOrder:
    """Go on with so many workers."""

    workers: int


@dataclass(frozen=True)
class CancelOrder:
    """Stop: after a checkpoint, or `at_once`."""

    at_once: bool = False


@dataclass(frozen=True)
class Order:
    """What a user asks of the one who drives the run: one of `scale` and `cancel`.

    Attributes:
        epoch: the controller that was there when the order was given; another one passes it over.
    """

    scale: ScaleOrder | None = None
    cancel: CancelOrder | None = None
    epoch: int = 0


@dataclass(frozen=True)
class RunRecord:
    """What a run is, written once when it is made.

    Attributes:
        name: of the run.
        task: label of the task.
        backend: its name.
        smlt_version: that made it.
        created: seconds since the Unix epoch.
        job: the JobSpec as plain data.
    """

    name: str
    task: str
    backend: str
    smlt_version: str
    created: float
    job: dict[str, object] = field(default_factory=dict)

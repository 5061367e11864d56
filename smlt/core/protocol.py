"""One rank's pure state machine: the step as a transaction. No clock, no I/O; the worker and the simulator drive it.

`next` takes what just happened and says what to do now; the one who drives does it and comes back with the outcome.
"""

from __future__ import annotations

from dataclasses import dataclass

from smlt.core.errors import ProtocolError
from smlt.core.job import Job, Target
from smlt.core.sampler import Cursor, Schedule
from smlt.core.sync.header import Header

# What happened: the outcome of the command before, or the beginning.


@dataclass(frozen=True)
class Begun:
    """The process has started."""


@dataclass(frozen=True)
class Claimed:
    """Whether this process is now the one incarnation of its rank."""

    won: bool


@dataclass(frozen=True)
class Built:
    """The task is built, and stands where a checkpoint left it, if one was loaded.

    Attributes:
        schedule: of the job.
        cursor: the next step to compute.
        best: the best value of `[job].keep_best` so far.
        goal: why nothing is left to compute although the schedule says so; empty otherwise.
    """

    schedule: Schedule
    cursor: Cursor
    best: float | None = None
    goal: str = ""


@dataclass(frozen=True)
class RoundOpened:
    """The controller has opened a round with all ranks in it."""


@dataclass(frozen=True)
class Computed:
    """Forward and backward are done.

    Attributes:
        loss_sum, weight: of this rank's examples.
        digest: of SHARED state before this step, 0 where not taken.
        now: seconds by this process's clock; rank 0's alone decides when a checkpoint is due.
        wished: whether the controller wishes the generation to end.
    """

    loss_sum: float
    weight: float
    digest: int
    now: float
    wished: bool


@dataclass(frozen=True)
class Exchanged:
    """The reduced pieces of the step are here, with what all ranks said."""

    merged: Header


@dataclass(frozen=True)
class Committed:
    """The step is applied."""

    now: float


@dataclass(frozen=True)
class Evaluated:
    """The metrics of an evaluation, the same on every rank."""

    metrics: dict[str, float]


@dataclass(frozen=True)
class BestKept:
    """The best model so far is written."""


@dataclass(frozen=True)
class Saved:
    """The checkpoint's manifest is written."""

    now: float


@dataclass(frozen=True)
class Exported:
    """The model is written."""


Event = (
    Begun | Claimed | Built | RoundOpened | Computed | Exchanged | Committed | Evaluated | BestKept | Saved | Exported
)

# What to do now.


@dataclass(frozen=True)
class Claim:
    """Claim (generation, rank, incarnation)."""


@dataclass(frozen=True)
class Build:
    """Build the task, load the state to go on from, warm up."""


@dataclass(frozen=True)
class AwaitRound:
    """Say READY and wait for a round."""


@dataclass(frozen=True)
class Compute:
    """Forward and backward for the step at the cursor."""

    cursor: Cursor
    take_digest: bool


@dataclass(frozen=True)
class Exchange:
    """Send this rank's contribution under this header and await the sums; `last` where the job ends with this step."""

    header: Header
    last: bool = False


@dataclass(frozen=True)
class Commit:
    """Apply the step; `merged` carries the global loss."""

    cursor: Cursor
    merged: Header


@dataclass(frozen=True)
class Evaluate:
    """Evaluate this rank's share and gather all."""

    cursor: Cursor


@dataclass(frozen=True)
class KeepBest:
    """Keep the model of this evaluation as the best so far."""

    cursor: Cursor


@dataclass(frozen=True)
class Save:
    """Write this rank's part of the checkpoint at the cursor; `best` and `goal` travel in the manifest."""

    cursor: Cursor
    best: float | None
    goal: str = ""


@dataclass(frozen=True)
class Export:
    """Write the model: the goal is reached."""

    cursor: Cursor
    reason: str


@dataclass(frozen=True)
class Leave:
    """Report and return normally. `reason`: claim_lost, ended, goal, target."""

    reason: str
    cursor: Cursor | None = None


Command = Claim | Build | AwaitRound | Compute | Exchange | Commit | Evaluate | KeepBest | Save | Export | Leave

_OUTCOME: dict[type[Command], type[Event]] = {
    Claim: Claimed,
    Build: Built,
    AwaitRound: RoundOpened,
    Compute: Computed,
    Exchange: Exchanged,
    Commit: Committed,
    Evaluate: Evaluated,
    KeepBest: BestKept,
    Save: Saved,
    Export: Exported,
}
"""What follows each command; nothing follows `Leave`."""


@dataclass(frozen=True)
class Rules:
    """What every rank of a generation knows beforehand; equal on all of them.

    Attributes:
        job: for evaluation, checkpoints, target and the best model.
        digest_every: steps between two comparisons of SHARED state.
        save_interval_s: seconds between two checkpoints where the job says "auto".
        exchange_every: steps from one exchange among the ranks to the next; the last step of a job has one, too.
    """

    job: Job
    digest_every: int = 50
    save_interval_s: float = 30.0
    exchange_every: int = 1


class RankProtocol:
    """The machine of one rank.

    Args:
        rank: whose; rank 0 voices ends and checkpoints in its headers, for it alone may decide by time.
        rules: what all ranks know.
    """

    def __init__(self, rank: int, rules: Rules) -> None:
        self._rank = rank
        self._rules = rules
        self._schedule: Schedule | None = None
        self._cursor = Cursor()
        self._end = 0
        self._save = 0
        self._saved_at_s: float | None = None
        self._saved_step = -1
        self._best: float | None = None
        self._goal = ""
        self._due: type[Event] | None = Begun

    @property
    def cursor(self) -> Cursor:
        """The next step to compute."""
        return self._cursor

    def next(self, event: Event) -> Command:
        """What to do now that `event` has happened.

        Raises:
            ProtocolError: the event cannot happen here.
        """
        if type(event) is not self._due:
            raise ProtocolError(f"rank {self._rank} cannot take {event} now")
        command = self._decide(event)
        self._due = _OUTCOME.get(type(command))
        return command

    def _decide(self, event: Event) -> Command:
        match event:
            case Begun():
                return Claim()
            case Claimed(won=won):
                return Build() if won else Leave("claim_lost")
            case Built(schedule=schedule, cursor=cursor, best=best, goal=goal):
                self._schedule, self._cursor, self._best = schedule, cursor, best
                self._saved_step = cursor.step
                self._goal = goal if self._rules.job.target else ""
                return AwaitRound()
            case RoundOpened():
                return self._go_on()
            case Computed():
                return self._after_computing(event)
            case Exchanged(merged=merged):
                self._end, self._save = merged.end, merged.save
                return Commit(self._cursor, merged)
            case Committed(now=now):
                return self._after_commit(now)
            case Evaluated(metrics=metrics):
                return self._after_evaluation(metrics)
            case BestKept():
                return self._save_or_go_on()
            case Saved(now=now):
                self._saved_at_s, self._saved_step = now, self._cursor.step
                return self._go_on()
            case Exported():
                return Leave(self._goal, self._cursor)

    @property
    def _course(self) -> Schedule:
        if self._schedule is None:
            raise ProtocolError(f"rank {self._rank} is asked to train before its task is built")
        return self._schedule

    def _compute(self) -> Compute:
        return Compute(self._cursor, take_digest=self._cursor.step % self._rules.digest_every == 0)

    def _after_computing(self, event: Computed) -> Command:
        following = self._course.after(self._cursor)
        done = self._course.is_done(following)
        if done or following.step % self._rules.exchange_every == 0:
            return Exchange(self._voice(event), done)
        return Commit(self._cursor, Header(self._cursor.step, loss_sum=event.loss_sum, weight=event.weight))

    def _voice(self, event: Computed) -> Header:
        """This rank's words for the step it has computed."""
        end = save = 0
        if self._rank == 0:
            following = self._course.after(self._cursor)
            if self._saved_at_s is None:
                self._saved_at_s = event.now
            if event.wished:
                end = following.step
            if end or self._save_due(following, event.now):
                save = following.step
        return Header(self._cursor.step, end, save, event.digest, event.loss_sum, event.weight)

    def _save_due(self, following: Cursor, now: float) -> bool:
        every = self._rules.job.checkpoint_every
        if every == "auto":
            return self._saved_at_s is not None and now - self._saved_at_s >= self._rules.save_interval_s
        return self._course.is_due(every, following)

    def _after_commit(self, now: float) -> Command:
        if self._saved_at_s is None:
            self._saved_at_s = now
        self._cursor = self._course.after(self._cursor)
        due = self._course.is_due(self._rules.job.eval_every, self._cursor)
        if due or self._course.is_done(self._cursor):
            return Evaluate(self._cursor)
        return self._save_or_go_on()

    def _after_evaluation(self, metrics: dict[str, float]) -> Command:
        target = self._rules.job.target
        if target and target.reached(metrics):
            self._goal = "target"
        name = self._rules.job.keep_best
        if name and name in metrics and self._is_better(metrics[name], target):
            self._best = metrics[name]
            return KeepBest(self._cursor)
        return self._save_or_go_on()

    def _is_better(self, value: float, target: Target | None) -> bool:
        if self._best is None:
            return True
        name = self._rules.job.keep_best or ""
        if target and target.metric == name:
            lower = target.at_most is not None
        else:
            lower = any(word in name.lower() for word in ("loss", "error", "perplexity", "mae", "mse"))
        return value < self._best if lower else value > self._best

    def _save_or_go_on(self) -> Command:
        here = self._cursor.step
        done = self._goal or self._course.is_done(self._cursor)
        if here != self._saved_step and (done or self._save == here or self._end == here):
            return Save(self._cursor, self._best, self._goal)
        return self._go_on()

    def _go_on(self) -> Command:
        if self._goal:
            return self._finish(self._goal)
        if self._course.is_done(self._cursor):
            return self._finish("goal")
        if self._end and self._end == self._cursor.step:
            return Leave("ended", self._cursor)
        return self._compute()

    def _finish(self, goal: str) -> Command:
        self._goal = goal
        return Export(self._cursor, goal)

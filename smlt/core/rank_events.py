"""What one rank's machine is told, and what it answers: frozen data, no behaviour.

An event is the outcome of the command before, or the beginning; or, instead of an outcome, the round has changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from smlt.core.sampler import Cursor, Schedule
from smlt.core.sync.header import Header


@dataclass(frozen=True)
class Standing:
    """What a rank has when a round opens: the state that `Forget` has left, or none.

    Attributes:
        cursor: the next step to compute; None without a state.
        best: the best value of `[job].keep_best` before that commit.
        end, save: what was said with that commit, as in `Header`.
        goal: as in `Restored`, where nothing was committed since.
    """

    cursor: Cursor | None = None
    best: float | None = None
    end: int = 0
    save: int = 0
    goal: str = ""


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
    """The task is built and warm; its state is nobody's yet."""

    schedule: Schedule


@dataclass(frozen=True)
class RoundOpened:
    """The controller has opened a round with this process in it."""


@dataclass(frozen=True)
class Met:
    """All ranks of the round have come, and said where they stand, in rank order."""

    standings: Sequence[Standing]

    @cached_property
    def donor(self) -> int:
        """The first rank of those at the highest commit."""
        return self._steps.index(max(self._steps))

    @cached_property
    def needy(self) -> tuple[int, ...]:
        """Ranks that stand elsewhere than the donor, and need its state."""
        return tuple(rank for rank, step in enumerate(self._steps) if step != self._steps[self.donor])

    @cached_property
    def _steps(self) -> list[int]:
        return [-1 if standing.cursor is None else standing.cursor.step for standing in self.standings]


@dataclass(frozen=True)
class Restored:
    """The state is the newest checkpoint's, or the beginning's where there is none.

    Attributes:
        cursor: the next step to compute.
        best: the best value of `[job].keep_best` so far.
        goal: why nothing is left to compute although the schedule says so; empty otherwise.
    """

    cursor: Cursor
    best: float | None = None
    goal: str = ""


@dataclass(frozen=True)
class Fetched:
    """The state is the donor's."""


@dataclass(frozen=True)
class Served:
    """The state was handed out."""


@dataclass(frozen=True)
class Stayed:
    """The state that is here is the round's."""


@dataclass(frozen=True)
class RoundChanged:
    """Instead of an outcome: another round was opened, or is needed. Whatever was being done is given up.

    Instead of `Committed` it says that nothing of the step was applied.
    """


@dataclass(frozen=True)
class Forgotten:
    """What was to be given up is.

    Attributes:
        has_state: whether the state is as `Forget` says; not where a donor's was taken over in part.
    """

    has_state: bool = True


@dataclass(frozen=True)
class Computed:
    """Forward and backward are done.

    Attributes:
        loss_sum, weight: of this rank's examples.
        digest: of SHARED state before this step, 0 where not taken.
        now: seconds by this process's clock; rank 0's alone decides when a checkpoint is due.
        wished: whether the controller wishes the generation to end.
        save_interval_s: seconds from one checkpoint to the next where the job says "auto"; rank 0's alone counts.
    """

    loss_sum: float
    weight: float
    digest: int
    now: float
    wished: bool
    save_interval_s: float = 30.0


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
    """This rank's share of the checkpoint is copied, and on its way; after the last one, nothing is left to write."""

    now: float


@dataclass(frozen=True)
class Exported:
    """The model is written."""


Event = (
    Begun
    | Claimed
    | Built
    | RoundOpened
    | Met
    | Restored
    | Fetched
    | Served
    | Stayed
    | RoundChanged
    | Forgotten
    | Computed
    | Exchanged
    | Committed
    | Evaluated
    | BestKept
    | Saved
    | Exported
)

# What to do now.


@dataclass(frozen=True)
class Claim:
    """Claim (generation, rank, incarnation)."""


@dataclass(frozen=True)
class Build:
    """Build the task, and warm up on a throw-away copy."""


@dataclass(frozen=True)
class AwaitRound:
    """Say READY and wait for a round."""


@dataclass(frozen=True)
class Meet:
    """Join the round, and say where this rank stands."""

    standing: Standing


@dataclass(frozen=True)
class Restore:
    """Take over the state of the checkpoint that the round names, or begin at the beginning where it names none."""


@dataclass(frozen=True)
class Fetch:
    """Take over the SHARED state at the cursor, which `donor` serves; of PRIVATE state there is none then."""

    cursor: Cursor
    donor: int


@dataclass(frozen=True)
class Serve:
    """Serve the SHARED state at the cursor to so many ranks."""

    cursor: Cursor
    readers: int


@dataclass(frozen=True)
class Stay:
    """Go on with the state that is here."""


@dataclass(frozen=True)
class Forget:
    """Give up the step in hand: go back to the last commit, and leave the round.

    With `Rules.recovers_fast`, to the last one that ended an exchange.
    """


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
    """Save this rank's share of the state at the cursor; `best` and `goal` travel in the manifest.

    Attributes:
        last: nothing is computed after it in this generation, so it must be complete before the rank goes on.
    """

    cursor: Cursor
    best: float | None
    goal: str = ""
    last: bool = False


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


Command = (
    Claim
    | Build
    | AwaitRound
    | Meet
    | Restore
    | Fetch
    | Serve
    | Stay
    | Forget
    | Compute
    | Exchange
    | Commit
    | Evaluate
    | KeepBest
    | Save
    | Export
    | Leave
)

OUTCOME: dict[type[Command], type[Event]] = {
    Claim: Claimed,
    Build: Built,
    AwaitRound: RoundOpened,
    Meet: Met,
    Restore: Restored,
    Fetch: Fetched,
    Serve: Served,
    Stay: Stayed,
    Forget: Forgotten,
    Compute: Computed,
    Exchange: Exchanged,
    Commit: Committed,
    Evaluate: Evaluated,
    KeepBest: BestKept,
    Save: Saved,
    Export: Exported,
}
"""What follows each command; nothing follows `Leave`."""

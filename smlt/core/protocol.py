"""One rank's pure state machine: the step as a transaction. No clock, no I/O; the worker and the simulator drive it.

`next` takes what just happened and says what to do now; the one who drives does it and comes back with the outcome.
"""

from __future__ import annotations

from dataclasses import dataclass

from smlt.core.errors import ProtocolError
from smlt.core.job import Job
from smlt.core.rank_events import (
    OUTCOME,
    AwaitRound,
    Begun,
    BestKept,
    Build,
    Built,
    Claim,
    Claimed,
    Command,
    Commit,
    Committed,
    Compute,
    Computed,
    Evaluate,
    Evaluated,
    Event,
    Exchange,
    Exchanged,
    Export,
    Exported,
    Fetch,
    Fetched,
    Forget,
    Forgotten,
    KeepBest,
    Leave,
    Meet,
    Met,
    Restore,
    Restored,
    RoundChanged,
    RoundOpened,
    Save,
    Saved,
    Serve,
    Served,
    Standing,
    Stay,
    Stayed,
)
from smlt.core.sampler import Cursor, Schedule
from smlt.core.sync.header import Header

_OUTSIDE_A_ROUND = (Claim, Build, AwaitRound, Forget)
"""Commands during which a change of the round is no news."""


@dataclass(frozen=True)
class Rules:
    """What every rank of a generation knows beforehand; equal on all of them.

    Attributes:
        job: for evaluation, checkpoints, target and the best model.
        digest_every: steps between two comparisons of SHARED state; at exchanges only, and at the first of a round.
        exchange_every: steps from one exchange among the ranks to the next; the last step of a job has one, too.
        has_private: whether ranks have PRIVATE state. A donor cannot give a lost rank's back, so all ranks go back to
            the newest checkpoint then (`[sync].recovery = "exact"`).
        recovers_fast: instead of that all go back to the last exchange, where their SHARED state was the same, and who
            has lost PRIVATE state begins anew with what a donor gives (`"fast"`).
    """

    job: Job
    digest_every: int = 50
    exchange_every: int = 1
    has_private: bool = False
    recovers_fast: bool = False


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
        self._place = Standing()  # where the next round finds this rank
        self._end = 0
        self._save = 0
        self._heard: Header | None = None
        self._offered: Standing | None = None
        self._save_is_due = False
        self._saved_at_s: float | None = None
        self._save_interval_s = 0.0
        self._saved_step = -1
        self._best: float | None = None
        self._goal = ""
        self._is_first_exchange = True
        self._last: type[Command] | None = None

    @property
    def cursor(self) -> Cursor:
        """The next step to compute."""
        return self._cursor

    def next(self, event: Event) -> Command:
        """What to do now that `event` has happened.

        Raises:
            ProtocolError: the event cannot happen here.
        """
        if not self._can_happen(event):
            raise ProtocolError(f"rank {self._rank} cannot take {event} now")
        command = self._decide(event)
        self._last = type(command)
        return command

    def _can_happen(self, event: Event) -> bool:
        if self._last is None:
            return isinstance(event, Begun)
        if isinstance(event, RoundChanged):
            return self._last not in _OUTSIDE_A_ROUND and self._schedule is not None
        return type(event) is OUTCOME.get(self._last)

    def _decide(self, event: Event) -> Command:
        match event:
            case Begun():
                return Claim()
            case Claimed(won=won):
                return Build() if won else Leave("claim_lost")
            case Built(schedule=schedule):
                self._schedule = schedule
                return AwaitRound()
            case RoundOpened():
                return Meet(self._place)
            case Met():
                return self._after_meeting(event)
            case Restored():
                goal = event.goal if self._rules.job.target else ""
                self._stand(Standing(event.cursor, event.best, goal=goal))
                self._saved_step = event.cursor.step
                return self._go_on()
            case Fetched():
                self._stand(self._offered)
                return self._settle_commit()
            case Served() | Stayed():
                return self._settle_commit()
            case RoundChanged():
                return Forget()
            case Forgotten(has_state=has_state):
                self._place = self._place if has_state else Standing()
                return AwaitRound()
            case Computed():
                return self._after_computing(event)
            case Exchanged(merged=merged):
                self._heard = merged
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

    # A round begins

    def _stand(self, standing: Standing | None) -> None:
        """Be where `standing` is, its last commit just made."""
        if standing is None or standing.cursor is None:
            raise ProtocolError(f"rank {self._rank} cannot stand where there is no state")
        self._save_is_due = self._save_is_due and standing.cursor == self._cursor
        self._place, self._cursor = standing, standing.cursor
        self._best, self._goal = standing.best, standing.goal
        self._end, self._save = standing.end, standing.save
        self._saved_step = -1
        self._is_first_exchange = True
        self._heard = None

    def _after_meeting(self, met: Met) -> Command:
        donor, needy = met.donor, met.needy
        offered = met.standings[donor]
        is_lost = needy and self._rules.has_private and not self._rules.recovers_fast
        if offered.cursor is None or is_lost:
            self._place = Standing()
            return Restore()
        if self._rank in needy:
            self._offered = offered  # what is here is kept until that has come: the donor may be lost, too
            return Fetch(offered.cursor, donor)
        self._stand(offered)
        if needy and self._rank == donor:
            return Serve(self._cursor, len(needy))
        return Stay()

    def _settle_commit(self) -> Command:
        """What follows the last commit once more: not every rank may have come to its end in the round before."""
        if self._cursor.step == 0 or self._goal:
            return self._go_on()
        return self._evaluate_or_save()

    # A step

    @property
    def _course(self) -> Schedule:
        if self._schedule is None:
            raise ProtocolError(f"rank {self._rank} is asked to train before its task is built")
        return self._schedule

    def _compute(self) -> Compute:
        return Compute(self._cursor, take_digest=self._exchanges and self._compares)

    @property
    def _exchanges(self) -> bool:
        """Whether the step in hand ends in an exchange."""
        following = self._course.after(self._cursor)
        return self._course.is_done(following) or following.step % self._rules.exchange_every == 0

    @property
    def _compares(self) -> bool:
        every = max(1, self._rules.digest_every // self._rules.exchange_every)
        return self._is_first_exchange or self._cursor.step // self._rules.exchange_every % every == 0

    def _after_computing(self, event: Computed) -> Command:
        self._save_interval_s = event.save_interval_s
        if self._exchanges:
            return Exchange(self._voice(event), self._course.is_done(self._course.after(self._cursor)))
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
            if end or self._save_is_due or self._becomes_due(following, event.now):
                save = following.step
        return Header(self._cursor.step, end, save, event.digest, event.loss_sum, event.weight)

    def _becomes_due(self, following: Cursor, now: float) -> bool:
        """Whether a checkpoint is due before `following`."""
        every = self._rules.job.checkpoint_every
        if every == "auto":
            return self._saved_at_s is not None and now - self._saved_at_s >= self._save_interval_s
        return self._course.is_due(every, following)

    def _after_commit(self, now: float) -> Command:
        if self._saved_at_s is None:
            self._saved_at_s = now
        following = self._course.after(self._cursor)
        self._save_is_due = not self._exchanges and (self._save_is_due or self._becomes_due(following, now))
        if self._heard:
            self._end, self._save = self._heard.end, self._heard.save
            self._is_first_exchange = False
        self._cursor = following
        if self._heard or not self._rules.recovers_fast:
            self._place = Standing(following, self._best, self._end, self._save)
        self._heard = None
        return self._evaluate_or_save()

    def _evaluate_or_save(self) -> Command:
        due = self._course.is_due(self._rules.job.eval_every, self._cursor)
        if due or self._course.is_done(self._cursor):
            return Evaluate(self._cursor)
        return self._save_or_go_on()

    def _after_evaluation(self, metrics: dict[str, float]) -> Command:
        target = self._rules.job.target
        if target and target.reached(metrics):
            self._goal = "target"
        name = self._rules.job.keep_best
        if name and name in metrics and self._rules.job.is_better(metrics[name], self._best):
            self._best = metrics[name]
            return KeepBest(self._cursor)
        return self._save_or_go_on()

    def _save_or_go_on(self) -> Command:
        here = self._cursor.step
        last = bool(self._goal) or self._course.is_done(self._cursor) or self._end == here
        if here != self._saved_step and (last or self._save == here):
            return Save(self._cursor, self._best, self._goal, last)
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

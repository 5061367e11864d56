"""PLANNER interface: from a job, its limits and what was observed, to an allocation that is predicted and priced."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

from smlt.core.errors import ConfigError
from smlt.core.forecast import Assumption, Forecast, Nearest, Objective
from smlt.core.scene import Scene
from smlt.core.sync.names import EVERY_STEP, EXACT, FAST, LOCAL_SGD


@dataclass(frozen=True)
class Sync:
    """How ranks are kept one computation.

    Attributes:
        mode: one of `smlt.core.sync.names.Mode`.
        codec: how numbers travel, one of `smlt.core.sync.names.CodecName`.
        channel: by what.
        period: of local SGD: every weight is synchronised once in so many steps.
        fragments: of local SGD: parts of the weights that are synchronised in turn.
        outer_learning_rate, outer_momentum: of local SGD's outer step.
        recovery: of PRIVATE state, one of `smlt.core.sync.names.Recovery`.

    Raises:
        ConfigError: the period is no multiple of the fragments, or one of them is less than 1.
    """

    mode: str = EVERY_STEP
    codec: str = EXACT
    channel: str = "shared_memory"
    period: int = 1
    fragments: int = 1
    outer_learning_rate: float = 0.7
    outer_momentum: float = 0.9
    recovery: str = "exact"

    def __post_init__(self) -> None:
        if min(self.period, self.fragments) < 1 or self.period % self.fragments:
            raise ConfigError(
                f"a period of {self.period} steps cannot be shared by {self.fragments} fragments",
                "the period is a multiple of the number of fragments, and both are at least 1",
            )

    @property
    def has_private(self) -> bool:
        """Whether ranks have state of their own: what a lossy codec has lost, or an inner optimizer."""
        return self.mode == "local_sgd" or self.codec != "fp32"

    @property
    def recovers_fast(self) -> bool:
        """Whether a rank that has lost such state begins anew at the last exchange, and the others keep theirs."""
        return self.has_private and self.recovery == FAST

    @property
    def exchange_every(self) -> int:
        """Steps from one exchange among the ranks to the next, at least 1."""
        return self.period // self.fragments if self.mode == LOCAL_SGD else 1


@dataclass(frozen=True)
class Allocation:
    """A fleet: how many workers, how much memory each (MiB), and how they synchronise."""

    workers: int
    memory_mib: int
    sync: Sync = field(default_factory=Sync)


@dataclass(frozen=True)
class Observation:
    """What one generation was seen to do.

    Attributes:
        allocation: its fleet.
        step_seconds: of a step at the median; 0 where it ran out of memory before it had done one.
        compute_seconds: of these, forward, backward and the optimizer; the rest is exchanging, and waiting for others.
            None where nobody has told them apart.
        global_batch: examples of a step.
        out_of_memory: whether a worker was ended for taking more memory than it had.
    """

    allocation: Allocation
    step_seconds: float
    global_batch: int
    out_of_memory: bool = False
    compute_seconds: float | None = None


@dataclass(frozen=True)
class PlanRequest:
    """What a planner plans for.

    Attributes:
        workers: the number the user fixed; None to choose.
        max_workers: most workers that the user, the backend and the global batch allow.
        memory_mib: the size the user fixed; None to choose.
        memory_choices_mib: sizes that the backend offers, ascending.
        vcpus_at_hand: cores of this machine for a local backend; None on a cloud.
        global_batch: examples of the first step.
        sync: the synchronisation that the job and the backend allow.
        deadline_s, budget_usd: the limits, if any.
        objective: what is wanted within the limits.
        scene: what a prediction needs; None where nobody has looked, and planners that predict cannot plan.
    """

    workers: int | None
    max_workers: int
    memory_mib: int | None
    memory_choices_mib: tuple[int, ...]
    vcpus_at_hand: int | None
    global_batch: int
    sync: Sync
    deadline_s: float | None = None
    budget_usd: float | None = None
    objective: Objective = "knee"
    scene: Scene | None = None


@dataclass(frozen=True)
class Plan:
    """An allocation and why: what `smlt plan` prints and `smlt train` submits.

    Attributes:
        allocation: the fleet.
        reason: one sentence for the user.
        forecast: what it would take and cost; None from a planner that does not predict.
    """

    allocation: Allocation
    reason: str
    forecast: Forecast | None = None


@dataclass(frozen=True)
class Survey:
    """All that a planner considered.

    Attributes:
        plans: best first; at least one.
        chosen: which is submitted; None where no plan keeps the limits.
        binding_limit: without which another one would be chosen; of an infeasible request, which cannot be kept.
        nearest: limits that could be kept, as near as possible to those that cannot.
        assumptions: what the forecasts rest on.
    """

    plans: tuple[Plan, ...]
    chosen: Plan | None
    binding_limit: str | None = None
    nearest: Nearest | None = None
    assumptions: tuple[Assumption, ...] = ()


class Planner(ABC):
    """Chooses the fleet. Contract, tested by `smlt.testing.PlannerContract`:

    * `propose` is a pure function of its arguments and of earlier `observe` calls; it launches nothing.
    * A value that the user fixed comes back unchanged.
    * What cannot be met raises `ConfigError`, before anything is spent.
    * `survey` is what `propose` chose from: its `chosen` is what `propose` returns.
    * A planner that predicts does not propose again what was seen to run out of memory.

    Attributes:
        needs_scene: whether `request.scene` must be given; without it a planner that predicts raises `ConfigError`.
    """

    needs_scene: ClassVar[bool] = False

    def survey(self, request: PlanRequest) -> Survey:
        """All that was considered for a request, those that keep no limit too.

        Raises:
            ConfigError: the request contradicts itself.
        """
        self._check(request)
        return self._do_survey(request)

    def propose(self, request: PlanRequest) -> Plan:
        """The plan for a request.

        Raises:
            ConfigError: the request contradicts itself or cannot be met.
        """
        self._check(request)
        plan = self._do_propose(request)
        if not 1 <= plan.allocation.workers <= request.max_workers:
            raise ConfigError(
                f"{type(self).__name__} proposed {plan.allocation.workers} workers, outside 1 to {request.max_workers}"
            )
        return plan

    def observe(self, observation: Observation) -> None:
        """Learn from a generation; a planner that does not learn ignores it."""
        del observation

    def settle(self, request: PlanRequest) -> Plan | None:
        """The best of what was observed, now that nothing more is tried; None from a planner that need not try."""
        del request
        return None

    @abstractmethod
    def _do_propose(self, request: PlanRequest) -> Plan: ...

    def _do_survey(self, request: PlanRequest) -> Survey:
        plan = self._do_propose(request)
        return Survey((plan,), plan)

    @staticmethod
    def _check(request: PlanRequest) -> None:
        if request.workers is not None and request.workers > request.max_workers:
            raise ConfigError(
                f"{request.workers} workers were asked for, at most {request.max_workers} are possible here",
                "lower [workers].count, or raise [workers].max or [job].global_batch",
            )

"""When a run's fleet is planned anew, and whether another one pays: pure decisions over what generations really did.

Steps are judged by windows. The first window of a fleet, another batch size, windows that part from what was expected,
and a limit that will not be kept each ask the planner; what it proposes must pay for its own start. A fleet that is
tried is a probe: it trains, and nothing of what it does is thrown away.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

from smlt.core.forecast import Forecast, Objective
from smlt.core.job import BatchPhase
from smlt.core.planner import Allocation, Observation, Planner, PlanRequest
from smlt.core.sampler import Schedule

WINDOW = 8
"""Steps that are judged together, at the median."""

WARM_UP = 2
"""The first steps of a fleet say little: tasks compile, and connections are made."""

DRIFT, WINDOWS = 1.25, 2
"""Windows part from what is expected that are so many times slower, or quicker; so many in a row, one may be chance."""

MOST_PROBES = 5

MUST_GAIN = 0.05
"""Of what is left of the run, in what is wanted of it, another fleet must save so much, its own start included."""

DANGER, SAFE = 0.98, 0.95
"""A limit is in danger where the rest of the run will take more than this part of what is left of it; a fleet that is
changed to shall take less than that part. The first plan has no second chance, and is more careful."""

NEARER = 0.2
"""Where no fleet keeps the limits, one is changed to that passes them by so much less."""

STALL_S = 5.0
"""Nothing is computed for so long where one fleet hands over to another: 3 to 6 s on simulated clouds."""

NOTHING_USD = 1e-9
"""Money below this is none, and time decides."""


@dataclass(frozen=True)
class Rest:
    """What the rest of a run takes and costs, and what its fleet costs a second."""

    seconds: float
    usd: float
    usd_per_s: float = 0.0


@dataclass(frozen=True)
class Standing:
    """Where a run stands.

    Attributes:
        steps_left: of the job.
        deadline_s, budget_usd: left for them; None without such a limit.
        usd_per_s, usd_per_step: what the fleet costs, and what its exchanges do.
        tied_s: for so many seconds of a fleet money must be set aside to the end, for its leases and for stopping it.
    """

    steps_left: int
    deadline_s: float | None
    budget_usd: float | None
    usd_per_s: float
    usd_per_step: float = 0.0
    tied_s: float = 0.0

    def missed(self, rest: Rest, part: float = DANGER) -> list[str]:
        """The limits of whose rest a run would take more than a part."""
        late = self.deadline_s is not None and rest.seconds > part * self.deadline_s
        dear = self.budget_usd is not None and self._needs_usd(rest) > part * self.budget_usd
        return ["deadline"] * late + ["budget"] * dear

    def overshoot(self, rest: Rest) -> float:
        """How many times what is left of the limits a rest would take."""
        late = rest.seconds / max(self.deadline_s, 1e-3) if self.deadline_s is not None else 0.0
        dear = self._needs_usd(rest) / max(self.budget_usd, NOTHING_USD) if self.budget_usd is not None else 0.0
        return max(late, dear)

    def _needs_usd(self, rest: Rest) -> float:
        return rest.usd + self.tied_s * rest.usd_per_s


@dataclass(frozen=True)
class Change:
    """Another fleet, and why.

    Attributes:
        allocation: the fleet.
        why: for the record: the `reason`; what asked the planner, `trigger`: `learned, drift, batch, deadline` or
            `budget`; `probes`, this one included; and what the rest would take `here` and `there`.
    """

    allocation: Allocation
    why: Mapping[str, Any]


class Adaptation:
    """Learns from the steps of one run and says when another fleet is better.

    Args:
        make_planner: gives a planner that has seen nothing.
        request: what the first plan was made for; with a scene where the planner predicts.
        phases: the job's batch sizes.

    Attributes:
        probes: fleets that were tried for the planner's sake, after the first.
        prediction: of the rest of the run with the fleet that trains, when it was looked at last; None before that.
    """

    def __init__(
        self, make_planner: Callable[[], Planner], request: PlanRequest, phases: tuple[BatchPhase, ...]
    ) -> None:
        self._make, self._planner, self._request = make_planner, make_planner(), request
        self._schedule = Schedule(0, phases, None, 0)
        self._allocation: Allocation | None = None
        self._batch = 0
        self._window: list[tuple[float, float]] = []
        self._skipped = self._parted = self._count = 0
        self._expected_s = self._sum_s = 0.0
        self._trigger, self._is_changing = "", False
        self._tried: set[Allocation] = set()
        self._left: set[Allocation] = set()  # not come back to, unless the cloud or the batch has changed
        self.probes = 0
        self.prediction: Rest | None = None

    def saw(self, allocation: Allocation, steps: Sequence[Mapping[str, Any]]) -> None:
        """Steps that a fleet has committed, as `smlt.core.messages.StepRecord` has them."""
        if allocation == self._allocation and self._is_changing:
            return  # the last steps of the fleet before
        if allocation != self._allocation:
            self._allocation, self._is_changing = allocation, False
            self._tried.add(allocation)
            self._begin(skipped=0)
        for step in steps:
            batch = self._schedule.batch_size(step["epoch"])
            if batch != self._batch:
                self._trigger = "batch" if self._batch else self._trigger
                self._batch = batch
                self._left.clear()
                self._begin(skipped=self._skipped)
            if self._skipped < WARM_UP:
                self._skipped += 1
            elif step["examples"] == batch:  # the last one of an epoch may be smaller
                self._window.append((step["seconds"], step["seconds"] - step["sync_s"]))
                self._judge()

    def ran_out_of_memory(self, allocation: Allocation) -> None:
        """A worker of such a fleet was ended for taking more memory than it had."""
        batch = self._batch or self._request.global_batch
        self._planner.observe(Observation(allocation, 0.0, batch, out_of_memory=True))

    def look(self, standing: Standing) -> Change | None:
        """Another fleet for the rest of the run, if something has asked for one and it pays; none is changed to yet."""
        trigger, self._trigger = self._trigger, ""
        if not trigger or standing.steps_left < 1 or self._allocation is None:
            return None
        if self._expected_s:
            seconds = standing.steps_left * self._sum_s / self._count
            usd = seconds * standing.usd_per_s + standing.steps_left * standing.usd_per_step
            self.prediction = Rest(seconds, usd, standing.usd_per_s)
            if trigger == "window":
                trigger = next(iter(standing.missed(self.prediction)), "")
        if trigger in ("", "window"):
            return None
        request = self._for_the_rest(standing)
        if trigger == "learned" and self.probes >= MOST_PROBES:
            found = self._planner.settle(request)
            return None if found is None else self._to(found.allocation, trigger, {"reason": found.reason})
        return self._better(request, standing, trigger)

    def changed(self, change: Change) -> None:
        """The run changes to another fleet."""
        self.probes, self._is_changing, self._trigger = change.why["probes"], True, ""
        if self._allocation is not None:
            self._left.add(self._allocation)

    # What was seen

    def _begin(self, *, skipped: int) -> None:
        """Nothing is known of the steps that come."""
        self._window, self._skipped, self._parted, self._expected_s = [], skipped, 0, 0.0
        self._sum_s, self._count = 0.0, 0

    def _judge(self) -> None:
        """Look at a window that is full."""
        if len(self._window) < WINDOW:
            return
        seconds, compute_s = (statistics.median(each) for each in zip(*self._window, strict=True))
        self._sum_s, self._count = self._sum_s + sum(each for each, _ in self._window), self._count + WINDOW
        self._window = []
        if not self._expected_s:
            self._learn(seconds, compute_s, "learned")
            return
        ratio = seconds / self._expected_s
        self._parted = self._parted + 1 if max(ratio, 1 / ratio) > DRIFT else 0
        if self._parted < WINDOWS:
            self._trigger = self._trigger or "window"
            return
        self._planner = self._make()  # what was seen before was another cloud
        self._left.clear()
        self._sum_s, self._count = WINDOW * seconds, WINDOW
        self._learn(seconds, compute_s, "drift")

    def _learn(self, seconds: float, compute_s: float, trigger: str) -> None:
        assert self._allocation is not None  # whose steps these are
        self._expected_s, self._parted, self._trigger = seconds, 0, trigger
        self._planner.observe(Observation(self._allocation, seconds, self._batch, compute_seconds=compute_s))

    # What is better

    def _for_the_rest(self, standing: Standing) -> PlanRequest:
        """What a planner is asked: over the channel that there is."""
        request, scene = self._request, self._request.scene
        if scene is not None and self._allocation is not None:
            name = self._allocation.sync.channel
            own = tuple(each for each in scene.channels if each.name == name)
            scene = replace(scene, steps=standing.steps_left, channels=own or scene.channels)
        deadline_s, budget_usd = standing.deadline_s, standing.budget_usd
        return replace(
            request,
            global_batch=self._batch,
            deadline_s=None if deadline_s is None else max(deadline_s, 1e-3),
            budget_usd=None if budget_usd is None else max(budget_usd, NOTHING_USD),
            scene=scene,
        )

    def _better(self, request: PlanRequest, standing: Standing, trigger: str) -> Change | None:
        assert self._allocation is not None  # something was seen, or nobody asks
        survey = self._planner.survey(request)
        if survey.plans[0].forecast is None:  # a planner without a model learns by trying alone
            found = survey.plans[0]
            return self._to(found.allocation, trigger, {"reason": found.reason})
        fixed = replace(request, workers=self._allocation.workers, memory_mib=self._allocation.memory_mib)
        own = self._planner.survey(fixed).plans[0].forecast
        assert own is not None  # of a planner that predicts
        here = rest_here(own)
        rests = [
            (plan.allocation, rest_there(own, plan.forecast))
            for plan in survey.plans
            if _fits(plan.forecast) and plan.allocation not in self._left
        ]
        if not rests:
            return None
        kept = [(allocation, rest) for allocation, rest in rests if not standing.missed(rest, SAFE)]
        if kept:
            is_free = max(rest.usd for _, rest in kept) < NOTHING_USD
            allocation, there = min(kept, key=lambda item: wanted(item[1], request.objective, is_free=is_free))
            is_better = pays(here, there, request, standing)
        else:  # as near as can be: what is learned there may show more
            allocation, there = min(rests, key=lambda item: standing.overshoot(item[1]))
            is_better = standing.overshoot(there) < (1 - NEARER) * standing.overshoot(here)
        if not is_better:
            return None
        why = {"reason": f"{request.objective} within the limits", "here": vars(here), "there": vars(there)}
        return self._to(allocation, trigger, why)

    def _to(self, allocation: Allocation, trigger: str, why: Mapping[str, Any]) -> Change | None:
        own = self._allocation
        if own is None or (allocation.workers, allocation.memory_mib) == (own.workers, own.memory_mib):
            return None
        before = {"from_workers": own.workers, "from_memory_mib": own.memory_mib}
        probes = self.probes + (trigger == "learned" and allocation not in self._tried)
        return Change(allocation, {"trigger": trigger, "probes": probes, **before, **why})


def rest_here(own: Forecast) -> Rest:
    """The rest of a run with the fleet that trains already."""
    seconds = own.steps * own.step.total_s
    usd_per_s = own.cost_usd.likely / own.finish_s.likely
    return Rest(seconds, seconds * usd_per_s, usd_per_s)


def rest_there(own: Forecast, other: Forecast) -> Rest:
    """The rest with another fleet, that starts while the one before goes on."""
    own_usd_per_s, other_usd_per_s = (each.cost_usd.likely / each.finish_s.likely for each in (own, other))
    done = min(own.steps, other.start_s / own.step.total_s)
    steps_s = (own.steps - done) * other.step.total_s
    both_s = other.start_s + STALL_S
    usd = both_s * (own_usd_per_s + other_usd_per_s) + steps_s * other_usd_per_s
    return Rest(both_s + steps_s, usd, other_usd_per_s)


def wanted(rest: Rest, objective: Objective, *, is_free: bool) -> tuple[float, float]:
    """How good a rest is; less is better. Where nothing costs anything, time decides."""
    if objective == "fastest" or is_free:
        return rest.seconds, rest.usd
    return (rest.usd if objective == "cheapest" else rest.usd * rest.seconds), rest.seconds


def pays(here: Rest, there: Rest, request: PlanRequest, standing: Standing) -> bool:
    """Whether a change is worth it: it keeps a limit that would be missed, or saves enough of what is wanted."""
    misses_here, misses_there = len(standing.missed(here)), len(standing.missed(there))
    if misses_here != misses_there:
        return misses_there < misses_here
    least = 2 * MUST_GAIN if request.objective == "knee" else MUST_GAIN
    is_free = max(here.usd, there.usd) < NOTHING_USD
    before, after = (wanted(rest, request.objective, is_free=is_free)[0] for rest in (here, there))
    return after < (1 - least) * before


def _fits(forecast: Forecast | None) -> TypeGuard[Forecast]:
    """Whether a fleet can be had: no limit but those of time and money stands against it."""
    return forecast is not None and not any(
        standing == "missed" for name, standing in forecast.limits.items() if name not in ("deadline", "budget")
    )

"""What fleets are made equal to before they are compared: vCPUs, memory, or money."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from smlt.core.planner import Plan, PlanRequest
from smlt.planners.forecasts import Forecaster
from smlt.planners.modelled import grid
from smlt.planners.ranking import ranked

Basis = Literal["vcpu", "memory", "usd"]
"""vCPUs of all workers together, their memory together, or money for the whole job."""

NEARLY = 1.05
"""What differs by less counts as equal."""


@dataclass(frozen=True)
class Yardstick:
    """A fleet, and money.

    Attributes:
        basis: which of them counts.
        workers: of the fleet.
        vcpus, memory_mib: of each.
        usd: that may be spent.
    """

    basis: Basis
    workers: int
    vcpus: float
    memory_mib: float
    usd: float

    def of(self, vcpus: float, memory_mib: float) -> float:
        """What counts of a size."""
        return vcpus if self.basis == "vcpu" else memory_mib

    @property
    def wanted(self) -> float:
        """What counts of the whole fleet."""
        return self.workers * self.of(self.vcpus, self.memory_mib)

    def count(self, size: float) -> int:
        """How many of a size come to as much."""
        return max(1, math.ceil(self.wanted / size / NEARLY))

    def unequal(self, has: float) -> str:
        """In what a fleet that has so much is not equal."""
        unit = "vCPUs" if self.basis == "vcpu" else "MiB"
        is_equal = 1 / NEARLY <= has / self.wanted <= NEARLY
        return "" if is_equal else f"{has:.6g} {unit}, not {self.wanted:.6g}"

    def functions(self, request: PlanRequest) -> tuple[Plan, str]:
        """As many functions as the fleet has, of the least size that comes to as much; and in what it is not equal."""
        forecaster = Forecaster(request)
        workers = min(self.workers, request.max_workers)
        sizes = grid(replace(request, workers=workers), ())
        fleets = [Plan(allocation, "", forecaster.forecast(allocation)) for allocation in sizes]
        has = {id(plan): workers * self._of_plan(plan) for plan in fleets}
        enough = [plan for plan in fleets if has[id(plan)] * NEARLY >= self.wanted] or fleets
        nearest = min(abs(math.log(has[id(plan)] / self.wanted)) for plan in enough)
        as_near = [plan for plan in enough if abs(math.log(has[id(plan)] / self.wanted)) <= nearest + 1e-9]
        plan = ranked(as_near, request)[0]
        return plan, self.unequal(has[id(plan)])

    def _of_plan(self, plan: Plan) -> float:
        assert plan.forecast is not None  # they were predicted
        return self.of(plan.forecast.vcpus, plan.allocation.memory_mib)

    def fastest(self, plans: Sequence[Plan], request: PlanRequest) -> tuple[Plan, str]:
        """The fastest for so much money; where nothing is to be had for it, the cheapest, and what that costs."""
        able = [plan for plan in plans if _can_run(plan)] or list(plans)
        affordable = [plan for plan in able if _usd(plan) <= self.usd * (1 + 1e-9)]
        if affordable:
            return ranked(affordable, replace(request, objective="fastest"))[0], ""
        cheapest = min(able, key=_usd)
        return cheapest, f"${_usd(cheapest):.2g}, not ${self.usd:.2g}"


def _usd(plan: Plan) -> float:
    assert plan.forecast is not None  # they were predicted
    return plan.forecast.cost_usd.likely


def _can_run(plan: Plan) -> bool:
    """Whether the platform lets it: it has the memory, and steps fit into a function's time."""
    assert plan.forecast is not None  # they were predicted
    return all(plan.forecast.limits.get(name) != "missed" for name in ("memory", "time_limit"))

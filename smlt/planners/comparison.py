"""The same job on several providers, on functions and on machines: which is quicker, which is cheaper, or a tie."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from smlt.core.forecast import Range
from smlt.core.planner import Plan, PlanRequest
from smlt.core.planning import Planned
from smlt.planners.contenders import Contender, on_functions, on_machines
from smlt.planners.forecasts import scene_of
from smlt.planners.machines import Kind as MachineKind
from smlt.planners.machines import MachineForecaster, Machines, fleets_of
from smlt.planners.ranking import ranked
from smlt.planners.yardstick import NEARLY, Basis, Yardstick

Outcome = Literal["less", "tie", "more"]
"""How one range stands to another."""

MACHINES: Sequence[tuple[MachineKind, bool]] = (("vm", False), ("vm", True), ("gpu", False), ("gpu", True))
"""Kinds of machines, and whether at spot prices."""


@dataclass(frozen=True)
class Comparison:
    """Contenders, and on what basis.

    Attributes:
        contenders: in the order of the backends; functions first, then machines.
        basis: what was made equal; None where each has its own best fleet.
        yardstick: what it was made equal to.
        reference: whose fleet that is.
        request: of the first backend: objective and limits.
    """

    contenders: tuple[Contender, ...]
    basis: Basis | None
    yardstick: Yardstick | None
    reference: Contender
    request: PlanRequest

    def quickest(self, kind: str | None = None) -> Contender:
        """The least time, likely; of one kind, if that is given."""
        return min(self._of(kind), key=lambda each: each.finish_s.likely)

    def cheapest(self, kind: str | None = None) -> Contender:
        """The least money, likely; of one kind, if that is given."""
        return min(self._of(kind), key=lambda each: each.cost_usd.likely)

    def best(self, kind: str | None = None) -> Contender:
        """The best by limits and objective, as `smlt plan` ranks; of one kind, if that is given."""
        return best_of(self._of(kind), self.request)

    def verdicts(self) -> list[Verdict]:
        """The best functions that cost money against the best machines: on demand, at spot prices, with a GPU."""
        paid = [each for each in self._of("functions") if each.cost_usd.likely]
        found = [
            [each for each in self.contenders if (each.kind, each.spot) == (kind, spot)] for kind, spot in MACHINES
        ]
        return [
            Verdict.of(best_of(paid, self.request), best_of(machines, self.request))
            for machines in found
            if machines and paid
        ]

    def _of(self, kind: str | None) -> list[Contender]:
        return [each for each in self.contenders if kind in (None, each.kind)]


def outcome(one: Range, other: Range) -> Outcome:
    """How one range stands to another; a tie where they have a point in common."""
    if one.low <= other.high and other.low <= one.high:
        return "tie"
    return "less" if one.likely < other.likely else "more"


@dataclass(frozen=True)
class Verdict:
    """Functions against machines.

    Attributes:
        functions, machines: the best of each.
        time, cost: how the machines' stand to the functions'.
        better: which to choose; `depends` where one is quicker and the other cheaper.
    """

    functions: Contender
    machines: Contender
    time: Outcome
    cost: Outcome
    better: Literal["functions", "machines", "tie", "depends"]

    @classmethod
    def of(cls, functions: Contender, machines: Contender) -> Verdict:
        """By time and money; what misses a limit that the other keeps is not the better choice."""
        time = outcome(machines.finish_s, functions.finish_s)
        cost = outcome(machines.cost_usd, functions.cost_usd)
        missed = [each.forecast.standing == "missed" for each in (functions, machines)]
        better: Literal["functions", "machines", "tie", "depends"] = "tie"
        if missed[0] != missed[1]:
            better = "machines" if missed[0] else "functions"
        elif {time, cost} == {"less", "more"}:
            better = "depends"
        elif "less" in (time, cost):
            better = "machines"
        elif "more" in (time, cost):
            better = "functions"
        return cls(functions, machines, time, cost, better)


def compare(
    planned: Sequence[Planned], backends: Sequence[str], basis: Basis | None, usd: float | None = None
) -> Comparison:
    """Contenders of one job.

    Args:
        planned: the job's survey for each backend, with scenes.
        backends: their names.
        basis: what is made equal; None to take each one's own best.
        usd: with the basis `usd`, what all may spend; None for what the dearest of the own best fleets does.
    """
    own = [
        on_functions(name, each.request, each.survey.chosen or each.survey.plans[0])
        for each, name in zip(planned, backends, strict=True)
    ]
    reference = _reference(own, planned)
    yardstick = None
    if basis is not None:
        allocation, vcpus = reference.plan.allocation, reference.forecast.vcpus
        money = usd if usd is not None else max(each.cost_usd.likely for each in own)
        yardstick = Yardstick(basis, allocation.workers, vcpus, allocation.memory_mib, money)
    found: list[Contender] = []
    for each, name, best in zip(planned, backends, own, strict=True):
        found.append(_equal_functions(each, name, yardstick) if yardstick else best)
        found += _machines(each.request, name, yardstick)
    return Comparison(tuple(found), basis, yardstick, reference, planned[0].request)


def best_of(contenders: Iterable[Contender], request: PlanRequest) -> Contender:
    """The best by limits and objective, as `smlt plan` ranks."""
    found = list(contenders)
    best = ranked([each.plan for each in found], request)[0]
    return next(each for each in found if each.plan is best)


def _reference(own: Sequence[Contender], planned: Sequence[Planned]) -> Contender:
    """Whose fleet the others are made equal to: this machine's, which is what it is; else the best of all."""
    here = [best for best, each in zip(own, planned, strict=True) if each.request.vcpus_at_hand is not None]
    return here[0] if here else best_of(own, planned[0].request)


def _equal_functions(planned: Planned, name: str, yardstick: Yardstick) -> Contender:
    if yardstick.basis == "usd":
        plan, unequal = yardstick.fastest(planned.survey.plans, planned.request)
    else:
        plan, unequal = yardstick.functions(planned.request)
    return on_functions(name, planned.request, plan, unequal)


def _machines(request: PlanRequest, name: str, yardstick: Yardstick | None) -> Iterator[Contender]:
    """The best machines of each kind that the provider sells."""
    forecaster = MachineForecaster(request)
    for kind, spot in MACHINES:
        fleets = list(_fleets(request, kind, spot, yardstick))
        if not fleets:
            continue
        plans = [forecaster.plan(machines) for machines in fleets]
        plan, unequal = _chosen(plans, request, yardstick)
        machines = next(machines for machines, each in zip(fleets, plans, strict=True) if each is plan)
        if yardstick and yardstick.basis != "usd":
            offer = scene_of(request).catalog.vms[machines.offer]
            has = machines.count * yardstick.of(offer.vcpus, offer.memory_gib * 1024)
            unequal = "one GPU, whatever the basis" if offer.gpu else yardstick.unequal(has)
        yield on_machines(name, request, kind, machines, plan, unequal)


def _fleets(request: PlanRequest, kind: MachineKind, spot: bool, yardstick: Yardstick | None) -> Iterator[Machines]:
    """What may be chosen from: all, or of each machine as many as are equal."""
    found = fleets_of(request, kind, spot=spot)
    if yardstick is None or yardstick.basis == "usd" or kind == "gpu":
        yield from found
        return
    vms = scene_of(request).catalog.vms
    sizes = {name: yardstick.of(vms[name].vcpus, vms[name].memory_gib * 1024) for name in {one.offer for one in found}}
    counts = {name: yardstick.count(size) for name, size in sizes.items()}
    least = min((counts[name] * size for name, size in sizes.items()), default=0.0)
    for name, count in sorted(counts.items()):
        if count * sizes[name] <= least * NEARLY and count <= request.global_batch:
            yield Machines(name, count, spot)


def _chosen(plans: Sequence[Plan], request: PlanRequest, yardstick: Yardstick | None) -> tuple[Plan, str]:
    if yardstick and yardstick.basis == "usd":
        return yardstick.fastest(plans, request)
    return ranked(plans, request)[0], ""

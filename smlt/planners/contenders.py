"""Contenders: ways to do one job, on functions or on machines, with ranges that may be held against one another.

These ranges hold what differs between contenders: speeds and prices, as sure as the price list is. What is not known of
the task itself moves all of them alike and is left out. A contender's plan has the forecast that `smlt plan` prints.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from smlt.core.catalog import FigurePath, Provenance
from smlt.core.forecast import Forecast, Range
from smlt.core.offers import Confidence
from smlt.core.planner import Plan, PlanRequest
from smlt.planners.forecasts import Forecaster, scene_of
from smlt.planners.machines import Kind as MachineKind
from smlt.planners.machines import MachineForecaster, Machines

Kind = Literal["functions"] | MachineKind

PRICE_SPREADS: Mapping[Confidence, float] = {"high": 1.01, "medium": 1.1, "low": 1.3}
"""How far, as a factor, a price may be off at one standard deviation, by the catalog's confidence. smlt's judgement:
regions of one provider differ by 14 to 40 %, spot prices change."""


@dataclass(frozen=True)
class Contender:
    """One way to do the job.

    Attributes:
        backend: where.
        kind: functions, virtual machines, or a machine with a GPU.
        offer: of the price list; of functions their kind.
        spot: whether the machines may be taken away, for which nothing is counted.
        plan: its fleet, and the forecast as `smlt plan` would print it.
        finish_s, cost_usd: to be held against other contenders' (see above).
        usd_per_h: of the whole fleet while it runs.
        price: where its price comes from.
        unequal: in what it could not be made equal to others; empty where it is, or where nothing is made equal.
    """

    backend: str
    kind: Kind
    offer: str
    spot: bool
    plan: Plan
    finish_s: Range
    cost_usd: Range
    usd_per_h: float
    price: Provenance
    unequal: str = ""

    @property
    def forecast(self) -> Forecast:
        """Of the plan."""
        assert self.plan.forecast is not None  # only what was predicted is compared
        return self.plan.forecast


def on_functions(backend: str, request: PlanRequest, plan: Plan, unequal: str = "") -> Contender:
    """A fleet of functions."""
    scene = scene_of(request)
    narrow = Forecaster(_sharing_task(request)).forecast(plan.allocation)
    paths = {item: _price_path(item, plan, request) for item, usd in narrow.cost_items_usd.items() if usd}
    rate = scene.catalog.function.usd_per_s(plan.allocation.memory_mib) * plan.allocation.workers * 3600
    if "channel" in narrow.cost_items_usd:
        rate += scene.catalog.servers[_channel_entry(plan, request)].usd_per_h
    return Contender(
        backend=backend,
        kind="functions",
        offer=scene.functions,
        spot=False,
        plan=plan,
        finish_s=narrow.finish_s,
        cost_usd=_with_prices(narrow, {item: scene.catalog.provenance(path) for item, path in paths.items()}),
        usd_per_h=rate,
        price=scene.catalog.provenance(_price_path("functions", plan, request)),
        unequal=unequal,
    )


def on_machines(
    backend: str, request: PlanRequest, kind: MachineKind, machines: Machines, plan: Plan, unequal: str = ""
) -> Contender:
    """A fleet of machines, with the plan that was made for it."""
    catalog = scene_of(request).catalog
    narrow = MachineForecaster(_sharing_task(request)).plan(machines).forecast
    assert narrow is not None  # machines are always predicted
    price = catalog.provenance(("vms", machines.offer, "spot_usd_per_h" if machines.spot else "usd_per_h"))
    return Contender(
        backend=backend,
        kind=kind,
        offer=machines.offer,
        spot=machines.spot,
        plan=plan,
        finish_s=narrow.finish_s,
        cost_usd=_with_prices(narrow, {"machines": price}),
        usd_per_h=machines.count * catalog.vms[machines.offer].usd(3600, spot=machines.spot),
        price=price,
        unequal=unequal,
    )


def _sharing_task(request: PlanRequest) -> PlanRequest:
    return replace(request, scene=replace(scene_of(request), shares_task=True))


def _price_path(item: str, plan: Plan, request: PlanRequest) -> FigurePath:
    """Where the price of an item of a bill stands."""
    scene = scene_of(request)
    if item == "functions":
        offer = scene.catalog.functions.get(scene.functions)
        key = "usd_per_vcpu_s" if offer is not None and offer.usd_per_vcpu_s else "usd_per_gib_s"
        return ("functions", scene.functions, key) if offer is not None else ("function", key)
    entry = _channel_entry(plan, request)
    return ("servers", entry, "usd_per_h") if item == "channel" else ("stores", entry, "usd_per_put")


def _channel_entry(plan: Plan, request: PlanRequest) -> str:
    return next(each.entry for each in scene_of(request).channels if each.name == plan.allocation.sync.channel)


def _with_prices(forecast: Forecast, prices: Mapping[str, Provenance]) -> Range:
    """A forecast's cost, as sure as its time and its prices are together; a price weighs as much as its item does."""
    cost = forecast.cost_usd
    if not cost.likely:
        return cost
    price = sum(
        forecast.cost_items_usd[item] / cost.likely * math.log(PRICE_SPREADS[said.confidence])
        for item, said in prices.items()
    )
    return Range(
        cost.likely * math.exp(-math.hypot(math.log(cost.likely / cost.low), price)),
        cost.likely,
        cost.likely * math.exp(math.hypot(math.log(cost.high / cost.likely), price)),
    )

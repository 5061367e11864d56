"""Which of many forecasts is best: within the limits, by the objective. Pure functions; knows nothing of the model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from smlt.core.forecast import Forecast, Nearest, Objective, Range, pareto
from smlt.core.planner import Plan, PlanRequest

SMALLEST_USD = 1e-9
"""Below this money is nothing, and logarithms of it say nothing."""

LIMITS = ("deadline", "budget", "memory", "max_workers", "time_limit")


def ranked(plans: Sequence[Plan], request: PlanRequest) -> list[Plan]:
    """Plans, best first: those that keep all limits by the objective; then those that may keep them, surest first; then
    those that do not, nearest first."""
    distance = _distance(request.objective, [_of(plan) for plan in plans])

    def key(plan: Plan) -> tuple[float, ...]:
        forecast = _of(plan)
        level = ("met", "uncertain", "missed").index(forecast.standing)
        strain = _strain(forecast, request) if level else 0.0
        allocation = plan.allocation
        return (level, strain, *distance(forecast), allocation.workers, allocation.memory_mib)

    return sorted(plans, key=key)


def binding_limit(plans: Sequence[Plan], request: PlanRequest) -> str | None:
    """The limit without which another plan would be best; of several, the one that changes most."""
    best = ranked(plans, request)[0]
    gains: dict[str, float] = {}
    for limit in LIMITS:
        if not any(limit in _of(plan).limits for plan in plans):
            continue
        freed = [_without(plan, limit) for plan in plans]
        other = ranked(freed, _unlimited(request, limit))[0]
        if other.allocation == best.allocation:
            continue
        before, after = _of(best), _of(other)
        relaxed = before.standing == "missed" != after.standing
        gains[limit] = math.inf if relaxed else _gain(before, after)
    return max(gains, key=lambda limit: gains[limit]) if gains else None


def nearest(plans: Sequence[Plan], request: PlanRequest) -> Nearest | None:
    """The deadline and budget nearest to those asked for, by logarithms, that some plan keeps even in its high case."""
    found: list[tuple[float, Nearest]] = []
    for plan in plans:
        forecast = _of(plan)
        if any(
            standing == "missed" for name, standing in forecast.limits.items() if name not in ("deadline", "budget")
        ):
            continue
        deadline_s = max(request.deadline_s or 0.0, forecast.finish_s.high)
        budget_usd = max(request.budget_usd or 0.0, forecast.cost_usd.high)
        far = _log_ratio(deadline_s, request.deadline_s) + _log_ratio(budget_usd, request.budget_usd)
        deadline_s, budget_usd = _rounded_up(deadline_s), _rounded_up(budget_usd)
        found.append((far, Nearest(deadline_s, budget_usd, plan.allocation.workers, plan.allocation.memory_mib)))
    return min(found, key=lambda item: item[0])[1] if found else None


def _rounded_up(value: float) -> float:
    """To three digits, so that what is said can be asked for."""
    if value <= 0:
        return 0.0
    unit = math.floor(math.log10(value)) - 2
    return round(math.ceil(value / math.pow(10, unit)) * math.pow(10, unit), max(0, -unit))


def _of(plan: Plan) -> Forecast:
    assert plan.forecast is not None  # only plans of planners that predict are ranked
    return plan.forecast


def _distance(objective: Objective, forecasts: Sequence[Forecast]) -> Callable[[Forecast], tuple[float, float]]:
    """How far from the objective; the knee is nearest to the quickest and cheapest there is, by logarithms that run
    from 0 to 1 over the plans on the front."""
    if objective == "fastest":
        return lambda forecast: (forecast.finish_s.likely, forecast.cost_usd.likely)
    if objective == "cheapest":
        return lambda forecast: (forecast.cost_usd.likely, forecast.finish_s.likely)
    within = [each for each in forecasts if each.standing == "met"] or list(forecasts)
    front = pareto(within)
    times = [math.log(each.finish_s.likely) for each in front]
    money = [_log_usd(each) for each in front]

    def far(forecast: Forecast) -> tuple[float, float]:
        x = (math.log(forecast.finish_s.likely) - min(times)) / ((max(times) - min(times)) or 1.0)
        y = (_log_usd(forecast) - min(money)) / ((max(money) - min(money)) or 1.0)
        return math.hypot(x, y), forecast.finish_s.likely

    return far


def _strain(forecast: Forecast, request: PlanRequest) -> float:
    """How much the limit that is kept least strains the forecast: standard deviations beyond, as logarithms."""
    strains = [0.0]
    if request.deadline_s is not None:
        strains.append(_deviations(forecast.finish_s, request.deadline_s))
    if request.budget_usd is not None:
        strains.append(_deviations(forecast.cost_usd, request.budget_usd))
    others = [name for name, standing in forecast.limits.items() if standing == "missed"]
    return max(strains) + 1000.0 * sum(name not in ("deadline", "budget") for name in others)


def _deviations(found: Range, limit: float) -> float:
    if found.high <= limit:
        return 0.0
    one = math.log(found.high / found.likely) if found.high > found.likely > 0 else 0.1
    return math.log(found.high / limit) / max(one, 0.01)


def _without(plan: Plan, limit: str) -> Plan:
    forecast = _of(plan)
    limits = {name: standing for name, standing in forecast.limits.items() if name != limit}
    return replace(plan, forecast=replace(forecast, limits=limits))


def _unlimited(request: PlanRequest, limit: str) -> PlanRequest:
    if limit == "deadline":
        return replace(request, deadline_s=None)
    return replace(request, budget_usd=None) if limit == "budget" else request


def _gain(before: Forecast, after: Forecast) -> float:
    return abs(math.log(before.finish_s.likely / after.finish_s.likely)) + abs(_log_usd(before) - _log_usd(after))


def _log_usd(forecast: Forecast) -> float:
    return math.log(max(forecast.cost_usd.likely, SMALLEST_USD))


def _log_ratio(needed: float, asked: float | None) -> float:
    return math.log(needed / asked) if asked else 0.0

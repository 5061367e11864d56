"""Planners that ask the model: each says which fleets it looks at, all else (forecasts, limits, ranking) is here."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import replace

from smlt.core.errors import ConfigError
from smlt.core.planner import Allocation, Observation, Plan, Planner, PlanRequest, Survey
from smlt.core.units import format_duration, format_usd
from smlt.planners.forecasts import Forecaster, scene_of
from smlt.planners.ranking import binding_limit, nearest, ranked

ALL_UP_TO = 16
"""Every number of workers up to here is looked at; from here on those that are an eighth apart."""

WANTED = {
    "cheapest": "the cheapest",
    "fastest": "the fastest",
    "knee": "the knee of the curve: more money buys little time from here on",
}


class ModelPlanner(Planner):
    """Ranks the fleets of `_fleets` by their forecasts, which observations correct."""

    needs_scene = True

    def __init__(self) -> None:
        self._observations: list[Observation] = []

    def observe(self, observation: Observation) -> None:
        """Learn from a generation."""
        self._observations.append(observation)

    def forecaster(self, request: PlanRequest) -> Forecaster:
        """By all that was observed so far."""
        return Forecaster(request, tuple(self._observations))

    def _do_propose(self, request: PlanRequest) -> Plan:
        survey = self._do_survey(request)
        if survey.chosen is None:
            raise ConfigError(*refusal(survey))
        return survey.chosen

    def _do_survey(self, request: PlanRequest) -> Survey:
        forecaster = self.forecaster(request)
        looked_at = dict.fromkeys((*self._fleets(request, forecaster), *beyond(request)))
        plans = [Plan(allocation, "", forecaster.forecast(allocation)) for allocation in looked_at]
        return survey_of(plans, request, forecaster)

    @abstractmethod
    def _fleets(self, request: PlanRequest, forecaster: Forecaster) -> Iterable[Allocation]:
        """What is looked at, within `request.max_workers`."""


class AnalyticPlanner(ModelPlanner):
    """The model's grid: all sizes on offer, worker counts an eighth apart, every channel the job allows."""

    def _fleets(self, request: PlanRequest, forecaster: Forecaster) -> Iterable[Allocation]:
        del forecaster
        return grid(request, spaced(request.max_workers))


class ExhaustivePlanner(ModelPlanner):
    """Every number of workers: slow where thousands are allowed, and the ground truth of the others."""

    def _fleets(self, request: PlanRequest, forecaster: Forecaster) -> Iterable[Allocation]:
        del forecaster
        return grid(request, range(1, request.max_workers + 1))


def grid(request: PlanRequest, counts: Iterable[int]) -> list[Allocation]:
    """Fleets of these sizes; what the user fixed stays as it is."""
    sizes = (request.memory_mib,) if request.memory_mib is not None else request.memory_choices_mib
    if request.vcpus_at_hand is not None:
        sizes = sizes[:1]  # labels, where all share one machine
    workers = (request.workers,) if request.workers is not None else tuple(counts)
    channels = scene_of(request).channels
    return [
        Allocation(count, memory_mib, replace(request.sync, channel=channel.name))
        for count in workers
        for memory_mib in sizes
        for channel in (channels if count > 1 else channels[:1])
    ]


def spaced(most: int) -> list[int]:
    """Numbers of workers worth looking at, up to the most."""
    counts = list(range(1, min(most, ALL_UP_TO) + 1))
    while counts[-1] < most:
        counts.append(min(most, counts[-1] + max(1, counts[-1] // 8)))
    return counts


def beyond(request: PlanRequest) -> list[Allocation]:
    """Fleets of twice the most workers, never chosen: they show whether that limit binds."""
    if request.workers is not None or 2 * request.max_workers > request.global_batch:
        return []
    return grid(request, (2 * request.max_workers,))


def survey_of(plans: Sequence[Plan], request: PlanRequest, forecaster: Forecaster) -> Survey:
    """Forecast plans as a survey: ranked, the best one chosen if it keeps the limits."""
    order = ranked(plans, request)
    best = order[0]
    is_feasible = best.forecast is not None and best.forecast.standing != "missed"
    told = [
        replace(plan, reason=_reason(plan, request, is_best=number == 0 and is_feasible))
        for number, plan in enumerate(order)
        if plan.allocation.workers <= request.max_workers
    ]
    return Survey(
        plans=tuple(told),
        chosen=told[0] if is_feasible else None,
        binding_limit=binding_limit(order, request),
        nearest=None if is_feasible else nearest(order, request),
        assumptions=forecaster.assumptions(told[0].allocation),
    )


def refusal(survey: Survey) -> tuple[str, str]:
    """Message and hint of a request that no fleet satisfies."""
    best = survey.plans[0].forecast
    assert best is not None  # plans of a model have forecasts
    missed = ", ".join(name.replace("_", " ") for name, standing in best.limits.items() if standing == "missed")
    message = (
        f"no fleet keeps the limits ({missed}): the nearest takes {format_duration(best.finish_s.likely)} and "
        f"{format_usd(best.cost_usd.likely)} (compute speed: {best.speed})"
    )
    if survey.nearest is None:
        return message, f"a worker needs about {best.memory_mib.likely:.0f} MiB; choose more memory or a smaller batch"
    near = survey.nearest
    return message, (f"{near.flags} can be kept, by {near.workers} workers of {near.memory_mib} MiB")


def _reason(plan: Plan, request: PlanRequest, *, is_best: bool) -> str:
    assert plan.forecast is not None  # plans of a model have forecasts
    limits = plan.forecast.limits
    missed = [name for name, standing in limits.items() if standing == "missed"]
    unsure = [name for name, standing in limits.items() if standing == "uncertain"]
    if missed:
        return f"misses: {', '.join(missed)}"
    told = f"{WANTED[request.objective]}" if is_best else "keeps the limits"
    if unsure:
        source = " by a guessed compute speed" if plan.forecast.speed == "guessed" else ""
        return f"{told}, not sure to keep: {', '.join(unsure)}{source}"
    return told

"""The default planner: Optuna's search with constraints, from the model's best fleets on, corrected by observations.

A limit is a constraint of a trial and never a failure of it: a fleet that ran out of memory is told as a completed
trial whose memory constraint is violated, so that the sampler learns where memory ends.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from smlt.core.forecast import Forecast
from smlt.core.planner import Allocation, Plan, PlanRequest
from smlt.planners.forecasts import Forecaster, scene_of
from smlt.planners.modelled import ModelPlanner, grid, spaced
from smlt.planners.ranking import SMALLEST_USD, ranked

if TYPE_CHECKING:
    from optuna.trial import Trial

ENQUEUED = 8
"""The model's best fleets, which are the first trials."""

TRIALS = 40
"""Of them, 32 are the sampler's own; they look between the grid's points."""

VIOLATED = 1.0
"""A constraint that is violated, nobody knows by how much."""


class OptunaPlanner(ModelPlanner):
    """Searches workers, memory and channel with TPE under constraints."""

    def _fleets(self, request: PlanRequest, forecaster: Forecaster) -> Iterable[Allocation]:
        import optuna

        points = grid(request, spaced(request.max_workers))
        plans = ranked([Plan(each, "", forecaster.forecast(each)) for each in points], request)
        if len(points) <= ENQUEUED:  # nothing lies between
            return points
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=ENQUEUED)
            study = optuna.create_study(sampler=sampler)
            space = _Space(request)
            for seen in self._observations:
                study.enqueue_trial(space.point(seen.allocation))
            for plan in plans[:ENQUEUED]:
                study.enqueue_trial(space.point(plan.allocation))
            found = []
            for _ in range(TRIALS + len(self._observations)):
                trial = study.ask()
                allocation = space.allocation(trial)
                forecast = forecaster.forecast(allocation)
                _constrain(trial, allocation, forecast, request)
                study.tell(trial, _value(forecast, request))
                found.append(allocation)
        finally:
            optuna.logging.set_verbosity(verbosity)
        return (*(plan.allocation for plan in plans), *(each for each in found if each.workers <= request.max_workers))


class _Space:
    """What is searched: what the user fixed is no variable."""

    def __init__(self, request: PlanRequest) -> None:
        self._request = request
        here = request.vcpus_at_hand is not None
        fixed = (request.memory_mib,) if request.memory_mib is not None else None
        self._sizes = fixed or (request.memory_choices_mib[:1] if here else request.memory_choices_mib)
        self._channels = [channel.name for channel in scene_of(request).channels]

    def point(self, allocation: Allocation) -> dict[str, Any]:
        """A fleet as the parameters of a trial; sizes that are not on offer as the nearest."""
        sizes = self._sizes
        nearest = min(range(len(sizes)), key=lambda number: abs(sizes[number] - allocation.memory_mib))
        return {"workers": allocation.workers, "memory": nearest, "channel": allocation.sync.channel}

    def allocation(self, trial: Trial) -> Allocation:
        """The fleet of a trial."""
        fixed = self._request.workers
        workers = fixed or trial.suggest_int("workers", 1, self._request.max_workers, log=True)
        memory_mib = self._sizes[trial.suggest_int("memory", 0, len(self._sizes) - 1)]
        channel = trial.suggest_categorical("channel", self._channels)
        if workers == 1:  # who needs none
            channel = self._channels[0]
        return Allocation(workers, memory_mib, replace(self._request.sync, channel=channel))


def _constrain(trial: Trial, allocation: Allocation, forecast: Forecast, request: PlanRequest) -> None:
    """The limits, as logarithms of how far the high case is beyond them: more than 0 is violated."""
    if request.deadline_s is not None:
        trial.set_constraint("deadline", math.log(forecast.finish_s.high / request.deadline_s))
    if request.budget_usd is not None:
        high = max(forecast.cost_usd.high, SMALLEST_USD)
        trial.set_constraint("budget", math.log(high / max(request.budget_usd, SMALLEST_USD)))
    if "memory" in forecast.limits:
        beyond = math.log(forecast.memory_mib.likely / allocation.memory_mib)
        ran_out = forecast.limits["memory"] == "missed"
        trial.set_constraint("memory", max(beyond, VIOLATED) if ran_out else beyond)
    trial.set_constraint("quota", math.log(allocation.workers / request.max_workers))
    trial.set_constraint("time_limit", VIOLATED if "time_limit" in forecast.limits else -VIOLATED)


def _value(forecast: Forecast, request: PlanRequest) -> float:
    """What is minimised, as a logarithm; the knee weighs time and money alike."""
    time = math.log(forecast.finish_s.likely)
    money = math.log(max(forecast.cost_usd.likely, SMALLEST_USD))
    return {"fastest": time, "cheapest": money, "knee": time + money}[request.objective]

"""The paper's planner, as a baseline: Bayesian optimization over workers and memory that knows nothing beforehand.

As SMLT's paper (arXiv 2205.01853) describes it: a Gaussian process over (workers, memory), expected improvement as the
acquisition, observed iterations as its only knowledge, no model and no prior. What the paper leaves open is fixed
here: both axes as logarithms on 0 to 1, a squared-exponential kernel of length 0.3, 5 % noise, and two first points,
the middle of the space and a quarter of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from smlt.core.planner import Allocation, Observation, Plan, Planner, PlanRequest
from smlt.core.task import Array
from smlt.planners.analytic import Fleet, Prices, RunTime, Workload, run_cost
from smlt.planners.forecasts import scene_of
from smlt.planners.modelled import spaced

LENGTH = 0.3
NOISE = 0.05
ENOUGH = 0.01
"""Where less than this part of the best is expected to be gained, the best that was seen is kept."""

BEYOND = 3.0
"""How many times worse than the limit itself a fleet counts that breaks a limit, or ran out of memory."""


@dataclass(frozen=True)
class _Point:
    """A fleet, and its place on 0 to 1."""

    workers: int
    memory_mib: int
    at: tuple[float, float]


class BoPlanner(Planner):
    """Expected improvement over what was observed; without observations, the middle of the space."""

    needs_scene = True

    def __init__(self) -> None:
        self._observations: list[Observation] = []

    def observe(self, observation: Observation) -> None:
        """Learn from a generation."""
        self._observations.append(observation)

    def settle(self, request: PlanRequest) -> Plan | None:
        """The best of what was observed."""
        if not self._observations:
            return None
        best = min(self._observations, key=lambda each: worth(each, request)).allocation
        return Plan(best, f"the best of {len(self._observations)} that were tried")

    def _do_propose(self, request: PlanRequest) -> Plan:
        points = _space(request)
        seen = {
            (each.allocation.workers, each.allocation.memory_mib): math.log(worth(each, request))
            for each in self._observations
        }
        known = [point for point in points if (point.workers, point.memory_mib) in seen]
        open_points = [point for point in points if point not in known]
        if not open_points:
            best = min(known, key=lambda point: seen[point.workers, point.memory_mib])
            return _plan(best, request, "the best of all, which were tried")
        if len(known) < 2:
            target = (0.5, 0.5) if not known else (0.25, 0.25)
            first = min(open_points, key=lambda point: math.dist(point.at, target))
            return _plan(first, request, "nothing is known yet: a first point of the space")
        values = np.array([seen[point.workers, point.memory_mib] for point in known])
        gains = expected_improvement(
            np.array([point.at for point in known]), values, np.array([point.at for point in open_points])
        )
        if float(gains.max()) < ENOUGH:
            best = known[int(values.argmin())]
            return _plan(best, request, f"the best of {len(known)} that were tried")
        return _plan(open_points[int(gains.argmax())], request, "the largest expected improvement")


def worth(observation: Observation, request: PlanRequest) -> float:
    """What the objective is worth for a fleet that was seen, more than 0; less is better."""
    scene = scene_of(request)
    if observation.out_of_memory:
        return BEYOND * max(request.deadline_s or 0.0, request.budget_usd or 0.0, 1e6)
    allocation = observation.allocation
    seconds = scene.steps * observation.step_seconds
    work = Workload(scene.steps, request.global_batch, 0.0, scene.profile.regions)
    offer = next((each for each in scene.channels if each.name == allocation.sync.channel), scene.channels[0])
    vcpus = scene.catalog.function.vcpus
    fleet = Fleet(
        allocation.workers,
        allocation.memory_mib,
        vcpus.at(allocation.memory_mib) if vcpus else 1.0,
        offer.capabilities,
        allocation.sync.codec,
        allocation.sync.exchange_every,
    )
    stored = Prices(scene.catalog, store=offer.entry if offer.table == "stores" else "")
    usd = max(run_cost(work, fleet, RunTime(0.0, seconds, 0.0, 0), stored)["total"], 1e-9)
    value = {"fastest": seconds, "cheapest": usd, "knee": seconds * usd}[request.objective]
    over = max(seconds / (request.deadline_s or seconds), usd / (request.budget_usd or usd))
    return value if over <= 1 else value * BEYOND * over


def expected_improvement(known: Array, values: Array, asked: Array) -> Array:
    """How much lower than the lowest of `values` a Gaussian process expects to come at each point asked for.

    Args:
        known: where it was looked, shape (n, d).
        values: what was found there, shape (n,).
        asked: shape (m, d).
    """
    middle, scale = float(values.mean()), float(values.std()) or 1.0
    normal = (values - middle) / scale
    gram = _kernel(known, known) + NOISE**2 * np.eye(len(known))
    across = _kernel(asked, known)
    mean = across @ np.linalg.solve(gram, normal)
    variance = 1.0 - np.einsum("ij,ji->i", across, np.linalg.solve(gram, across.T))
    deviation = np.sqrt(np.maximum(variance, 1e-12))
    z = (normal.min() - mean) / deviation
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    below = np.array([0.5 * (1 + math.erf(each / math.sqrt(2))) for each in z])
    gains: Array = scale * deviation * (z * below + density)
    return gains


def _kernel(one: Array, other: Array) -> Array:
    squares = ((one[:, None, :] - other[None, :, :]) ** 2).sum(axis=2)
    result: Array = np.exp(-squares / (2 * LENGTH**2))
    return result


def _space(request: PlanRequest) -> list[_Point]:
    sizes = (request.memory_mib,) if request.memory_mib is not None else request.memory_choices_mib
    counts = [request.workers] if request.workers is not None else spaced(request.max_workers)
    return [
        _Point(workers, memory, (_place(workers, counts), _place(memory, sizes)))
        for workers in counts
        for memory in sizes
    ]


def _place(value: int, among: list[int] | tuple[int, ...]) -> float:
    low, high = math.log(min(among)), math.log(max(among))
    return (math.log(value) - low) / (high - low) if high > low else 0.5


def _plan(point: _Point, request: PlanRequest, reason: str) -> Plan:
    return Plan(Allocation(point.workers, point.memory_mib, request.sync), reason)

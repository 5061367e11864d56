"""Forecast: what a fleet is predicted to take and cost, how sure that is, and how it stands to the limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Objective = Literal["cheapest", "fastest", "knee"]
"""What is wanted within the limits; the knee is where more money begins to buy little time."""

Source = Literal["guessed", "profiled", "observed"]
"""Where a compute speed comes from: nobody has measured it; a profile; steps of this very run."""

Standing = Literal["met", "uncertain", "missed"]
"""How a forecast stands to a limit: even its high case keeps it; another case does; not even its low case."""


@dataclass(frozen=True)
class Range:
    """A predicted figure.

    Attributes:
        likely: the most probable.
        low, high: two cases of three lie between.
    """

    low: float
    likely: float
    high: float

    def standing(self, limit: float) -> Standing:
        """How it stands to a limit that it must not pass."""
        return "met" if self.high <= limit else "uncertain" if self.low <= limit else "missed"


@dataclass(frozen=True)
class StepForecast:
    """Seconds of a step at the likely case, by what they are spent on."""

    compute_s: float
    sync_s: float
    load_s: float
    total_s: float


@dataclass(frozen=True)
class Forecast:
    """What a fleet would take and cost.

    Attributes:
        vcpus: of a worker.
        step: of the job.
        steps: of the job.
        start_s: until the first step.
        handovers: that the platform's time limit asks for.
        finish_s: from the launch to the end of the last step.
        cost_usd: of all of it.
        cost_items_usd: the likely cost, as the ledger names its items.
        memory_mib: that a worker needs.
        limits: how it stands to each limit, by the limit's name.
        speed: where the compute speed comes from.
    """

    vcpus: float
    step: StepForecast
    steps: int
    start_s: float
    handovers: int
    finish_s: Range
    cost_usd: Range
    cost_items_usd: Mapping[str, float]
    memory_mib: Range
    limits: Mapping[str, Standing]
    speed: Source

    @property
    def standing(self) -> Standing:
        """How it stands to the limit that it keeps least."""
        found = self.limits.values()
        return "missed" if "missed" in found else "uncertain" if "uncertain" in found else "met"


@dataclass(frozen=True)
class Nearest:
    """Limits that a fleet of these many workers of this size would keep, where those that were asked for cannot be."""

    deadline_s: float
    budget_usd: float
    workers: int
    memory_mib: int

    @property
    def flags(self) -> str:
        """As they are asked for."""
        deadline, budget = (f"{value:.12f}".rstrip("0").rstrip(".") for value in (self.deadline_s, self.budget_usd))
        return f"--deadline {deadline}s --budget {budget}usd"


@dataclass(frozen=True)
class Assumption:
    """A figure that forecasts rest on: two cases of three lie within `spread` times of it; 1 for certain."""

    name: str
    value: float
    spread: float
    source: str


def pareto(forecasts: Sequence[Forecast]) -> list[Forecast]:
    """The forecasts than which none is both quicker and cheaper, quickest first."""
    front: list[Forecast] = []
    for each in sorted(forecasts, key=lambda each: (each.finish_s.likely, each.cost_usd.likely)):
        if not front or each.cost_usd.likely < front[-1].cost_usd.likely:
            front.append(each)
    return front

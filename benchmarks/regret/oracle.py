"""The best fleet there is, by a cloud's hidden truth, which planners never see."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.regret.workloads import DATASETS, MAX_WORKERS, Workload
from smlt.backends.simulated.backend import SimulatedBackend, SimulatedOptions
from smlt.backends.simulated.truth import MACHINE_SPREAD, START_TAIL, Truth
from smlt.core.scene import ChannelOffer
from smlt.core.sync.choice import cost_for

STALL_S = 4.0
"""Of a hand-over; a run begins so much later than its slowest function, too."""


SPARE = 1.05
"""What is reckoned is up to 5 % below what whole runs take: noise, checkpoints, looks of the controller."""


@dataclass(frozen=True)
class Fleet:
    """A fleet, and what it is expected to take and cost."""

    workers: int
    memory_mib: int
    channel: str
    seconds: float
    usd: float


class Oracle:
    """Knows one workload's truth."""

    def __init__(self, workload: Workload) -> None:
        self._workload, self._profile = workload, workload.profile
        options = SimulatedOptions(provider=workload.provider, seed=workload.seed)  # type: ignore[arg-type]
        self._backend = SimulatedBackend("simulated", options)
        self._truth: Truth = self._backend.truth(self._profile)
        self.fleets = list(self._all())

    def best(self, wanted: str, deadline_s: float | None = None, budget_usd: float | None = None) -> Fleet:
        """The best that keeps the limits: the `cheapest` or the `fastest`."""
        kept = [
            each
            for each in self.fleets
            if SPARE * each.seconds <= (deadline_s or math.inf) and SPARE * each.usd <= (budget_usd or math.inf)
        ]
        return min(kept, key=lambda each: each.usd if wanted == "cheapest" else each.seconds)

    def _all(self) -> Iterator[Fleet]:
        _, batch, _ = DATASETS[self._workload.dataset]
        for workers in range(1, MAX_WORKERS + 1):
            for memory_mib in self._backend.limits.memory_choices_mib:
                if memory_mib < self._truth.needs_mib(math.ceil(batch / workers)):
                    continue
                for offer in self._backend.channel_offers():
                    yield self._reckoned(workers, memory_mib, offer)
                    if workers == 1:
                        break

    def _reckoned(self, workers: int, memory_mib: int, offer: ChannelOffer) -> Fleet:
        truth, catalog = self._truth, self._backend.catalog
        _, batch, steps = DATASETS[self._workload.dataset]
        vcpus = catalog.function.vcpus.at(memory_mib) if catalog.function.vcpus else 1.0
        among = math.sqrt(2 * math.log(workers)) if workers > 1 else 0.0  # deviations of the largest of so many
        compute_s = truth.compute_s(math.ceil(batch / workers), vcpus) * math.exp(MACHINE_SPREAD * among)
        cost = cost_for(offer.capabilities, "fp32", self._profile.regions, workers)
        step_s = compute_s + truth.exchange_s(offer.name, cost, workers)
        start_s = truth.start_s * math.exp(START_TAIL * among) + workers / truth.launches_per_s + truth.build_s
        seconds = start_s + STALL_S + steps * step_s
        limit_s = self._backend.limits.function_time_limit_s or math.inf
        handovers = math.ceil(seconds / (limit_s - 2 * start_s)) - 1 if limit_s < seconds else 0
        seconds += handovers * STALL_S
        usd = workers * catalog.function.usd_per_s(memory_mib) * (seconds + handovers * 1.5 * start_s)
        if offer.table == "stores":
            puts, gets = (cost.requests.get(verb, 0) * workers * steps for verb in ("put", "get"))
            usd += catalog.stores[offer.entry].usd(puts=puts, gets=gets)
        elif workers > 1:
            usd += catalog.servers[offer.entry].usd(seconds)
        return Fleet(workers, memory_mib, offer.name, seconds, usd)

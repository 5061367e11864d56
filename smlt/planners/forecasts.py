"""From a request and an allocation to a forecast: the analytic model with a job's constants, and how sure they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from smlt.core.errors import ConfigError
from smlt.core.forecast import Assumption, Forecast, Range, Source, Standing, StepForecast
from smlt.core.planner import Allocation, Observation, PlanRequest
from smlt.core.scene import ChannelOffer, Scene
from smlt.planners.analytic import Fleet, Prices, RunTime, Workload, run_cost, run_time, start_s, step_time
from smlt.planners.constants import Values
from smlt.planners.fit import Fitted, Seen, fit
from smlt.planners.sources import constants_for

OPTIMIZER_STATES = 4
"""Copies of the parameters that training takes beside what building made, where no step was taken: gradients, two of
Adam's moments, and what the optimizer makes in passing."""

FIRST_STEP_MIB = 80.0
"""What a framework brings in with its first optimizer and step, which building alone does not show: torch, digits, 320
to 400 MiB (2026-11-24)."""

GUESSED_MEMORY_SPREAD = 1.5
"""Activations are not known where no step was taken."""


OF_COMPUTING = ("examples_per_vcpu_s", "vcpu_exponent", "step_base_s")
"""Constants that are the same over every channel."""


def scene_of(request: PlanRequest) -> Scene:
    """What the request says of the job and the place; raises ConfigError where nobody has looked."""
    if request.scene is None:
        raise ConfigError("this planner predicts, and nothing is known of the task", 'set [planner].name = "fixed"')
    return request.scene


@dataclass
class Forecaster:
    """Forecasts for one request.

    Args:
        request: with a scene.
        observations: of generations of this job.
    """

    request: PlanRequest
    observations: Sequence[Observation] = ()
    _fitted: dict[str, Fitted] = field(default_factory=dict)
    _told: dict[Allocation, Forecast] = field(default_factory=dict)

    @property
    def scene(self) -> Scene:
        """Of the request."""
        return scene_of(self.request)

    @property
    def speed(self) -> Source:
        """Where the compute speed comes from."""
        if any(not seen.out_of_memory for seen in self.observations):
            return "observed"
        return "guessed" if self.scene.profile.speed is None else "profiled"

    def forecast(self, allocation: Allocation) -> Forecast:
        """What a fleet would take and cost; kept, since searches come by the same fleets again and again."""
        if allocation not in self._told:
            self._told[allocation] = self._forecast(allocation)
        return self._told[allocation]

    def _forecast(self, allocation: Allocation) -> Forecast:
        scene, work, fleet = self.scene, self._work(), self._fleet(allocation)
        channel, fitted = self._channel(allocation), self._learned(allocation)
        values = fitted.values
        limits: dict[str, Standing] = {}
        try:
            time = run_time(work, fleet, values, scene.time_limit_s)
        except ConfigError:
            limits["time_limit"] = "missed"
            time = run_time(work, fleet, values)
        # Hand-overs and rounding are steps, of which slopes say nothing: how sure the rest is holds for all of it.
        sure = fitted.predict(lambda at: start_s(fleet.workers, at) + work.steps * step_time(work, fleet, at).seconds)
        finish = _scaled(time.seconds, sure.low / sure.likely, sure.high / sure.likely)
        prices = Prices(
            scene.catalog,
            store=channel.entry if channel.table == "stores" else "",
            server=channel.entry if channel.table == "servers" and fleet.workers > 1 else "",
        )
        costs = [
            run_cost(work, fleet, _stretched(time, end / finish.likely), prices)
            for end in (finish.low, finish.likely, finish.high)
        ]
        step, memory = step_time(work, fleet, values), self.memory(allocation)
        cost = Range(*(each["total"] for each in costs))
        return Forecast(
            vcpus=fleet.vcpus,
            step=StepForecast(step.compute_s, step.sync_s, step.load_s, step.seconds),
            steps=work.steps,
            start_s=time.start_s,
            handovers=time.handovers,
            finish_s=finish,
            cost_usd=cost,
            cost_items_usd={name: usd for name, usd in costs[1].items() if name != "total"},
            memory_mib=memory,
            limits={**limits, **self._standings(allocation, finish, cost, memory)},
            speed=self.speed,
        )

    def memory(self, allocation: Allocation) -> Range:
        """MiB that a worker needs: the process, an example's activations for each of a forward pass, and messages."""
        scene, profile = self.scene, self.scene.profile
        share = math.ceil(self.request.global_batch / allocation.workers)
        at_once = min(share, scene.micro_batch or share)
        sent = sum(region.size_bytes for region in profile.regions) * (2 if allocation.workers > 1 else 0)
        if profile.stepped_mib is None:
            weights = OPTIMIZER_STATES * sum(region.size_bytes for region in profile.regions)
            likely = profile.built_mib + FIRST_STEP_MIB + (weights + sent) / 2**20
            return _scaled(likely, 1.0, GUESSED_MEMORY_SPREAD)
        likely = profile.stepped_mib + ((at_once - 1) * (profile.example_bytes or 0.0) + sent) / 2**20
        return _scaled(likely, 1 / 1.1, 1.1)

    def assumptions(self, allocation: Allocation) -> tuple[Assumption, ...]:
        """The constants that a fleet's forecast rests on."""
        constants = self._learned(allocation).constants
        return tuple(Assumption(name, each.value, each.spread, each.source) for name, each in constants.items())

    def _standings(self, allocation: Allocation, finish: Range, cost: Range, memory: Range) -> dict[str, Standing]:
        request = self.request
        found: dict[str, Standing] = {}
        if request.deadline_s is not None:
            found["deadline"] = finish.standing(request.deadline_s)
        if request.budget_usd is not None:
            found["budget"] = cost.standing(request.budget_usd)
        if request.vcpus_at_hand is None:  # on this machine sizes are labels
            fits = memory.likely <= allocation.memory_mib  # who runs out of it has lost the step
            found["memory"] = memory.standing(allocation.memory_mib) if fits else "missed"
        if allocation.workers > request.max_workers:
            found["max_workers"] = "missed"
        if any(seen.out_of_memory and _at_least(seen.allocation, allocation) for seen in self.observations):
            found["memory"] = "missed"
        return found

    def _work(self) -> Workload:
        scene = self.scene
        return Workload(scene.steps, self.request.global_batch, 0.0, scene.profile.regions)

    def _fleet(self, allocation: Allocation) -> Fleet:
        request, sync = self.request, allocation.sync
        vcpus = self.scene.catalog.function.vcpus
        return Fleet(
            workers=allocation.workers,
            memory_mib=allocation.memory_mib,
            vcpus=request.vcpus_at_hand / allocation.workers
            if request.vcpus_at_hand
            else vcpus.at(allocation.memory_mib)
            if vcpus
            else 1.0,
            channel=self._channel(allocation).capabilities,
            codec=sync.codec,
            exchange_every=sync.exchange_every,
        )

    def _channel(self, allocation: Allocation) -> ChannelOffer:
        offered = {channel.name: channel for channel in self.scene.channels}
        if allocation.sync.channel not in offered:
            raise ConfigError(f"nothing is known of the speed of the channel {allocation.sync.channel!r}")
        return offered[allocation.sync.channel]

    def _learned(self, allocation: Allocation) -> Fitted:
        """The constants, by all that was seen; over another channel that tells how quickly the task computes."""
        channel = self._channel(allocation)
        if channel.name not in self._fitted:
            by_channel: dict[str, list[Seen]] = {}
            for each in self.observations:
                if not each.out_of_memory:
                    by_channel.setdefault(each.allocation.sync.channel, []).extend(self._seen(each))
            own = by_channel.pop(channel.name, [])
            priors = constants_for(self.scene, channel)
            for other in (offer for offer in self.scene.channels if offer.name in by_channel):
                found = fit(constants_for(self.scene, other), by_channel[other.name]).constants
                priors |= {name: found[name] for name in OF_COMPUTING if name in found}
            self._fitted[channel.name] = fit(priors, own)
        return self._fitted[channel.name]

    def _seen(self, observation: Observation) -> list[Seen]:
        """What it says of steps; of computing and of exchanging, where they were told apart."""
        work = replace(self._work(), global_batch=observation.global_batch)
        fleet = self._fleet(observation.allocation)

        def whole(values: Values) -> float:
            return step_time(work, fleet, values).seconds

        def computing(values: Values) -> float:
            return step_time(work, fleet, values).compute_s

        def exchanging(values: Values) -> float:
            return step_time(work, fleet, values).sync_s

        compute_s = observation.compute_seconds
        if compute_s is None or not 0 < compute_s < observation.step_seconds:
            return [Seen(whole, observation.step_seconds)]
        if fleet.workers == 1:
            return [Seen(computing, observation.step_seconds)]
        return [Seen(computing, compute_s), Seen(exchanging, observation.step_seconds - compute_s)]


def _at_least(ran_out: Allocation, other: Allocation) -> bool:
    """Whether another fleet would run out too: workers no larger, and shares no smaller."""
    return other.memory_mib <= ran_out.memory_mib and other.workers <= ran_out.workers


def _scaled(likely: float, low: float, high: float) -> Range:
    return Range(likely * low, likely, likely * high)


def _stretched(time: RunTime, factor: float) -> RunTime:
    return RunTime(time.start_s * factor, time.steps_s * factor, time.handover_s * factor, time.handovers)

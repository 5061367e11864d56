"""What virtual machines would take and cost for the same job: the baseline that functions are compared with.

The model's formulae and constants, as for functions; other are the start (a boot), the bill (a machine by the hour) and
the exchange (machines reach one another). A GPU's speed is a guess, and says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from smlt.core.forecast import Forecast, Range, Standing, StepForecast
from smlt.core.offers import VmOffer
from smlt.core.planner import Allocation, Plan, PlanRequest
from smlt.core.scene import Scene
from smlt.planners.analytic import COMPUTE_PRIORS
from smlt.planners.constants import Constant, Values
from smlt.planners.fit import fit
from smlt.planners.forecasts import Forecaster, scene_of
from smlt.planners.modelled import spaced
from smlt.planners.sources import compute_constants, seconds_of
from smlt.planners.transfer import UNKNOWN_LINK, merged

Kind = Literal["vm", "gpu"]

GPU_TFLOPS: Mapping[str, float] = {
    "T4": 8.1, "V100": 15.7, "A10G": 31.2, "L4": 30.3, "A100 40 GB": 19.5, "A100 80 GB": 19.5, "H100 NVL": 60.0,
}  # fmt: skip
"""Peak of fp32 without tensor cores, 10^12 operations a second (NVIDIA's data sheets)."""

USED_OF_PEAK = 0.125
VCPU_TFLOPS = 0.01
GPU_SPREAD = 3.0
UNKNOWN_TFLOPS, UNKNOWN_SPREAD = 22.0, 6.0

LATENCY = Constant(3e-4, 2.5, "LambdaML: 0.15 to 0.5 ms between machines, from memory")
GPU_STEP = Constant(0.005, 3.0, "smlt: a guess: some hundred calls of a kernel, 10 us each, whatever the examples")


@dataclass(frozen=True)
class Machines:
    """Virtual machines of one kind: a rank each, with all that the machine has.

    Attributes:
        offer: as the price list calls it.
        count: how many.
        spot: whether at the price at which they may be taken away.
    """

    offer: str
    count: int
    spot: bool


def fleets_of(request: PlanRequest, kind: Kind, *, spot: bool) -> Iterator[Machines]:
    """Machines that the job might run on: up to as many as workers are allowed; of GPUs one."""
    for name, offer in scene_of(request).catalog.vms.items():
        if (kind == "gpu") != bool(offer.gpu) or (spot and offer.spot_usd_per_h is None):
            continue
        for count in [1] if offer.gpu else spaced(request.max_workers):
            yield Machines(name, count, spot)


@dataclass(frozen=True)
class MachineForecaster:
    """Forecasts of machines for one request, which has a scene."""

    request: PlanRequest

    def plan(self, machines: Machines) -> Plan:
        """What these machines would take and cost; the reason is empty."""
        scene, request = scene_of(self.request), self.request
        offer = scene.catalog.vms[machines.offer]
        fitted = fit(self._constants(machines.offer), [])
        step = self._step(machines, fitted.values)
        sure = fitted.predict(lambda at: at["start_base_s"] + scene.steps * self._step(machines, at).total_s)
        finish = Range(sure.low, sure.likely, sure.high)
        ends = (finish.low, finish.likely, finish.high)
        cost = Range(*(machines.count * offer.usd(end, spot=machines.spot) for end in ends))
        memory_mib = int(offer.memory_gib * 1024)
        allocation = Allocation(machines.count, memory_mib, request.sync)
        memory = Forecaster(request).memory(allocation)
        limits: dict[str, Standing] = {"memory": memory.standing(memory_mib)}
        if request.deadline_s is not None:
            limits["deadline"] = finish.standing(request.deadline_s)
        if request.budget_usd is not None:
            limits["budget"] = cost.standing(request.budget_usd)
        forecast = Forecast(
            vcpus=offer.vcpus,
            step=step,
            steps=scene.steps,
            start_s=fitted.values["start_base_s"],
            handovers=0,
            finish_s=finish,
            cost_usd=cost,
            cost_items_usd={"machines": cost.likely},
            memory_mib=memory,
            limits=limits,
            speed="guessed" if offer.gpu or scene.profile.speed is None else "profiled",
        )
        return Plan(allocation, "", forecast)

    def _step(self, machines: Machines, values: Values) -> StepForecast:
        """The largest share's computing, and a ring: every byte leaves and enters a machine 2 (n - 1) / n times
        (Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations", 2009)."""
        scene, count = scene_of(self.request), machines.count
        offer = scene.catalog.vms[machines.offer]
        share = math.ceil(self.request.global_batch / count)
        if offer.gpu:
            compute = values["gpu_step_s"] + share / (values["examples_per_vcpu_s"] * values["gpu_vcpus"])
        else:
            speed = values["examples_per_vcpu_s"] * math.pow(offer.vcpus, values["vcpu_exponent"])
            compute = values.get("step_base_s", 0.0) + share / speed
        size_mb = sum(region.size_bytes for region in scene.profile.regions) / 1e6
        moved = 2 * (count - 1) / count * size_mb / values["link_mb_s"] if count > 1 else 0.0
        sync = (moved + 2 * (count - 1) * values["latency_s"]) / self.request.sync.exchange_every
        return StepForecast(compute, sync, 0.0, compute + sync)

    def _constants(self, name: str) -> dict[str, Constant]:
        scene = scene_of(self.request)
        offer = scene.catalog.vms[name]
        path = ("vms", name, "bandwidth_mb_s")
        known = offer.bandwidth_mb_s is not None
        link = Constant.of(offer.bandwidth_mb_s or 0.0, scene.catalog.provenance(path)) if known else UNKNOWN_LINK
        found = merged(
            {name: COMPUTE_PRIORS[name] for name in ("examples_per_vcpu_s", "vcpu_exponent")},
            compute_constants(scene),
            {"start_base_s": _boot(scene, name), "link_mb_s": link, "latency_s": LATENCY},
        )
        return found | _gpu(offer) if offer.gpu else found


def _boot(scene: Scene, name: str) -> Constant:
    """Until the first step: the machine boots, and the task is built as it was here."""
    boot = seconds_of(scene.catalog, ("vms", name, "boot_s"))
    assert boot is not None  # every machine of a price list states it
    build_s = scene.profile.build_s
    return Constant(boot.value + build_s, boot.spread, f"{boot.source}; and building the task, {build_s:.1f} s here")


def _gpu(offer: VmOffer) -> dict[str, Constant]:
    """A GPU as so many vCPUs: an eighth of its peak, over 1e10 operations a second of a vCPU; one that is not known as
    anything from a T4 to an H100."""
    peak, spread = GPU_TFLOPS.get(offer.gpu, UNKNOWN_TFLOPS), GPU_SPREAD if offer.gpu in GPU_TFLOPS else UNKNOWN_SPREAD
    told = f"smlt: a guess: an eighth of {peak:g}e12 operations a second (NVIDIA), of which a vCPU makes 1e10"
    return {"gpu_vcpus": Constant(peak * USED_OF_PEAK / VCPU_TFLOPS, spread, told), "gpu_step_s": GPU_STEP}

"""What a fleet would take and cost: pure formulae over a job, an allocation, a price list and a model's constants.

A step is computing, synchronising and loading, one after the other; a run is its start, its steps, and hand-overs where
functions have a time limit. Money is asked of the price list, as the ledger does. Nothing is measured or launched here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from smlt.core.billing import FunctionUse
from smlt.core.catalog import Catalog
from smlt.core.errors import ConfigError
from smlt.core.storage import ChannelCapabilities
from smlt.core.sync.choice import cost_for
from smlt.core.sync.cost import SyncCost
from smlt.core.sync.names import EXACT
from smlt.core.task import Region
from smlt.planners.constants import Constant, Values
from smlt.planners.transfer import exchange_s, stages_of

COMPUTE_PRIORS: Mapping[str, Constant] = {
    "examples_per_vcpu_s": Constant(10.0, 5.0, "smlt: a guess, until a job was profiled or observed"),
    "vcpu_exponent": Constant(0.9, 1.15, "smlt: a guess, until a job was profiled on two sizes"),
    "load_mb_s": Constant(70.0, 2.5, "LambdaML, FuncPipe, Skyrise: 65 to 75 MB/s of a function's link, from memory"),
    "start_base_s": Constant(0.3, 3.0, "mikhail.io 2021: cold start of a small function, 0.2 to 0.7 s"),
    "start_each_s": Constant(0.02, 3.0, "AWS Lambda docs: a call a rank, tens of ms each, one after the other"),
    "handover_s": Constant(1.0, 2.5, "smlt: a guess of the stall of a hand-over, until one was observed"),
}
"""What is believed of computing and starting before anything was seen of a job."""


@dataclass(frozen=True)
class Workload:
    """What is to be done.

    Attributes:
        steps: optimizer steps.
        global_batch: examples of a step, over all ranks.
        example_bytes: that are loaded for an example; 0 where data lies in memory.
        regions: what a rank contributes in a step, as `TaskShape.regions` has it.
    """

    steps: int
    global_batch: int
    example_bytes: float
    regions: tuple[Region, ...]


@dataclass(frozen=True)
class Fleet:
    """By whom, and over what.

    Attributes:
        workers: ranks.
        memory_mib: of each.
        vcpus: of each.
        channel: what the channel can do, which the pattern follows from.
        codec: how numbers travel.
        exchange_every: steps from one exchange to the next: 1, but for local SGD.
        concurrency: requests of a rank that the channel has under way at once.
    """

    workers: int
    memory_mib: int
    vcpus: float
    channel: ChannelCapabilities
    codec: str = EXACT
    exchange_every: int = 1
    concurrency: float = math.inf

    def sync_cost(self, regions: Sequence[Region]) -> SyncCost:
        """What an exchange asks of the channel, for rank 0."""
        return cost_for(self.channel, self.codec, tuple(regions), self.workers)


@dataclass(frozen=True)
class StepTime:
    """Seconds of a step by what they are spent on, an exchange spread over the steps that share it."""

    compute_s: float
    sync_s: float
    load_s: float

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.compute_s + self.sync_s + self.load_s


@dataclass(frozen=True)
class RunTime:
    """Seconds of a run by what they are spent on.

    Attributes:
        start_s: until the first step.
        steps_s: of all steps.
        handover_s: stalls of all hand-overs.
        handovers: how many there are.
    """

    start_s: float
    steps_s: float
    handover_s: float
    handovers: int

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.start_s + self.steps_s + self.handover_s


def compute_s(work: Workload, fleet: Fleet, values: Values) -> float:
    """Seconds in which the rank with the largest share computes: examples over speed, which grows less than vCPUs do.

    v vCPUs are as quick as v^vcpu_exponent of one: the parallel efficiency of a worker's mathematics. What a step takes
    whatever its examples (calls, the optimizer) is `step_base_s`, where it was measured.
    """
    share = math.ceil(work.global_batch / fleet.workers)
    return values.get("step_base_s", 0.0) + share / (
        values["examples_per_vcpu_s"] * math.pow(fleet.vcpus, values["vcpu_exponent"])
    )


def start_s(workers: int, values: Values) -> float:
    """Seconds until all functions run: one cold start, and a call a rank, one after the other."""
    return values["start_base_s"] + workers * values["start_each_s"]


def step_time(work: Workload, fleet: Fleet, values: Values) -> StepTime:
    """How long a step takes."""
    share = math.ceil(work.global_batch / fleet.workers)
    stages = stages_of(fleet.sync_cost(work.regions), fleet.workers, fleet.concurrency)
    return StepTime(
        compute_s(work, fleet, values),
        exchange_s(stages, values) / fleet.exchange_every,
        share * work.example_bytes / 1e6 / values["load_mb_s"],
    )


def run_time(work: Workload, fleet: Fleet, values: Values, time_limit_s: float | None = None) -> RunTime:
    """How long a run takes; the next generation starts beside the one before, which stalls it by `handover_s` alone.

    Args:
        work: what is to be done.
        fleet: by whom.
        values: the model's constants.
        time_limit_s: the platform ends a function after this; None for never.

    Raises:
        ConfigError: functions end before they have done a step.
    """
    start = start_s(fleet.workers, values)
    step = step_time(work, fleet, values).seconds
    handovers = 0
    if time_limit_s is not None:
        useful = time_limit_s - start - values["handover_s"]
        if useful < step:
            raise ConfigError(
                f"a function ends after {time_limit_s:.0f} s, of which {max(useful, 0.0):.1f} s are left for steps of "
                f"{step:.1f} s",
                "choose more memory, more workers or a smaller global batch",
            )
        handovers = math.ceil(work.steps / math.floor(useful / step)) - 1
    return RunTime(start, work.steps * step, handovers * values["handover_s"], handovers)


@dataclass(frozen=True)
class Prices:
    """Which offers of a price list a fleet uses.

    Attributes:
        catalog: the price list; its `function` is what functions cost.
        store: where data and the channel are, if the channel is an object store; empty for none that is billed.
        server: of the channel; empty for none.
        free_tier: whether what a month has for nothing is taken off.
    """

    catalog: Catalog
    store: str = ""
    server: str = ""
    free_tier: bool = False


def run_cost(work: Workload, fleet: Fleet, time: RunTime, prices: Prices) -> dict[str, float]:
    """USD of a run by item, as the ledger names them; `total` is their sum.

    A function is billed from its launch to its end; where generations follow one another, each for the start of the
    next one too.
    """
    price = prices.catalog.function
    each = time.seconds / (time.handovers + 1)
    overlap = time.start_s if time.handovers else 0.0
    one = price.use(each + overlap, fleet.memory_mib)
    count = fleet.workers * (time.handovers + 1)
    use = FunctionUse(one.gib_s * count, one.vcpu_s * count, one.gpu_s * count, one.requests * count)
    items = {"functions": price.usd(use, free_tier=prices.free_tier)}
    if prices.server:
        items["channel"] = prices.catalog.servers[prices.server].usd(time.seconds)
    if prices.store:
        items["store"] = _store_usd(work, fleet, prices)
    return {"total": sum(items.values()), **items}


def _store_usd(work: Workload, fleet: Fleet, prices: Prices) -> float:
    """USD of the exchanges and of the examples that are read, a request an example."""
    store = prices.catalog.stores[prices.store]
    loads = work.steps * work.global_batch if work.example_bytes else 0
    usd = store.usd(gets=loads, bytes_out=loads * work.example_bytes)
    if not prices.server:
        cost, times = fleet.sync_cost(work.regions), work.steps / fleet.exchange_every * fleet.workers
        usd += times * store.usd(
            puts=cost.requests.get("put", 0),
            gets=cost.requests.get("get", 0),
            bytes_in=cost.bytes_up,
            bytes_out=cost.bytes_down,
        )
    return usd

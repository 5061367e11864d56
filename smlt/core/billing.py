"""How functions are billed: from a use to money. Plans and the ledger call these formulae, and there are no others.

Nothing here names a provider. Prices are in US dollars; a GiB is 2^30 bytes and a MiB 2^20.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Table(BaseModel):
    """A table of a price list: unknown keys are errors, values do not change afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class VcpuMap(Table):
    """How many vCPUs come with how much memory: in proportion, or by a table.

    Attributes:
        mib_per_vcpu: memory of one whole vCPU, where they come in proportion.
        most: vCPUs of the largest function, where they come in proportion.
        table: memory (MiB) and vCPUs, ascending; a size between two rows has what the larger one has.
    """

    mib_per_vcpu: Positive | None = None
    most: Positive | None = None
    table: tuple[tuple[Positive, Positive], ...] = ()

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if bool(self.table) == (self.mib_per_vcpu is not None):
            raise ValueError("give either mib_per_vcpu or table")
        if list(self.table) != sorted(self.table):
            raise ValueError("the table's memory ascends")
        return self

    def at(self, memory_mib: float) -> float:
        """VCPUs of a function with this memory."""
        if self.mib_per_vcpu is not None:
            return min(memory_mib / self.mib_per_vcpu, self.most or math.inf)
        return next((vcpus for memory, vcpus in self.table if memory >= memory_mib), self.table[-1][1])


class FreeTier(Table):
    """What a month has for nothing; counts only where it is asked for."""

    gib_s: Amount = 0.0
    vcpu_s: Amount = 0.0
    requests: Amount = 0.0


@dataclass(frozen=True)
class FunctionUse:
    """What functions are billed for: seconds times size, and requests. Uses add up."""

    gib_s: float = 0.0
    vcpu_s: float = 0.0
    gpu_s: float = 0.0
    requests: int = 0

    def __add__(self, other: FunctionUse) -> FunctionUse:
        return FunctionUse(
            self.gib_s + other.gib_s,
            self.vcpu_s + other.vcpu_s,
            self.gpu_s + other.gpu_s,
            self.requests + other.requests,
        )


class FunctionPrice(Table):
    """How functions are billed.

    Attributes:
        usd_per_gib_s: for a second of 1 GiB of memory.
        usd_per_request: for a call.
        usd_per_vcpu_s, usd_per_gpu_s: for a second of a vCPU, of the GPU.
        granularity_s: a call's time is rounded up to a multiple of this; 0 for not at all.
        minimum_s: the least time that a call is billed for.
        memory_step_mib: memory is rounded up to a multiple of this; 0 for not at all.
        init_billed: whether the time before the function's first line is billed.
        vcpus: the vCPUs that come with memory; None where nothing is known.
        free: the free tier.
    """

    usd_per_gib_s: Amount = Field(examples=[1.66667e-5])
    usd_per_request: Amount = Field(examples=[2e-7])
    usd_per_vcpu_s: Amount = 0.0
    usd_per_gpu_s: Amount = 0.0
    granularity_s: Amount = 0.0
    minimum_s: Amount = 0.0
    memory_step_mib: Amount = 0.0
    init_billed: bool = True
    vcpus: VcpuMap | None = None
    free: FreeTier = FreeTier()

    @model_validator(mode="after")
    def _knows_what_it_bills(self) -> Self:
        if self.usd_per_vcpu_s and self.vcpus is None:
            raise ValueError("vCPUs have a price, but vcpus does not say how many there are")
        return self

    def use(self, seconds: float, memory_mib: float, *, init_s: float = 0.0, requests: int = 1) -> FunctionUse:
        """What one function is billed for.

        Args:
            seconds: from its first line to its end.
            memory_mib: its size.
            init_s: before its first line.
            requests: calls that it took to start it.
        """
        billed = billed_s(seconds + (init_s if self.init_billed else 0.0), self.granularity_s, self.minimum_s)
        vcpus = self.vcpus.at(memory_mib) if self.vcpus else 0.0
        gib = rounded_up(memory_mib, self.memory_step_mib) / 1024
        return FunctionUse(billed * gib, billed * vcpus, billed, requests)

    def usd(self, use: FunctionUse, *, free_tier: bool = False) -> float:
        """What a use costs; `free_tier` takes off what a month has for nothing, as if nothing else ran in it."""
        free = self.free if free_tier else FreeTier()
        return (
            max(0.0, use.gib_s - free.gib_s) * self.usd_per_gib_s
            + max(0.0, use.vcpu_s - free.vcpu_s) * self.usd_per_vcpu_s
            + use.gpu_s * self.usd_per_gpu_s
            + max(0.0, use.requests - free.requests) * self.usd_per_request
        )

    def usd_per_s(self, memory_mib: float) -> float:
        """What a running function of this size costs a second."""
        vcpus = self.vcpus.at(memory_mib) if self.vcpus else 0.0
        gib = rounded_up(memory_mib, self.memory_step_mib) / 1024
        return gib * self.usd_per_gib_s + vcpus * self.usd_per_vcpu_s + self.usd_per_gpu_s


def billed_s(seconds: float, granularity_s: float, minimum_s: float) -> float:
    """Time as it is billed: at least the minimum, rounded up."""
    return rounded_up(max(seconds, minimum_s), granularity_s)


def rounded_up(value: float, step: float) -> float:
    """The next multiple of a step; the value itself where the step is 0."""
    return math.ceil(round(value / step, 6)) * step if step else value

"""What a provider sells, as its price list states it: functions, stores, servers, virtual machines, traffic.

Nothing here names a provider. Prices are list prices in US dollars; a GB is 10^9 bytes and an MB 10^6, a GiB 2^30 and a
MiB 2^20.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from smlt.core.billing import Amount, FunctionPrice, Positive, Table, billed_s

Confidence = Literal["high", "medium", "low"]
"""high: the provider's own text or price list was read; medium: a secondary or older one; low: from memory."""

HOURS_PER_MONTH = 730


def _is_a_date(text: str) -> str:
    date.fromisoformat(text)
    return text


Day = Annotated[str, AfterValidator(_is_a_date)]
"""A day as 2026-11-24."""


def _ascends(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise ValueError(f"a range ascends, which [{ends[0]}, {ends[1]}] does not")
    return ends


Range = Annotated[tuple[Amount, Amount], AfterValidator(_ascends)]
"""The least and the most that was seen."""


class Offer(Table):
    """Something that is sold, and where its figures come from.

    Attributes:
        title: its name, for people.
        regions: where these figures hold; empty where nothing is said.
        source: where they were read.
        as_of: when that was written.
        confidence: in all figures but the weak ones, of which it is low.
        weak: keys of figures that come from memory or from one secondary page.
    """

    title: str = ""
    regions: tuple[str, ...] = ()
    source: str = Field(min_length=1)
    as_of: Day = Field(examples=["2026-11-24"])
    confidence: Confidence
    weak: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _weak_keys_exist(self) -> Self:
        unknown = [key for key in self.weak if key not in type(self).model_fields]
        if unknown:
            raise ValueError(f"weak names {', '.join(unknown)}, which is no key of this table")
        return self


class MemorySizes(Table):
    """Which sizes a function can have (MiB): a list, or from the least to the most in steps."""

    choices: tuple[Annotated[int, Field(gt=0)], ...] = ()
    least: Annotated[int, Field(gt=0)] | None = None
    most: Annotated[int, Field(gt=0)] | None = None
    step: Annotated[int, Field(gt=0)] = 1

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if bool(self.choices) == (self.least is not None and self.most is not None):
            raise ValueError("give either choices, or least and most")
        if self.least is not None and self.most is not None and self.least > self.most:
            raise ValueError(f"least = {self.least} is more than most = {self.most}")
        if list(self.choices) != sorted(set(self.choices)):
            raise ValueError("choices ascend")
        return self

    def fits(self, memory_mib: int) -> bool:
        """Whether a function can have just this size."""
        if self.least is None or self.most is None:
            return memory_mib in self.choices
        return self.least <= memory_mib <= self.most and (memory_mib - self.least) % self.step == 0


class FunctionOffer(FunctionPrice, Offer):
    """Functions of one kind: price, sizes, limits, speed.

    Attributes:
        memory_mib: sizes on offer.
        time_limit_s: the platform ends a function after this; None for never.
        max_workers: functions at once before asking for more.
        launches_per_s: at most so many start in a second; None where nothing is published.
        start_s: from the call to the first line, with an ML framework in the image.
        warm_s: how long an idle function stays warm.
        request_bytes: the largest payload of a call.
        accepts_connections: whether other functions can connect to it.
        gpu: which; empty for none.
        bandwidth_mb_s: of a function's link, sustained.
        burst_mb_s, burst_mib: so much goes at so much more, before the link falls back.
    """

    memory_mib: MemorySizes
    time_limit_s: Positive | None = None
    max_workers: Annotated[int, Field(gt=0)]
    launches_per_s: Positive | None = None
    start_s: Range | None = None
    warm_s: Amount | None = None
    request_bytes: Annotated[int, Field(gt=0)] | None = None
    accepts_connections: bool = False
    gpu: str = ""
    bandwidth_mb_s: Positive | None = None
    burst_mb_s: Positive | None = None
    burst_mib: Amount | None = None


class StoreOffer(Offer):
    """An object store, or another store that is billed by what is done with it.

    Attributes:
        usd_per_put, usd_per_get: for a request.
        usd_per_gb_in, usd_per_gb_out: for bytes to and from a function in the same region.
        usd_per_gb_month: for what is kept.
        put_latency_s, get_latency_s: of one small request, at the median.
        connection_mb_s: of one connection.
        puts_per_s, gets_per_s: before requests are refused.
        max_value_bytes: the largest value; None where it is of no concern.
    """

    usd_per_put: Amount
    usd_per_get: Amount
    usd_per_gb_in: Amount = 0.0
    usd_per_gb_out: Amount = 0.0
    usd_per_gb_month: Amount
    put_latency_s: Positive
    get_latency_s: Positive
    connection_mb_s: Positive | None = None
    puts_per_s: Positive | None = None
    gets_per_s: Positive | None = None
    max_value_bytes: Annotated[int, Field(gt=0)] | None = None

    def usd(
        self,
        *,
        puts: float = 0,
        gets: float = 0,
        bytes_in: float = 0,
        bytes_out: float = 0,
        byte_s: float = 0,
    ) -> float:
        """What requests, bytes that move, and bytes that lie for seconds (`byte_s`) cost."""
        moved = bytes_in * self.usd_per_gb_in + bytes_out * self.usd_per_gb_out
        kept = byte_s / (HOURS_PER_MONTH * 3600) * self.usd_per_gb_month
        return puts * self.usd_per_put + gets * self.usd_per_get + (moved + kept) / 1e9


class ServerOffer(Offer):
    """A server for a channel, billed by time.

    Attributes:
        usd_per_h: for an hour.
        granularity_s, minimum_s: as of functions.
        memory_gib: that values can take.
        bandwidth_mb_s, burst_mb_s: of its link, sustained and at best.
        latency_s: of one small request.
        create_s: until it can be used.
    """

    usd_per_h: Amount
    granularity_s: Amount = 0.0
    minimum_s: Amount = 0.0
    memory_gib: Positive
    bandwidth_mb_s: Positive | None = None
    burst_mb_s: Positive | None = None
    latency_s: Positive | None = None
    create_s: Range | None = None

    def usd(self, seconds: float) -> float:
        """What it costs to have it for so long."""
        return billed_s(seconds, self.granularity_s, self.minimum_s) / 3600 * self.usd_per_h


class VmOffer(Offer):
    """A virtual machine, to compare functions with.

    Attributes:
        usd_per_h, spot_usd_per_h: on demand, and where it may be taken away.
        granularity_s, minimum_s: as of functions.
        vcpus, memory_gib, gpu: what it has; `gpu` is empty for none.
        bandwidth_mb_s, burst_mb_s: of its link, sustained and at best.
        boot_s: until it can be used.
    """

    usd_per_h: Amount
    spot_usd_per_h: Amount | None = None
    granularity_s: Amount = 1.0
    minimum_s: Amount = 0.0
    vcpus: Positive
    memory_gib: Positive
    gpu: str = ""
    bandwidth_mb_s: Positive | None = None
    burst_mb_s: Positive | None = None
    boot_s: Range

    def usd(self, seconds: float, *, spot: bool = False) -> float:
        """What it costs to have it for so long; on demand where it has no spot price."""
        rate = self.spot_usd_per_h if spot and self.spot_usd_per_h is not None else self.usd_per_h
        return billed_s(seconds, self.granularity_s, self.minimum_s) / 3600 * rate


class TrafficOffer(Offer):
    """Bytes that leave a region; between functions and a store in one region they are free."""

    usd_per_gb_internet: Amount
    usd_per_gb_between_regions: Amount
    usd_per_gb_between_zones: Amount = 0.0

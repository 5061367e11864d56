"""Scene: where a job would run and what it consists of, as planners that predict need it. Plain data, nothing acts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from smlt.core.catalog import Catalog
from smlt.core.profile import Profile
from smlt.core.storage import ChannelCapabilities


@dataclass(frozen=True)
class ChannelOffer:
    """A channel that a plan may use, and where the price list speaks of it.

    Attributes:
        name: in `[sync].channel`.
        capabilities: what it can do.
        table: of the price list: an object store (`stores`) or a server (`servers`).
        entry: in that table.
    """

    name: str
    capabilities: ChannelCapabilities
    table: Literal["stores", "servers"]
    entry: str


@dataclass(frozen=True)
class Scene:
    """What a prediction needs beside the request.

    Attributes:
        profile: the task's sizes, and its speed if it was measured.
        is_profiled_here: whether that speed is of the very machine that would train.
        steps: of the job.
        catalog: the prices in force.
        functions: the kind of functions, as the price list calls it; empty where it lists none.
        channels: that may be used, at least one.
        time_limit_s: the platform ends a function after this; None for never.
        micro_batch: most examples in one forward pass; None for all of a rank's share.
        shares_task: whether forecasts are held against others of the same task: what is not known of the task itself
            moves all of them alike, and is no part of their ranges.
    """

    profile: Profile
    is_profiled_here: bool
    steps: int
    catalog: Catalog
    functions: str
    channels: tuple[ChannelOffer, ...]
    time_limit_s: float | None = None
    micro_batch: int | None = None
    shares_task: bool = False

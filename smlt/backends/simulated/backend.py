"""The simulated backend: a provider's price list and limits, and a cloud that is only reckoned."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from smlt.backends.file_store import FileObjectStore
from smlt.backends.simulated.clock import VirtualClock
from smlt.backends.simulated.launcher import SimulatedLauncher
from smlt.backends.simulated.truth import Truth
from smlt.backends.simulated.world import CloudWorld, Weather
from smlt.core.backend import Backend, BackendOptions, Launcher, Limits, RankSpec, RunPlace
from smlt.core.catalog import Catalog
from smlt.core.clock import Clock
from smlt.core.errors import ConfigError, nearest
from smlt.core.job import Seconds
from smlt.core.profile import Profile, read_profile
from smlt.core.scene import ChannelOffer
from smlt.core.storage import ChannelSpec, ObjectStore, StoreSpec
from smlt.simulator.scenario import Timing

STRIKES = (
    "kill", "hang", "freeze", "slow", "deaf", "unplug", "late_mail", "lost_mail", "doubled_mail", "out_of_memory",
    "retry", "never_ready", "launch_failure", "throttle", "channel_restart", "massacre",
)  # fmt: skip
"""Kinds of faults, as `smlt simulate` has them, but for those that strike the controller, which is real here."""


PROVIDERS: Mapping[str, str] = MappingProxyType(
    {
        "aws": "smlt.backends.aws.backend:AwsBackend",
        "gcp": "smlt.backends.gcp.backend:GcpBackend",
        "azure": "smlt.backends.azure.backend:AzureBackend",
    }
)
"""Whose prices, sizes, limits and channels can be simulated."""


class SimulatedOptions(BackendOptions):
    """`[backend]` of the simulated backend."""

    provider: Literal["aws", "gcp", "azure"] = Field("aws", description="whose prices, sizes, limits and speeds")
    functions: str | None = Field(
        None, description="which kind of functions: see `smlt prices`", examples=["lambda_arm64", "cloud_run"]
    )
    redis_server: str | None = Field(
        None, description="the server of the channel redis: see `smlt prices`", examples=["cache.m6g.large"]
    )
    seed: int = Field(0, ge=0, description="of the cloud: how quick it really is, which machines one gets, noise")
    noise: float = Field(0.05, ge=0.0, le=1.0, description="of a step's time, a part of it")
    faults: tuple[str, ...] = Field(
        (), description="what strikes functions now and then, of the kinds of `smlt simulate`", examples=[["kill"]]
    )
    fault_every: Seconds = Field(300.0, gt=0, description="on average so long from one fault to the next")
    beat: Seconds = Field(
        2.0,
        ge=0.1,
        description="how often a worker reports at least; more seldom where there are many, or jobs are long",
    )
    slows_at: Seconds | None = Field(None, description="from then on the cloud is slower", examples=["5m"])
    slows_by: float = Field(2.0, ge=1.0, description="so many times slower")
    profile: Path | None = Field(
        None, description="how quickly the task really computes, from `smlt profile`; else what the planner is told"
    )
    max_workers: int = Field(20_000, ge=1, description="most functions at once, whatever the provider's quota")

    @field_validator("faults")
    @classmethod
    def _are_kinds(cls, faults: tuple[str, ...]) -> tuple[str, ...]:
        for kind in faults:
            if kind not in STRIKES:
                raise ValueError(f"no such kind of fault: {kind!r}; {nearest(kind, list(STRIKES))}")
        return faults


class SimulatedBackend(Backend[SimulatedOptions]):
    """A provider's cloud on a virtual clock."""

    Options = SimulatedOptions
    is_simulated: ClassVar[bool] = True

    def __init__(self, name: str, options: SimulatedOptions) -> None:
        super().__init__(name, options)
        module, _, kind = PROVIDERS[options.provider].partition(":")
        provider: type[Backend[Any]] = getattr(importlib.import_module(module), kind)
        said = {key: getattr(options, key) for key in ("functions", "redis_server") if getattr(options, key)}
        self._provider = provider(options.provider, provider.Options.model_validate(said))

    @cached_property
    def limits(self) -> Limits:
        """The provider's, but for the number of functions, for which one can ask."""
        return replace(self._provider.limits, max_workers=self.options.max_workers)

    @cached_property
    def catalog(self) -> Catalog:
        """The provider's."""
        return self._provider.catalog

    def channel_offers(self) -> Sequence[ChannelOffer]:
        """The provider's."""
        return self._provider.channel_offers()

    def channels(self, place: RunPlace) -> Mapping[str, ChannelSpec]:
        """Names alone: nothing travels."""
        del place
        return {offer.name: ChannelSpec(offer.name, "") for offer in self.channel_offers()}

    def clock(self) -> Clock:
        """A virtual one."""
        return VirtualClock()

    def beat_s(self, workers: int) -> float:
        """As in the protocol's test bench: the more, the more seldom; not so often that looking takes the time."""
        return max(self.options.beat, Timing.of(workers).beat_s)

    def object_store(self, place: RunPlace) -> StoreSpec:
        """The run's folder, as of a local run."""
        return StoreSpec("file", (place.runs_dir.absolute() / place.run).as_uri())

    def launcher(self, place: RunPlace) -> Launcher:
        """Functions in a virtual world."""
        clock = place.clock
        profile = read_profile(self.options.profile) if self.options.profile else place.profile
        if not isinstance(clock, VirtualClock) or profile is None:
            raise ConfigError("a simulated run needs a virtual clock and a profile of its task", "this is a bug")
        found = profile

        def make_world(spec: RankSpec, objects: ObjectStore) -> CloudWorld:
            return self._world(spec, objects, found, clock)

        return SimulatedLauncher(clock, FileObjectStore(self.object_store(place)), make_world)

    def truth(self, profile: Profile) -> Truth:
        """What planners may not see: how quick this cloud really is."""
        catalog = self.catalog
        functions = catalog.default_function or next(iter(catalog.functions))
        return Truth.drawn(self.options.seed, profile, catalog, functions, tuple(self.channel_offers()))

    def _world(self, spec: RankSpec, objects: ObjectStore, profile: Profile, clock: VirtualClock) -> CloudWorld:
        options = self.options
        offer = next(each for each in self.channel_offers() if each.name == spec.sync.channel)
        weather = Weather(
            options.noise,
            options.faults,
            options.fault_every,
            math.inf if options.slows_at is None else options.slows_at,
            options.slows_by,
        )
        vcpus = self.catalog.function.vcpus
        return CloudWorld(spec, profile, self.truth(profile), weather, vcpus, offer.capabilities, clock, objects)

"""Providers of which smlt has the prices, limits and speeds: jobs are planned for them, with no account and no SDK.

What would launch there is not here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import ClassVar, NoReturn

from pydantic import Field

from smlt.backends.channels.object import ObjectChannel
from smlt.backends.channels.redis import RedisChannel
from smlt.core.backend import Backend, BackendOptions, CheckResult, Launcher, Limits, RunPlace
from smlt.core.catalog import Catalog, load_catalog
from smlt.core.errors import CloudError
from smlt.core.offers import FunctionOffer, MemorySizes
from smlt.core.price_cache import PriceCache
from smlt.core.scene import ChannelOffer
from smlt.core.storage import ChannelSpec, StoreSpec

USUAL_SIZES_MIB = (512, 1024, 2048, 3072, 4096, 6144, 8192, 10240, 16384, 24576, 32768)


class PricedOptions(BackendOptions):
    """`[backend]` of a provider that jobs are planned for."""

    functions: str | None = Field(
        None, description="which kind of functions: see `smlt prices`", examples=["lambda_arm64", "cloud_run"]
    )
    redis_server: str | None = Field(
        None, description="the server of the channel redis: see `smlt prices`", examples=["cache.m6g.large"]
    )


class PricedBackend(Backend[PricedOptions]):
    """A provider by its price list.

    Attributes:
        package: where its `catalog.toml` is.
        store: the object store that data and the channel `object` are in.
        redis_server: of the channel `redis`, unless an option names another.
    """

    Options = PricedOptions
    package: ClassVar[str]
    store: ClassVar[str]
    redis_server: ClassVar[str]

    @property
    def catalog(self) -> Catalog:
        """The newest of what came with smlt and what was fetched, for the kind of functions that is used."""
        found = PriceCache.of(os.environ).applied(load_catalog(self.package))
        return found.using(self.options.functions) if self.options.functions else found

    @property
    def limits(self) -> Limits:
        """As the price list states them."""
        offer = self._offer
        return Limits(
            max_workers=offer.max_workers,
            memory_choices_mib=sizes_of(offer),
            function_time_limit_s=offer.time_limit_s,
            vcpus_at_hand=None,
            beat_s=1.0,
            orphan_grace_s=60.0,
            start_deadline_s=300.0,
        )

    def channel_offers(self) -> Sequence[ChannelOffer]:
        """The object store, and a Redis server."""
        server = self.options.redis_server or self.redis_server
        return [
            ChannelOffer("object", ObjectChannel.capabilities, "stores", self.store),
            ChannelOffer("redis", RedisChannel.capabilities, "servers", server),
        ]

    def channels(self, place: RunPlace) -> Mapping[str, ChannelSpec]:
        """Names alone: nothing can be reached."""
        del place
        return {offer.name: ChannelSpec(offer.name, "") for offer in self.channel_offers()}

    def launcher(self, place: RunPlace) -> Launcher:
        """Refused."""
        del place
        self._refuse()

    def object_store(self, place: RunPlace) -> StoreSpec:
        """Refused."""
        del place
        self._refuse()

    def check(self) -> Sequence[CheckResult]:
        """What is missing."""
        return [CheckResult("launching", "fail", f"smlt plans for {self.name}, and cannot launch there yet")]

    @property
    def _offer(self) -> FunctionOffer:
        catalog = self.catalog
        return catalog.functions[catalog.default_function or next(iter(catalog.functions))]

    def _refuse(self) -> NoReturn:
        raise CloudError(
            f"smlt plans for {self.name}, and cannot launch there yet", f"`smlt plan -b {self.name}`; train locally"
        )


def sizes_of(offer: FunctionOffer) -> tuple[int, ...]:
    """Sizes worth looking at (MiB), ascending: usual ones, and those at which a whole vCPU more comes."""
    sizes: MemorySizes = offer.memory_mib
    if sizes.choices:
        return tuple(sizes.choices)
    vcpus = offer.vcpus
    wanted = {*USUAL_SIZES_MIB, int(sizes.least or 0), int(sizes.most or 0)}
    if vcpus is not None and vcpus.mib_per_vcpu is not None:
        wanted |= {round(count * vcpus.mib_per_vcpu) for count in range(1, int(vcpus.most or 0) + 1)}
    if vcpus is not None:
        wanted |= {int(memory) for memory, _ in vcpus.table}
    return tuple(size for size in sorted(wanted) if size >= USUAL_SIZES_MIB[0] and sizes.fits(size))

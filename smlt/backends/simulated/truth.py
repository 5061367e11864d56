"""How quick a simulated cloud really is. Planners do not see this: they see the price list, and what they observe.

Its form is another one than that of the planners' model, on purpose. vCPUs help by Amdahl's law and not by a power;
of a store that many ranks share the speed falls from a knee on, and not at a bound; exchanges wait for the slowest of
many requests, which grows with the ranks; steps wait for the slowest machine; a burst is used up once and for all; and
starts have a long tail. Its constants lie around those of the price list, by the seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from smlt.core.catalog import Catalog
from smlt.core.errors import ConfigError
from smlt.core.profile import Profile
from smlt.core.run_events import Address
from smlt.core.scene import ChannelOffer
from smlt.core.sync.cost import SyncCost

UNPROFILED_FLOPS, UNPROFILED_USES = 1e10, 20
"""Of a vCPU in a second, and how often an example uses a parameter, where no profile has measured a task's speed."""

KNEE = 0.5
"""A store that is asked for more than this part of what it can do begins to slow down."""

COLLAPSE = 0.5
"""Of its speed a store that is asked for far too much has 1 / 1.5 left."""

WAIT_GROWTH = 0.15
"""The slowest of N requests takes 1 + 0.15 ln N times as long as one."""

LEMONS, LEMON_SLOWNESS = 0.01, (1.15, 1.5)
"""So many machines are that much slower than the others."""

MACHINE_SPREAD, START_TAIL = 0.03, 0.35
"""Machines of one kind, and starts, differ by so much (standard deviations of their logarithms)."""


@dataclass(frozen=True)
class Way:
    """A channel's store as ranks find it.

    Attributes:
        request_s: of a small request.
        mb_s: of one connection.
        requests_per_s, store_mb_s: that it has for all ranks together.
    """

    request_s: float
    mb_s: float
    requests_per_s: float
    store_mb_s: float


@dataclass(frozen=True)
class Truth:
    """What is true of one cloud and one task.

    Attributes:
        seed: of all that differs from one machine and start to the next.
        examples_per_s: of one vCPU.
        step_base_s: of a step on one vCPU, whatever its examples.
        serial: the part of the work that more vCPUs do not make quicker.
        link_mb_s: of a function.
        ways: channels by name.
        start_s, launches_per_s: median of a start, and how many begin in a second.
        build_s: to build the task.
        memory_mib, example_mib: that a worker needs, and that each example of its share adds.
        state_mb: of a checkpoint.
    """

    seed: int
    examples_per_s: float
    step_base_s: float
    serial: float
    link_mb_s: float
    ways: Mapping[str, Way]
    start_s: float
    launches_per_s: float
    build_s: float
    memory_mib: float
    example_mib: float
    state_mb: float

    def compute_s(self, share: int, vcpus: float) -> float:
        """Seconds of forward and backward for so many examples on a machine that is neither quick nor slow."""
        quickness = vcpus if vcpus < 1 else 1 / (self.serial + (1 - self.serial) / vcpus)
        return (self.step_base_s + share / self.examples_per_s) / quickness

    def exchange_s(self, channel: str, cost: SyncCost, workers: int) -> float:
        """Seconds of an exchange among so many ranks."""
        if workers == 1 or not cost.phases:
            return 0.0
        way, mb = self.ways[channel], max(cost.bytes_up, cost.bytes_down) / 1e6
        waits = cost.phases * way.request_s * (1 + WAIT_GROWTH * math.log(workers))
        alone_s = waits + mb / min(way.mb_s, self.link_mb_s)
        asked = sum(cost.requests.values()) / way.requests_per_s, mb / way.store_mb_s
        demand = workers * max(asked) / alone_s
        over = max(0.0, demand - KNEE)
        return alone_s * (1 + over) * (1 + COLLAPSE * over / (1 + over))

    def slowness(self, address: Address) -> float:
        """Of the machine that a function gets: how many times as long it computes as the usual one."""
        rng = Random(f"{self.seed}/machine/{address.label}")
        if rng.random() < LEMONS:
            return rng.uniform(*LEMON_SLOWNESS)
        return rng.lognormvariate(0.0, MACHINE_SPREAD)

    def start_of_s(self, address: Address) -> float:
        """Seconds until a function that is launched runs; ranks are started one after the other."""
        rng = Random(f"{self.seed}/start/{address.label}")
        return self.start_s * rng.lognormvariate(0.0, START_TAIL) + address.rank / self.launches_per_s

    def needs_mib(self, share: int) -> int:
        """Memory that a worker with so many examples in a forward pass needs."""
        return math.ceil(self.memory_mib + share * self.example_mib)

    @classmethod
    def drawn(
        cls, seed: int, profile: Profile, catalog: Catalog, functions: str, channels: tuple[ChannelOffer, ...]
    ) -> Truth:
        """The truth of one seed.

        Args:
            seed: of everything.
            profile: of the task; what it has not measured is drawn further off.
            catalog: of the provider.
            functions: which kind of functions.
            channels: on offer.
        """
        rng = Random(f"{seed}/{catalog.provider}/truth")
        offer = catalog.functions[functions]
        speed = profile.speed
        if speed is None:
            guessed = UNPROFILED_FLOPS / (6 * UNPROFILED_USES * profile.parameters)
            examples_per_s, base_s = guessed * rng.lognormvariate(0.0, 0.7), 1e-3
        else:
            examples_per_s, base_s = speed.examples_per_vcpu_s * rng.lognormvariate(0.0, 0.25), speed.step_base_s
        low, high = offer.start_s or (0.5, 1.0)
        weights_mib = sum(region.size_bytes for region in profile.regions) / 2**20
        needs_mib = profile.built_mib + 4 * weights_mib if profile.stepped_mib is None else profile.stepped_mib
        return cls(
            seed=seed,
            examples_per_s=examples_per_s,
            step_base_s=base_s,
            serial=rng.uniform(0.02, 0.12),
            link_mb_s=(offer.bandwidth_mb_s or 75.0) * rng.lognormvariate(0.0, 0.25),
            ways={channel.name: _way(catalog, channel, rng) for channel in channels},
            start_s=math.sqrt(low * high) * rng.lognormvariate(0.0, 0.2),
            launches_per_s=(offer.launches_per_s or 50.0) * rng.lognormvariate(0.0, 0.2),
            build_s=0.3 + 0.1 * profile.build_s,
            memory_mib=(needs_mib + 2 * weights_mib) * rng.lognormvariate(0.0, 0.05),
            example_mib=(profile.example_bytes or 0.0) / 2**20,
            state_mb=profile.state_bytes / 1e6,
        )


def _way(catalog: Catalog, channel: ChannelOffer, rng: Random) -> Way:
    """A channel's constants, around those of the price list."""
    off = [rng.lognormvariate(0.0, 0.2) for _ in range(4)]
    if channel.table == "stores":
        store = catalog.stores[channel.entry]
        request_s, mb_s = (store.put_latency_s + store.get_latency_s) / 2, store.connection_mb_s or 75.0
        return Way(request_s * off[0], mb_s * off[1], (store.gets_per_s or 5000.0) * off[2], 25_000.0 * off[3])
    server = catalog.servers[channel.entry]
    if server.latency_s is None or server.bandwidth_mb_s is None:
        raise ConfigError(f"the prices of {catalog.provider} say nothing of the speed of {channel.entry}")
    return Way(server.latency_s * off[0], 1e4, 100_000.0 * off[2], server.bandwidth_mb_s * off[3])

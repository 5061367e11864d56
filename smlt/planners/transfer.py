"""How long an exchange through a store takes: stages one after the other, each held up by what is slowest in it.

A stage is over when the slowest of three is done: the rank's own requests and their bytes, its link once the burst is
used up, and the store, which all ranks share. These are the asymptotic bounds of a closed queueing network (Lazowska et
al., Quantitative System Performance, chapter 5), taken as the time itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from smlt.core.catalog import Catalog
from smlt.core.errors import ConfigError
from smlt.core.sync.cost import SyncCost
from smlt.planners.constants import Constant, Values


@dataclass(frozen=True)
class Stage:
    """What every rank does before any can go on.

    Attributes:
        puts, gets: requests of a rank that wait for one another.
        bytes_up, bytes_down: of a rank.
        ranks: that do so at once.
        packed_bytes: of numbers that a rank makes into messages first, one core busy.
        requests: of a rank in all, at once or not.
    """

    puts: float
    gets: float
    bytes_up: float
    bytes_down: float
    ranks: int
    packed_bytes: float = 0.0
    requests: float = 0.0

    def seconds(self, values: Values) -> float:
        """How long it takes, by these constants:

        put_latency_s, get_latency_s: of a request, without its bytes.
        up_mb_s, down_mb_s: of a rank's connection to the store.
        link_mb_s, burst_mb: of a rank's link: so much goes unhindered, the rest at this speed.
        store_mb_s, store_requests_per_s: of the store, in all; of requests it takes any number where nothing is said.
        pack_s_per_mb: of making messages.
        """
        waits = self.puts * values["put_latency_s"] + self.gets * values["get_latency_s"]
        moves = max(self.bytes_up / values["up_mb_s"], self.bytes_down / values["down_mb_s"]) / 1e6
        most = max(self.bytes_up, self.bytes_down) / 1e6
        link = (most - values["burst_mb"]) / values["link_mb_s"]
        asked_s = self.requests / values.get("store_requests_per_s", UNBOUNDED)
        store = self.ranks * max(most / values["store_mb_s"], asked_s)
        return self.packed_bytes / 1e6 * values["pack_s_per_mb"] + max(waits + moves, link, store)


def exchange_s(stages: Sequence[Stage], values: Values) -> float:
    """Stages one after the other."""
    return sum(stage.seconds(values) for stage in stages)


def stages_of(cost: SyncCost, ranks: int, concurrency: float = math.inf) -> list[Stage]:
    """A collective's step as a stage, from what it says that it costs.

    Args:
        cost: of the rank that is waited for.
        ranks: that take part.
        concurrency: requests that the channel has under way at once; by default all of a phase.
    """
    if not cost.phases:
        return []
    puts, gets = cost.requests.get("put", 0), cost.requests.get("get", 0) + cost.requests.get("reduce", 0)
    waits = [cost.phases * max(1, math.ceil(each / cost.phases / concurrency)) if each else 0 for each in (puts, gets)]
    return [Stage(waits[0], waits[1], cost.bytes_up, cost.bytes_down, ranks, requests=puts + gets)]


NO_PACKING = Constant(1e-9, 1.0, "smlt: gradients lie in the buffers that are sent, nothing is made into messages")
UNBOUNDED = 1e9
"""MB/s: no bound."""


def store_constants(catalog: Catalog, store: str, functions: str) -> dict[str, Constant]:
    """What a catalog says of an object store and of the links of functions.

    Raises:
        ConfigError: it says too little of them.
    """
    connection = _figure(catalog, ("stores", store, "connection_mb_s"))
    return {
        "put_latency_s": _figure(catalog, ("stores", store, "put_latency_s")),
        "get_latency_s": _figure(catalog, ("stores", store, "get_latency_s")),
        "up_mb_s": connection,
        "down_mb_s": connection,
        **link_constants(catalog, functions),
        "store_mb_s": Constant(UNBOUNDED, 1.0, "object stores grow with their load; no bound was measured"),
        **_requests(catalog, store),
        "pack_s_per_mb": NO_PACKING,
    }


def _requests(catalog: Catalog, store: str) -> dict[str, Constant]:
    """What a store takes before it refuses; of reads, which are most of an exchange's requests."""
    path = ("stores", store, "gets_per_s")
    known = getattr(catalog.offer_at(path), "gets_per_s", None) is not None
    return {"store_requests_per_s": _figure(catalog, path)} if known else {}


def server_constants(catalog: Catalog, server: str, functions: str) -> dict[str, Constant]:
    """What a catalog says of a channel's server and of the links of functions.

    Raises:
        ConfigError: it says too little of them.
    """
    latency = _figure(catalog, ("servers", server, "latency_s"))
    links = link_constants(catalog, functions)
    return {
        "put_latency_s": latency,
        "get_latency_s": latency,
        "up_mb_s": links["link_mb_s"],
        "down_mb_s": links["link_mb_s"],
        **links,
        "store_mb_s": _figure(catalog, ("servers", server, "bandwidth_mb_s")),
        "pack_s_per_mb": NO_PACKING,
    }


UNKNOWN_LINK = Constant(75.0, 2.5, "no figure is published: as AWS Lambda's (LambdaML, FuncPipe, Skyrise, from memory)")
NO_LINK = Constant(UNBOUNDED, 1.0, "one machine: there is no link")
NO_BURST = Constant(1e-6, 1.0, "no burst is known of")


def link_constants(catalog: Catalog, functions: str) -> dict[str, Constant]:
    """What a catalog says of the links of functions; where it lists no functions, they share one machine."""
    if not functions:
        return {"link_mb_s": NO_LINK, "burst_mb": NO_BURST}
    path = ("functions", functions, "burst_mib")
    burst = getattr(catalog.offer_at(path), "burst_mib", None)
    mib = Constant.of(burst, catalog.provenance(path)) if burst else NO_BURST
    known = getattr(catalog.offer_at(path), "bandwidth_mb_s", None) is not None
    return {
        "link_mb_s": _figure(catalog, ("functions", functions, "bandwidth_mb_s")) if known else UNKNOWN_LINK,
        "burst_mb": Constant(mib.value * 1.048576, mib.spread, mib.source),
    }


def _figure(catalog: Catalog, path: tuple[str, ...]) -> Constant:
    value = getattr(catalog.offer_at(path), path[-1], None)
    if not isinstance(value, (int, float)):
        raise ConfigError(
            f"the prices of {catalog.provider} say nothing of {'.'.join(path)}", "set it in [prices] of smlt.toml"
        )
    return Constant.of(float(value), catalog.provenance(path))


def merged(*groups: Mapping[str, Constant]) -> dict[str, Constant]:
    """Several groups of constants as one; a later one is stronger."""
    return {name: constant for group in groups for name, constant in group.items()}

"""The paper's headline, rebuilt: time and cost of an iteration with smlt and with its peers' patterns, n = 50 to 200.

    python -m benchmarks.headline --workers 50,100,150,200 -o json

One model for all: computing, stages of an exchange, the price list. Constants are those that `validate_model.py` fits
on published measurements: S3 and a function's link on Siren's, the parameter server on Cirrus', Redis hosts on SMLT's.
What differs between systems is the pattern, and where it says so the client. Left out: start, the time limit, data.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from benchmarks.validate_model import PUBLISHED, SERIES, counts_of, fitted, siren, smlt_redis
from smlt.backends.channels.object import ObjectChannel
from smlt.backends.channels.redis import RedisChannel
from smlt.cli.tables import print_json, print_rows
from smlt.core.catalog import load_catalog
from smlt.core.storage import ChannelCapabilities
from smlt.core.task import Region
from smlt.planners import analytic
from smlt.planners.constants import Constant, Values
from smlt.planners.fit import Seen, fit
from smlt.planners.transfer import NO_BURST, NO_PACKING, Stage, exchange_s, stages_of

GRADIENT_MB = {"resnet18": 47, "resnet50": 102}
MEMORY_MIB = 3072
"""Of every function: not published; what it is changes no ratio by much, as all have the same."""

REDIS_HOSTS, REDIS_HOST = 4, "cache.r5.4xlarge"
"""SMLT had three to five hosts of the class of a c5.4xlarge."""

CIRRUS_VM = "c5.2xlarge"
PERIOD = 50
"""Steps between two exchanges of local SGD."""

CIRRUS_PRIORS: Mapping[str, Constant] = {
    "put_latency_s": Constant(3e-4, 2.5, "LambdaML: 0.15 to 0.5 ms between machines, from memory"),
    "get_latency_s": Constant(3e-4, 2.5, "LambdaML: 0.15 to 0.5 ms between machines, from memory"),
    "up_mb_s": Constant(76.0, 1.6, "a function's link, as Siren's series has it"),
    "down_mb_s": Constant(76.0, 1.6, "a function's link, as Siren's series has it"),
    "link_mb_s": Constant(1e9, 1.0, "in up_mb_s and down_mb_s already"),
    "burst_mb": NO_BURST,
    "store_mb_s": Constant(1250.0, 4.0, "a virtual machine of up to 10 Gbit/s"),
    "pack_s_per_mb": NO_PACKING,
}


@dataclass(frozen=True)
class Exchange:
    """One exchange of n workers: seconds, and what is billed beside functions.

    Attributes:
        seconds: of it.
        puts, gets: requests of all workers to S3.
        calls: functions that are called for it.
        servers_usd_per_h: machines that are there for it.
        every: steps from one to the next.
    """

    seconds: float
    puts: float = 0.0
    gets: float = 0.0
    calls: int = 0
    servers_usd_per_h: float = 0.0
    every: int = 1


@cache
def of_s3() -> Mapping[str, float]:
    """S3 and a function's link, by Siren's two series."""
    return fitted(SERIES["siren.resnet18"], (10, 50)).values


@cache
def of_redis() -> Mapping[str, float]:
    """SMLT's hosts and its serial client, by its own series."""
    return fitted(SERIES["smlt.resnet50"], (10, 50)).values


def compute_s(model: str, workers: int) -> float:
    """Of an iteration: learned from the published one of Siren at 50 workers, less its exchange."""
    series = SERIES[f"iteration.{model}.siren"]
    parts = series.pattern(workers)
    return parts["compute"](_computing(model))


@cache
def _computing(model: str) -> Mapping[str, float]:
    return fitted(SERIES[f"iteration.{model}.siren"], (50,)).values


@cache
def of_cirrus() -> Mapping[str, float]:
    """One parameter server, by the published iteration of 50 workers on ResNet-18, less its computing."""
    published: Any = tomllib.loads(PUBLISHED.read_text(encoding="utf-8"))["iteration"]["resnet18"]
    seconds = published["cirrus_s"][published["workers"].index(50)] - compute_s("resnet18", 50)
    return fit(CIRRUS_PRIORS, [Seen(lambda values: _parameter_server("resnet18", 50, values), seconds)]).values


def _parameter_server(model: str, workers: int, values: Values) -> float:
    size = GRADIENT_MB[model] * 1e6
    return exchange_s([Stage(1, 0, size, 0, workers), Stage(0, 1, 0, size, workers)], values)


def siren_like(model: str, workers: int) -> Exchange:
    """Everybody puts a whole gradient to S3 and gets those of all."""
    seconds = sum(part(of_s3()) for part in siren(GRADIENT_MB[model], workers).values())
    return Exchange(seconds, puts=workers, gets=workers * workers)


def cirrus_like(model: str, workers: int) -> Exchange:
    """Everybody sends a gradient to one server on a virtual machine, and gets the model back."""
    price = load_catalog("smlt.backends.aws").vms[CIRRUS_VM].usd_per_h
    return Exchange(_parameter_server(model, workers, of_cirrus()), servers_usd_per_h=price)


def lambdaml_like(model: str, workers: int) -> Exchange:
    """ScatterReduce over S3, a key after the other: n - 1 slices out and in, the sum out, n - 1 sums in."""
    size, others = GRADIENT_MB[model] * 1e6, workers - 1
    share = size / workers
    stages = [
        Stage(others, 0, others * share, 0, workers, packed_bytes=size, requests=others),
        Stage(0, others, 0, others * share, workers, requests=others),
        Stage(1, 0, share, 0, workers, requests=1),
        Stage(0, others, 0, others * share, workers, requests=others),
    ]
    return Exchange(exchange_s(stages, of_s3()), puts=workers * workers, gets=2 * workers * others)


def smlt_paper(model: str, workers: int) -> Exchange:
    """The paper's own: n shards a worker through Redis, a key after the other, 2n + 1 calls an iteration."""
    seconds = sum(part(of_redis()) for part in smlt_redis(GRADIENT_MB[model], workers).values())
    return Exchange(seconds, calls=2 * workers + 1, servers_usd_per_h=_redis_usd_per_h())


def _redis_usd_per_h() -> float:
    return REDIS_HOSTS * load_catalog("smlt.backends.aws").servers[REDIS_HOST].usd_per_h


def _ours(model: str, workers: int, channel: ChannelCapabilities, values: Values) -> tuple[float, Any]:
    """Seconds, and what the slowest rank asks of the channel, by the pattern that smlt chooses there."""
    region = Region("float32", GRADIENT_MB[model] * 250_000, True)
    cost = analytic.Fleet(workers, MEMORY_MIB, 1.0, channel).sync_cost((region,))
    return exchange_s(stages_of(cost, workers), {**values, "pack_s_per_mb": NO_PACKING.value}), cost


def smlt_over_redis(model: str, workers: int) -> Exchange:
    """smlt every step, over the same hosts: their bandwidth is SMLT's, the link Siren's, a request the catalog's."""
    latency_s = load_catalog("smlt.backends.aws").servers[REDIS_HOST].latency_s or 0.0006
    link = of_s3()["link_mb_s"]
    of_function = {name: value for name, value in of_s3().items() if name != "store_requests_per_s"}
    values = {
        **of_function, "put_latency_s": latency_s, "get_latency_s": latency_s, "up_mb_s": link, "down_mb_s": link,
        "store_mb_s": of_redis()["store_mb_s"],
    }  # fmt: skip
    seconds, _ = _ours(model, workers, RedisChannel.capabilities, values)
    return Exchange(seconds, servers_usd_per_h=_redis_usd_per_h())


def smlt_over_s3(model: str, workers: int) -> Exchange:
    """smlt every step over S3: packed, ranged reads, no server."""
    seconds, cost = _ours(model, workers, ObjectChannel.capabilities, of_s3())
    requests = cost.requests
    return Exchange(seconds, puts=workers * requests.get("put", 0), gets=workers * requests.get("get", 0))


def smlt_diloco(model: str, workers: int) -> Exchange:
    """smlt's local SGD over S3; lossy: other weights after as many steps."""
    found = smlt_over_s3(model, workers)
    return Exchange(found.seconds, found.puts, found.gets, every=PERIOD)


SYSTEMS = {
    "smlt every_step, redis": smlt_over_redis,
    "smlt every_step, s3": smlt_over_s3,
    f"smlt DiLoCo, s3, every {PERIOD} (lossy)": smlt_diloco,
    "SMLT as published": smlt_paper,
    "LambdaML-like": lambdaml_like,
    "Cirrus-like": cirrus_like,
    "Siren-like": siren_like,
}
BASE = "smlt every_step, redis"
"""What the others are held against."""


def row(model: str, workers: int, system: str) -> dict[str, Any]:
    """An iteration: seconds and US dollars."""
    catalog = load_catalog("smlt.backends.aws")
    exchange, compute = SYSTEMS[system](model, workers), compute_s(model, workers)
    seconds = compute + exchange.seconds / exchange.every
    functions = workers * catalog.function.usd_per_s(MEMORY_MIB) * seconds
    functions += exchange.calls * catalog.function.usd_per_request
    requests = catalog.stores["s3"].usd(puts=exchange.puts, gets=exchange.gets) / exchange.every
    servers = exchange.servers_usd_per_h * seconds / 3600
    return {
        "model": model,
        "workers": workers,
        "system": system,
        "is_lossy": exchange.every > 1,
        "compute_s": compute,
        "exchange_s": exchange.seconds / exchange.every,
        "iteration_s": seconds,
        "cost_usd": functions + requests + servers,
        "functions_usd": functions,
        "requests_usd": requests,
        "servers_usd": servers,
    }


def headline(models: tuple[str, ...], workers: tuple[int, ...]) -> list[dict[str, Any]]:
    """A row a model, count and system, with the ratios to smlt every_step over Redis."""
    rows = []
    for model in models:
        for count in workers:
            base = row(model, count, BASE)
            for system in SYSTEMS:
                each = row(model, count, system)
                each["time_ratio"] = each["iteration_s"] / base["iteration_s"]
                each["cost_ratio"] = each["cost_usd"] / base["cost_usd"]
                rows.append(each)
    return rows


def _print(rows: list[dict[str, Any]]) -> None:
    head = ["model", "n", "system", "compute s", "exchange s", "iteration s", "USD", "time", "cost"]
    print_rows(
        [
            [
                each["model"], str(each["workers"]), each["system"], f"{each['compute_s']:.1f}",
                f"{each['exchange_s']:.2f}", f"{each['iteration_s']:.1f}", f"{each['cost_usd']:.3f}",
                f"{each['time_ratio']:.2f}x", f"{each['cost_ratio']:.2f}x",
            ]
            for each in rows
        ],
        head=head, right=[1, 3, 4, 5, 6, 7, 8],
    )  # fmt: skip
    print(f"\nratios to {BASE}; {MEMORY_MIB} MiB a function; without start, time limits, data, taxes, free tiers")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="headline", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", default=",".join(GRADIENT_MB), metavar="NAME,…", help=", ".join(GRADIENT_MB))
    parser.add_argument("--workers", type=counts_of, default=(50, 100, 150, 200), metavar="N,…")
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    asked = parser.parse_args()
    models = tuple(asked.models.split(","))
    if set(models) - set(GRADIENT_MB):
        parser.error(f"--models {asked.models!r}: there are {', '.join(GRADIENT_MB)}")
    rows = headline(models, asked.workers)
    if asked.output == "json":
        print_json({"base": BASE, "memory_mib": MEMORY_MIB, "rows": rows})
    else:
        _print(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Gradient synchronisation against gloo's all_reduce: same ranks, same vector, interleaved rounds in one run.

    python -m benchmarks.sync.all_reduce --channels shared_memory,reducing,redis,object --workers 2,4 [-o json]

A round's time is from the first rank's start to the last rank's end; what counts is the ratio of medians. The result of
every variant is checked against the exact sum before it is timed. redis is a Valkey of this run's own, stock settings.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from smlt.backends.local.backend import LocalBackend, LocalOptions
from smlt.core.backend import RunPlace
from smlt.core.plugins import load_registry
from smlt.core.storage import ChannelSpec
from smlt.core.sync.choice import collective_for
from smlt.core.sync.collectives import Seat
from smlt.core.sync.header import Header
from smlt.core.task import Region

SHARED_MEMORY = Path("/dev/shm")
GLOO = "gloo all_reduce"


@dataclass(frozen=True)
class Setting:
    """One cell of the table: how many ranks sum vectors of how many float32 elements, in how many timed rounds."""

    workers: int
    elements: int
    rounds: int


def measure(setting: Setting, channels: list[str]) -> dict[str, list[float]]:
    """Seconds of every round by variant."""
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(setting.workers), context.Queue()
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(dir=SHARED_MEMORY if SHARED_MEMORY.is_dir() else None))
        specs = _serve(stack, channels, Path(folder))
        ranks = [
            context.Process(target=_rank, args=(rank, setting, folder, specs, barrier, queue))
            for rank in range(setting.workers)
        ]
        for process in ranks:
            process.start()
        spans = [queue.get() for _ in ranks]
        for process in ranks:
            process.join()
    rounds = {}
    for variant in spans[0]:
        by_round = zip(*(rank[variant] for rank in spans), strict=True)
        rounds[variant] = [max(end for _, end in ends) - min(start for start, _ in ends) for ends in by_round]
    return rounds


def _serve(stack: ExitStack, channels: list[str], folder: Path) -> dict[str, ChannelSpec]:
    """Start what the channels need; it ends with the stack."""
    options = {}
    if "redis" in channels:
        from tests.support.valkey import valkey

        server = stack.enter_context(valkey(folder))
        options["redis_url"] = server.url
    backend = LocalBackend("local", LocalOptions.model_validate(options))
    place = RunPlace(f"bench-{folder.name}", folder)
    stack.callback(backend.clean, place)
    for channel in channels:
        stack.enter_context(backend.serving(channel, place))
    return {channel: backend.channel(channel, place)[1] for channel in channels}


def _rank(
    rank: int, setting: Setting, folder: str, specs: dict[str, ChannelSpec], barrier: object, queue: object
) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    registry, regions = load_registry(), (Region("float32", setting.elements),)
    opened = {
        name: registry.open_channel(spec, generation=1, round_number=0, rank=rank) for name, spec in specs.items()
    }
    patterns = {
        name: collective_for(Seat(channel, (1, 0), rank, setting.workers, lambda piece, peer: None), regions)
        for name, channel in opened.items()
    }
    dist.init_process_group("gloo", init_method=f"file://{folder}/gloo", rank=rank, world_size=setting.workers)
    own = np.random.default_rng(rank).standard_normal(setting.elements, dtype=np.float32)
    tensor = torch.empty(setting.elements)

    def sum_by(variant: str, step: int) -> Callable[[], np.ndarray]:
        if variant == GLOO:
            tensor.copy_(torch.from_numpy(own))
            return lambda: (dist.all_reduce(tensor), tensor.numpy())[1]
        np.copyto(patterns[variant].contribution(step)[0], own)  # as backward does: it computes into this memory
        return lambda: patterns[variant].reduce(Header(step))[1][0]

    exact = sum(
        np.random.default_rng(peer).standard_normal(setting.elements, dtype=np.float32).astype(np.float64)
        for peer in range(setting.workers)
    )
    spans: dict[str, list[tuple[float, float]]] = {variant: [] for variant in (GLOO, *patterns)}
    for step in range(setting.rounds + 2):
        for variant, times in spans.items():
            run = sum_by(variant, step)
            barrier.wait()
            start = time.perf_counter()
            result = run()
            end = time.perf_counter()
            if step == 0:
                np.testing.assert_allclose(result, exact, rtol=1e-4, atol=1e-4)
            elif step > 1:
                times.append((start, end))
    barrier.wait()
    dist.destroy_process_group()
    for channel in opened.values():
        channel.close()
    queue.put(spans)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", default="shared_memory,reducing,redis,object", help="names as in [sync].channel")
    parser.add_argument("--workers", default="2,4", help="numbers of ranks")
    parser.add_argument("--megabytes", default="1,46", help="sizes of the vector, in MB of float32")
    parser.add_argument("--rounds", type=int, default=15, help="timed rounds a setting")
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    arguments = parser.parse_args()
    rows = []
    for workers in map(int, arguments.workers.split(",")):
        for megabytes in map(float, arguments.megabytes.split(",")):
            setting = Setting(workers, int(megabytes * 1e6 / 4), arguments.rounds)
            medians = {
                variant: statistics.median(times)
                for variant, times in measure(setting, arguments.channels.split(",")).items()
            }
            peer = medians[GLOO]
            rows += [
                {"workers": workers, "megabytes": megabytes, "variant": variant, "median_ms": time_s * 1e3,
                 "ratio_to_gloo": time_s / peer}
                for variant, time_s in medians.items()
            ]  # fmt: skip
    if arguments.output == "json":
        print(json.dumps(rows, indent=2))
        return
    print(f"{'N':>3} {'MB':>6}  {'variant':<22} {'median ms':>10} {'x gloo':>7}")
    for row in rows:
        print(
            f"{row['workers']:>3} {row['megabytes']:>6g}  {row['variant']:<22} {row['median_ms']:>10.1f} "
            f"{row['ratio_to_gloo']:>7.2f}"
        )


if __name__ == "__main__":
    main()

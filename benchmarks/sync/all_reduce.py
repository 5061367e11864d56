"""Gradient synchronisation against gloo's all_reduce: same ranks, same vector, interleaved rounds in one run.

    python benchmarks/sync/all_reduce.py --workers 2,4 --megabytes 1,46 --rounds 15 [-o json]

A round's time is from the first rank's start to the last rank's end; what counts is the ratio of medians. The result of
every variant is checked against the exact sum before it is timed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from smlt.backends.channels import shared_memory
from smlt.core.backend import RunPlace
from smlt.core.plugins import load_registry
from smlt.core.sync.collectives import ScatterReduce
from smlt.core.sync.header import Header
from smlt.core.task import Region


@dataclass(frozen=True)
class Setting:
    """One cell of the table: how many ranks sum vectors of how many float32 elements, in how many timed rounds."""

    workers: int
    elements: int
    rounds: int


def measure(setting: Setting) -> dict[str, list[float]]:
    """Seconds of every round by variant."""
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(setting.workers), context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        ranks = [
            context.Process(target=_rank, args=(rank, setting, folder, barrier, queue))
            for rank in range(setting.workers)
        ]
        for process in ranks:
            process.start()
        spans = [queue.get() for _ in ranks]
        for process in ranks:
            process.join()
        shared_memory.sweep(_place(folder))
    rounds = {}
    for variant in spans[0]:
        by_round = zip(*(rank[variant] for rank in spans), strict=True)
        rounds[variant] = [max(end for _, end in ends) - min(start for start, _ in ends) for ends in by_round]
    return rounds


def _place(folder: str) -> RunPlace:
    return RunPlace(f"bench-{Path(folder).name}", Path(folder))


def _rank(rank: int, setting: Setting, folder: str, barrier: object, queue: object) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    spec = shared_memory.spec_for(_place(folder))
    channel = load_registry().open_channel(spec, generation=1, round_number=0, rank=rank)
    reduce = ScatterReduce(
        channel, (Region("float32", setting.elements),), (1, 0), rank, setting.workers, lambda piece, peer: None
    )
    dist.init_process_group("gloo", init_method=f"file://{folder}/gloo", rank=rank, world_size=setting.workers)
    own = np.random.default_rng(rank).standard_normal(setting.elements, dtype=np.float32)
    tensor = torch.empty(setting.elements)

    def smlt_sum(step: int) -> Callable[[], np.ndarray]:
        np.copyto(reduce.contribution(step)[0], own)  # what backward does: gradients are computed into this memory
        return lambda: reduce.reduce(Header(step))[1][0]

    def gloo_sum(step: int) -> Callable[[], np.ndarray]:
        tensor.copy_(torch.from_numpy(own))
        return lambda: (dist.all_reduce(tensor), tensor.numpy())[1]

    variants = {"gloo all_reduce": gloo_sum, "smlt shared memory": smlt_sum}
    exact = sum(
        np.random.default_rng(peer).standard_normal(setting.elements, dtype=np.float32).astype(np.float64)
        for peer in range(setting.workers)
    )
    spans: dict[str, list[tuple[float, float]]] = {variant: [] for variant in variants}
    for step in range(setting.rounds + 2):
        for variant, prepare in variants.items():
            run = prepare(step)
            barrier.wait()
            start = time.perf_counter()
            result = run()
            end = time.perf_counter()
            if step == 0:
                np.testing.assert_allclose(result, exact, rtol=1e-4, atol=1e-4)
            elif step > 1:
                spans[variant].append((start, end))
    barrier.wait()
    dist.destroy_process_group()
    channel.close()
    queue.put(spans)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", default="2,4", help="numbers of ranks")
    parser.add_argument("--megabytes", default="1,46", help="sizes of the vector, in MB of float32")
    parser.add_argument("--rounds", type=int, default=15, help="timed rounds a setting")
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    arguments = parser.parse_args()
    rows = []
    for workers in map(int, arguments.workers.split(",")):
        for megabytes in map(float, arguments.megabytes.split(",")):
            setting = Setting(workers, int(megabytes * 1e6 / 4), arguments.rounds)
            medians = {variant: statistics.median(times) for variant, times in measure(setting).items()}
            peer = medians["gloo all_reduce"]
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

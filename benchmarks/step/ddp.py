"""A training step of smlt against torch's DistributedDataParallel on gloo: same models, same batches, one run.

    python -m benchmarks.step.ddp --models resnet18,transformer --workers 2 --channels shared_memory,redis,reducing

N processes with one thread each take a step of every variant in turn, each behind a barrier; a step's time is from the
first rank's start to the last rank's end. After three steps all variants must have the same parameters, within what
fp32 sums in another order may differ by.

Rows "compute only" are the same steps without synchronisation: DDP's under `no_sync`, and smlt's with a rank alone.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.step import MODELS
from benchmarks.step.crew import Lap, Plan, end_on_sigterm, figures, measure, span_ms
from smlt.backends.local.backend import LocalBackend, LocalOptions
from smlt.bench.redis_server import redis_server
from smlt.core.backend import RunPlace
from smlt.core.errors import ConfigError, SmltError, nearest
from smlt.core.plugins import load_registry
from smlt.core.storage import ChannelSpec

if TYPE_CHECKING:
    from benchmarks.step.steps import Step

DDP = "ddp gloo"
DDP_ALONE = "ddp, compute only"
SMLT_ALONE = "smlt, compute only"
SHARED_MEMORY = Path("/dev/shm")


def open_steps(rank: int, model: str, workers: int, specs: Mapping[str, ChannelSpec], meeting: str) -> dict[str, Step]:
    """All variants of one rank."""
    import torch.distributed as dist

    from benchmarks.step.steps import DdpStep, Place, SmltStep, Trained

    place, registry = Place(model, rank, workers), load_registry()
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=workers)
    steps: dict[str, Step] = {DDP: DdpStep(place)}
    for name, spec in specs.items():
        channel = registry.open_channel(spec, generation=1, round_number=0, rank=rank)
        steps[name] = SmltStep(Trained.build(place), channel)
    steps[DDP_ALONE] = DdpStep(place, synced=False)
    steps[SMLT_ALONE] = SmltStep(Trained.build(place), None)
    return steps


def measure_model(model: str, workers: int, channels: Sequence[str], rounds: int) -> dict[str, list[list[Lap]]]:
    """Laps by variant."""
    with ExitStack() as stack:
        parent = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="smlt-step-", dir=parent)))
        options = {}
        if "redis" in channels:
            options["redis_url"] = stack.enter_context(redis_server(folder)).url
        backend = LocalBackend("local", LocalOptions.model_validate(options))
        place = RunPlace(folder.name, folder)
        stack.callback(backend.clean, place)
        for channel in channels:
            stack.enter_context(backend.serving(channel, place))
        specs = {channel: backend.channel(channel, place)[1] for channel in channels}
        arguments = (model, workers, specs, str(folder / "gloo"))
        return measure(Plan(workers, rounds, open_steps, arguments, agree=(DDP, *channels)))


def rows_of(model: str, workers: int, measured: Mapping[str, Sequence[Sequence[Lap]]]) -> list[dict[str, Any]]:
    """A row a variant."""
    medians = {name: statistics.median(map(span_ms, rounds)) for name, rounds in measured.items()}
    return [
        {
            "model": model,
            "workers": workers,
            "variant": name,
            **figures(rounds),
            "sync_ms": medians[name] - medians[DDP_ALONE],
            "ratio_to_ddp": medians[name] / medians[DDP],
        }
        for name, rounds in measured.items()
    ]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """For people."""
    lines = [
        f"{'model':<12} {'N':>2}  {'variant':<18} {'median ms':>9} {'fastest':>8} {'sync':>7} {'x DDP':>6} "
        f"{'CPU ms':>7} {'cores used':>10}"
    ]
    lines += [
        f"{row['model']:<12} {row['workers']:>2}  {row['variant']:<18} {row['median_ms']:>9.1f} "
        f"{row['fastest_ms']:>8.1f} {row['sync_ms']:>7.1f} {row['ratio_to_ddp']:>6.3f} "
        f"{row['worker_cpu_ms']:>7.0f} {row['cores_used']:>10.2f}"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="resnet18,transformer", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--workers", type=int, default=2, help="number of ranks")
    parser.add_argument("--channels", default="shared_memory,redis,reducing", help="names as in [sync].channel")
    parser.add_argument("--rounds", type=int, default=15, help="timed steps of every variant")
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    arguments = parser.parse_args()
    end_on_sigterm()
    load = os.getloadavg()
    rows: list[dict[str, Any]] = []
    try:
        for model in arguments.models.split(","):
            if model not in MODELS:
                raise ConfigError(f"no model is called {model!r}", nearest(model, list(MODELS)))
            measured = measure_model(model, arguments.workers, arguments.channels.split(","), arguments.rounds)
            rows += rows_of(model, arguments.workers, measured)
    except SmltError as error:
        sys.exit(f"ddp: {error}")
    except KeyboardInterrupt:
        sys.exit("ddp: interrupted")
    if arguments.output == "json":
        print(json.dumps({"load_average": load, "rows": rows}, indent=2))
    else:
        print(f"load average {load[0]:.2f} at the start\n{table(rows)}")


if __name__ == "__main__":
    main()

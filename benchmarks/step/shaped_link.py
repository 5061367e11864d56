"""A training step of N workers, each behind a link with a cloud function's bandwidth; ways of sending compared.

    python -m benchmarks.step.shaped_link --workers 4 --mbit 600 --channel redis

Each worker is a process in a network namespace; its link to the hub, where an unshaped store runs, is shaped by tc's
tbf, up and down. All variants take their steps in turn, behind a barrier. "sync" is a step less a step that only
computes; it is compared with the time in which the link carries the larger of what a rank sends and receives. Needs
root. Namespaces, links and processes are gone afterwards, also after Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.step import MODELS, star
from benchmarks.step.crew import Lap, Plan, end_on_sigterm, figures, measure, span_ms
from smlt.backends.channels import reducing_server
from smlt.backends.local.backend import LocalBackend, LocalOptions
from smlt.bench.redis_server import redis_server
from smlt.core.backend import RunPlace
from smlt.core.errors import ChannelError, ConfigError, SmltError, nearest
from smlt.core.plugins import load_registry
from smlt.core.storage import ChannelSpec
from smlt.core.sync.codecs import codec_named

if TYPE_CHECKING:
    from benchmarks.step.steps import Step

ALONE = "compute only"
VARIANTS = {
    "sequential fp32": (None, False),
    "sequential bf16": ("bf16", False),
    "overlapped fp32": (None, True),
    "overlapped bf16": ("bf16", True),
    "overlapped int8": ("int8", True),
}
"""Codec, and whether it overlaps with computing."""

REFERENCE = "sequential fp32"
STORE_BYTES = 4 << 30
IDLE_S = 3600


def open_steps(
    rank: int, model: str, workers: Sequence[str], spec: ChannelSpec, names: Sequence[str]
) -> dict[str, Step]:
    """All variants of one rank, in its namespace; they train one model in turn, as only time matters."""
    from benchmarks.step.steps import Place, SmltStep, Trained

    star.enter(workers[rank])
    trained, registry = Trained.build(Place(model, rank, len(workers))), load_registry()
    steps: dict[str, Step] = {ALONE: SmltStep(trained, None)}
    for number, name in enumerate(names):
        codec, overlap = VARIANTS[name]
        channel = registry.open_channel(spec, generation=1, round_number=number, rank=rank)
        steps[name] = SmltStep(trained, channel, codec_named(codec or "fp32"), number, overlap=overlap)
    return steps


@contextmanager
def store(channel: str, folder: Path, hub: str) -> Iterator[ChannelSpec]:
    """A store in the hub, for the workers to reach."""
    with ExitStack() as stack:
        if channel == "redis":
            with star.inside(hub):
                settings = ("--bind", star.HUB, "--protected-mode", "no")
                server = stack.enter_context(redis_server(folder, *settings))
            options: dict[str, Any] = {"redis_url": f"redis://{star.HUB}:{server.port}"}
        else:
            token = folder / "token"
            token.write_text(os.urandom(32).hex(), encoding="utf-8")
            with star.inside(hub):
                url = stack.enter_context(_reducing_server(token))
            options = {"reducing_url": url, "reducing_token_file": token}
        backend = LocalBackend("local", LocalOptions.model_validate(options))
        yield backend.channel(channel, RunPlace(folder.name, folder))[1]


@contextmanager
def _reducing_server(token: Path) -> Iterator[str]:
    arguments = [f"tcp://{star.HUB}:0", str(token), str(IDLE_S), str(STORE_BYTES)]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", reducing_server.__name__, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise ChannelError("the reducing store does not start")
        yield line.removeprefix("listening on ").strip()
    finally:
        process.kill()
        process.communicate()


def rows_of(measured: Mapping[str, Sequence[Sequence[Lap]]], mbit: float) -> list[dict[str, Any]]:
    """A row a variant."""
    medians = {name: statistics.median(map(span_ms, rounds)) for name, rounds in measured.items()}
    reference = medians.get(REFERENCE)
    rows = []
    for name, rounds in measured.items():
        sent = max(max(lap.up, lap.down) for laps in rounds for lap in laps)
        sync_ms, wire_ms = medians[name] - medians[ALONE], sent * 8 / mbit / 1e3
        rows.append(
            {
                "variant": name,
                **figures(rounds),
                "sync_ms": sync_ms,
                "bytes_per_rank": sent,
                "wire_ms": wire_ms,
                "sync_by_wire": sync_ms / wire_ms if wire_ms else None,
                "ratio_to_sequential": medians[name] / reference if reference else None,
            }
        )
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """For people."""
    lines = [
        f"{'variant':<16} {'median ms':>9} {'fastest':>8} {'sync':>7} {'MB':>6} {'wire ms':>8} {'sync/wire':>9} "
        f"{'x sequential':>12} {'CPU ms':>7} {'cores used':>10}"
    ]
    lines += [
        f"{row['variant']:<16} {row['median_ms']:>9.0f} {row['fastest_ms']:>8.0f} {row['sync_ms']:>7.0f} "
        f"{row['bytes_per_rank'] / 1e6:>6.1f} {row['wire_ms']:>8.0f} {row['sync_by_wire'] or 0:>9.2f} "
        f"{row['ratio_to_sequential'] or 0:>12.2f} {row['worker_cpu_ms']:>7.0f} {row['cores_used']:>10.2f}"
        for row in rows
    ]
    return "\n".join(lines)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """The measurement; nothing of it is left."""
    names = arguments.variants.split(",")
    for name in names:
        if name not in VARIANTS:
            raise ConfigError(f"no variant is called {name!r}", nearest(name, list(VARIANTS)))
    load = os.getloadavg()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="smlt-step-")))
        made = stack.enter_context(star.star(arguments.workers, arguments.mbit))
        spec = stack.enter_context(store(arguments.channel, folder, made.hub))
        print(f"measuring in the namespaces {made.hub}, {', '.join(made.workers)}", file=sys.stderr, flush=True)
        plan = Plan(arguments.workers, arguments.rounds, open_steps, (arguments.model, made.workers, spec, names))
        rows = rows_of(measure(plan), arguments.mbit)
        return {
            "model": arguments.model,
            "workers": arguments.workers,
            "mbit": arguments.mbit,
            "channel": arguments.channel,
            "load_average": load,
            "dropped_packets": made.dropped(),
            "rows": rows,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18", choices=MODELS)
    parser.add_argument("--workers", type=int, default=4, help="number of ranks, each behind a link")
    parser.add_argument("--mbit", type=float, default=600.0, help="of each link, up and down at once")
    parser.add_argument("--rounds", type=int, default=9, help="timed steps of every variant")
    parser.add_argument("--channel", default="redis", choices=["redis", "reducing"])
    parser.add_argument("--variants", default=",".join(VARIANTS), help="separated by commas")
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    arguments = parser.parse_args()
    end_on_sigterm()
    try:
        result = run(arguments)
    except SmltError as error:
        sys.exit(f"shaped_link: {error}")
    except KeyboardInterrupt:
        sys.exit("shaped_link: interrupted")
    if arguments.output == "json":
        print(json.dumps(result, indent=2))
        return
    print(
        f"{result['model']}, N={result['workers']}, {result['mbit']:g} Mbit/s a worker each way, {result['channel']}; "
        f"load average {result['load_average'][0]:.2f} at the start, {result['dropped_packets']} packets dropped"
    )
    print(table(result["rows"]))


if __name__ == "__main__":
    main()

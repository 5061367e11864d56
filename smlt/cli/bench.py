"""`smlt bench`: measure on this machine what a job would meet."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smlt.cli.options import Debug, Output, OutputFormat
from smlt.core.errors import Interrupted

if TYPE_CHECKING:
    from smlt.bench.report import Report, Row

app = typer.Typer(no_args_is_help=True, help="Measure on this machine, beside peers in the same run.")


@app.callback()
def bench() -> None:
    """Measure on this machine, beside peers in the same run."""


@app.command()
def sync(
    channels: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="As in [sync].channel, or reducing-tcp: over TCP to a `smlt serve-channel`. "
            "[default: all that can run here]",
        ),
    ] = None,
    workers: Annotated[str, typer.Option(metavar="N,…", help="How many ranks.")] = "2,4",
    megabytes: Annotated[str, typer.Option(metavar="MB,…", help="Sizes of the vector that is summed.")] = "1,46",
    rounds: Annotated[str, typer.Option(metavar="N", help="Timed rounds, of which the median counts.")] = "15",
    peers: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="gloo, lambdaml, lambdaml-hiredis, lambdaml-hscan, redis-py. "
            "[default: gloo, and lambdaml where there is a Redis]",
        ),
    ] = None,
    redis_url: Annotated[
        str | None, typer.Option(metavar="URL", help="A server that runs. [default: one of the run's own]")
    ] = None,
    redis_password_from: Annotated[
        str | None, typer.Option(metavar="VARIABLE", help="Of the environment: holds the password of --redis-url.")
    ] = None,
    png: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the ratios to gloo.")] = None,
    output: OutputFormat = Output.TABLE,
    debug: Debug = False,
) -> None:
    """Time gradient synchronisation over each channel, in turn with its peers; every sum is checked first."""
    from smlt.bench.chart import check_chart, draw_chart
    from smlt.bench.measure import measure
    from smlt.bench.plan import plan_for
    from smlt.bench.request import parse
    from smlt.bench.servers import offered_channels
    from smlt.cli.tables import print_json
    from smlt.core.plugins import load_registry

    registry = load_registry()
    offered = offered_channels(registry)
    request = parse(
        offered, channels=channels, peers=peers, workers=workers, megabytes=megabytes, rounds=rounds,
        redis_url=redis_url, redis_password_from=redis_password_from,
    )  # fmt: skip
    plan = plan_for(request, offered)
    if png:
        check_chart(png, plan.peers)
    with _interruptible():
        report = measure(request, plan, registry, say=_tell)
    if png:
        draw_chart(report, png)
    if output is Output.JSON:
        print_json(report.document())
    else:
        _print_table(report)


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


def _print_table(report: Report) -> None:
    from smlt.cli.tables import print_rows

    head = ["N", "MB", "variant", "median ms", "x gloo", "worker CPU ms", "CPU ns/B", "requests", "MB up", "MB down"]
    print_rows([_cells(row) for row in report.rows], head=head, right=(0, 1, *range(3, len(head))))
    for item in report.left_out:
        _tell(f"note: left out: {item.name}: {item.why}")
    for note in report.notes:
        _tell(f"note: {note}")


def _cells(row: Row) -> list[str]:
    requests = None if row.requests_per_step is None else sum(row.requests_per_step.values())
    return [
        str(row.workers),
        f"{row.megabytes:g}",
        row.variant,
        f"{row.median_ms:.1f}",
        _figure(row.ratio_to_gloo, 2),
        f"{row.worker_cpu_ms:.1f}",
        f"{row.worker_cpu_ns_per_byte:.2f}",
        _figure(requests, 0),
        _figure(None if row.bytes_up_per_step is None else row.bytes_up_per_step / 1e6, 1),
        _figure(None if row.bytes_down_per_step is None else row.bytes_down_per_step / 1e6, 1),
    ]


def _figure(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C and SIGTERM end what is measured, once; while everything is taken down they are not heard again."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)

    def on_signal(number: int, _: object) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(f"the measurement was interrupted by {signal.Signals(number).name}")

    before = {number: signal.signal(number, on_signal) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""`smlt scale`: another number of workers for a run that is under way."""

from __future__ import annotations

from typing import Annotated

import typer

from smlt.cli.options import Debug, NamedRun, Output, OutputFormat, RunsDir


def scale(
    run: NamedRun,
    workers: Annotated[int, typer.Option("-w", "--workers", metavar="N", min=1, help="Go on with so many.")],
    runs_dir: RunsDir = None,
    output: OutputFormat = Output.TABLE,
    debug: Debug = False,
) -> None:
    """Go on with another number of workers; the ones there now train until the new ones are ready."""
    from smlt.cli.found_runs import find_run
    from smlt.cli.loading import absolute_runs_dir
    from smlt.cli.tables import print_json
    from smlt.core.messages import Order, ScaleOrder
    from smlt.core.orders import give
    from smlt.core.plugins import load_registry

    found = find_run(load_registry(), absolute_runs_dir(runs_dir), run)
    before = found.view.workers_wanted
    number = give(found.store, run, Order(scale=ScaleOrder(workers)))
    if output is Output.JSON:
        print_json({"run": run, "order": number, "workers": workers, "workers_before": before})
    elif workers == before:
        typer.echo(f"{run} has {workers} worker{'s' if workers != 1 else ''} already")
    else:
        typer.echo(f"{run} goes from {before} to {workers} worker{'s' if workers != 1 else ''}: smlt status {run}")

"""`smlt cancel`: stop a run from anywhere."""

from __future__ import annotations

from typing import Annotated

import typer

from smlt.cli.options import Debug, NamedRun, Output, OutputFormat, RunsDir


def cancel(
    run: NamedRun,
    now: Annotated[bool, typer.Option("--now", help="Do not wait for a checkpoint.")] = False,
    runs_dir: RunsDir = None,
    output: OutputFormat = Output.TABLE,
    debug: Debug = False,
) -> None:
    """Stop a run after a checkpoint, or at once with --now; `smlt resume` goes on with it."""
    from smlt.cli.found_runs import find_run
    from smlt.cli.loading import absolute_runs_dir
    from smlt.cli.tables import print_json
    from smlt.core.messages import CancelOrder, Order
    from smlt.core.orders import give
    from smlt.core.plugins import load_registry

    found = find_run(load_registry(), absolute_runs_dir(runs_dir), run)
    number = give(found.store, run, Order(cancel=CancelOrder(at_once=now)))
    if output is Output.JSON:
        print_json({"run": run, "order": number, "at_once": now})
    else:
        typer.echo(f"{run} stops {'at once' if now else 'after a checkpoint'}: smlt status {run}")

"""`smlt train`: train a job, here or on a cloud, and say what came of it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from smlt.cli.options import (
    Assignments,
    BackendName,
    Config,
    Debug,
    Output,
    OutputFormat,
    RunsDir,
)
from smlt.core.errors import Interrupted, LimitReached

if TYPE_CHECKING:
    from smlt.core.runlog import RunView
    from smlt.core.summary import Summary

EXIT_CODES = {"succeeded": 0, "stopped": LimitReached.exit_code, "cancelled": Interrupted.exit_code}
"""By status; of a failed run it is that of its error."""


def train(
    task: Annotated[str | None, typer.Argument(metavar="TASK", help="file.py:Class or package.module:Class.")] = None,
    config: Config = None,
    backend: BackendName = None,
    workers: Annotated[
        str | None, typer.Option("-w", "--workers", metavar="N", help="How many work at once, or auto.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Memory of each worker, like 2GiB, or auto.")
    ] = None,
    deadline: Annotated[str | None, typer.Option(metavar="TIME", help="Stop by then, like 30m.")] = None,
    budget: Annotated[str | None, typer.Option(metavar="USD", help="Stop before more is spent, like 2usd.")] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="The run's name; an unfinished run of this name goes on.")
    ] = None,
    epochs: Annotated[str | None, typer.Option(metavar="N", help="Passes over the data.")] = None,
    steps: Annotated[str | None, typer.Option(metavar="N", help="Steps, instead of epochs.")] = None,
    catalog: Annotated[
        str | None, typer.Option(metavar="FILE", help="Bill by the prices in this file: see `smlt prices export`.")
    ] = None,
    assignments: Assignments = None,
    output: OutputFormat = Output.TABLE,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Say nothing but errors.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Tell of workers and checkpoints too.")] = False,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Do not ask before money is spent.")] = False,
    runs_dir: RunsDir = None,
    debug: Debug = False,
) -> None:
    """Train a task: TASK, or the one that smlt.toml names. Local unless told otherwise."""
    from smlt.api import cancelling
    from smlt.cli.loading import absolute_runs_dir, load_settings
    from smlt.cli.progress import progress_for
    from smlt.core.engine import Interrupts, RunRequest, run
    from smlt.core.plugins import load_registry

    registry = load_registry()
    flags = {
        "task": task, "backend": backend, "workers": workers, "memory": memory, "deadline": deadline,
        "budget": budget, "name": name, "epochs": epochs, "steps": steps,
        "catalog": catalog,
    }  # fmt: skip
    settings = load_settings(registry, config=config, assignments=assignments, flags=flags)
    request = RunRequest(settings.spec, absolute_runs_dir(runs_dir), settings.folder)
    interrupts = Interrupts()
    progress = progress_for(quiet=quiet, detailed=verbose)
    with progress, cancelling(interrupts, progress.say):
        summary = run(request, registry, listener=progress, interrupts=interrupts)
    _report(summary, progress.view, output, quiet)
    if summary.error:
        _tell_error(summary, verbose, debug)
    elif summary.status != "succeeded" and not quiet:
        raised = f" --{summary.stop_reason} …" if summary.stop_reason in ("deadline", "budget") else ""
        print(f"to go on: the same command with --name {summary.run}{raised}", file=sys.stderr)
    raise typer.Exit(summary.failure().exit_code if summary.status == "failed" else EXIT_CODES[summary.status])


def _report(summary: Summary, view: RunView, output: Output, quiet: bool) -> None:
    from smlt.cli.figures import closing_rows
    from smlt.cli.tables import print_figures

    if output is Output.JSON:
        print(summary.to_json(), flush=True)
    elif not quiet:
        print_figures(closing_rows(summary, view))
        sys.stdout.flush()


def _tell_error(summary: Summary, verbose: bool, debug: bool) -> None:
    from smlt.cli.lines import own_traceback

    error = summary.error
    if debug or verbose:
        print(error["traceback"] if debug else own_traceback(error), file=sys.stderr)
    print(f"error: {error['message']}", file=sys.stderr)
    if error["hint"]:
        print(f"  hint: {error['hint']}", file=sys.stderr)
    if not (debug or verbose) and error["traceback"]:
        print(f"  the traceback: smlt logs {summary.run}", file=sys.stderr)

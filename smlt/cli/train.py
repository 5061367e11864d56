"""`smlt train`: train a job, here or on a cloud, and say what came of it."""

from __future__ import annotations

from typing import Annotated

import typer

from smlt.cli.options import (
    Assignments,
    BackendName,
    Budget,
    CatalogFile,
    Config,
    Deadline,
    Debug,
    Detach,
    Epochs,
    Memory,
    Output,
    OutputFormat,
    ProfileFile,
    Quiet,
    RunsDir,
    Steps,
    Verbose,
    WorkerCount,
    Yes,
)


def train(
    task: Annotated[str | None, typer.Argument(metavar="TASK", help="file.py:Class or package.module:Class.")] = None,
    config: Config = None,
    backend: BackendName = None,
    workers: WorkerCount = None,
    memory: Memory = None,
    deadline: Deadline = None,
    budget: Budget = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="The run's name; an unfinished run of this name goes on.")
    ] = None,
    epochs: Epochs = None,
    steps: Steps = None,
    catalog: CatalogFile = None,
    profile: ProfileFile = None,
    assignments: Assignments = None,
    detach: Detach = False,
    output: OutputFormat = Output.TABLE,
    quiet: Quiet = False,
    verbose: Verbose = False,
    yes: Yes = False,
    runs_dir: RunsDir = None,
    debug: Debug = False,
) -> None:
    """Train a task: TASK, or the one that smlt.toml names. Local unless told otherwise."""
    from smlt.cli.driving import Shown, drive
    from smlt.cli.loading import absolute_runs_dir, load_settings
    from smlt.cli.spending import confirm_spending
    from smlt.core.engine import RunRequest, planned
    from smlt.core.plugins import load_registry
    from smlt.core.profile import read_profile

    registry = load_registry()
    flags = {
        "task": task, "backend": backend, "workers": workers, "memory": memory, "deadline": deadline,
        "budget": budget, "name": name, "epochs": epochs, "steps": steps,
        "catalog": catalog,
    }  # fmt: skip
    settings = load_settings(registry, config=config, assignments=assignments, flags=flags)
    measured = read_profile(profile) if profile else None
    request = RunRequest(settings.spec, absolute_runs_dir(runs_dir), settings.folder, profile=measured)
    request = planned(request, registry)
    confirm_spending(request, registry, yes=yes)
    raise typer.Exit(drive(request, registry, Shown(output, quiet, verbose, debug), detach=detach))

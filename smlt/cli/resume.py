"""`smlt resume`: go on with a run, whatever became of it."""

from __future__ import annotations

import typer

from smlt.cli.options import (
    Assignments,
    BackendName,
    Budget,
    Deadline,
    Debug,
    Detach,
    Epochs,
    Memory,
    NamedRun,
    Output,
    OutputFormat,
    Quiet,
    RunsDir,
    Steps,
    Verbose,
    WorkerCount,
    Yes,
)


def resume(
    run: NamedRun,
    backend: BackendName = None,
    workers: WorkerCount = None,
    memory: Memory = None,
    deadline: Deadline = None,
    budget: Budget = None,
    epochs: Epochs = None,
    steps: Steps = None,
    assignments: Assignments = None,
    detach: Detach = False,
    output: OutputFormat = Output.TABLE,
    quiet: Quiet = False,
    verbose: Verbose = False,
    yes: Yes = False,
    runs_dir: RunsDir = None,
    debug: Debug = False,
) -> None:
    """Go on with a run by its own settings: one that stopped, failed or lost its controller; a finished one for longer.

    In the folder that it was started in, the task's files there count; anywhere else, those that the run kept.
    """
    from pathlib import Path

    from smlt.cli.driving import Shown, drive
    from smlt.cli.found_runs import find_run
    from smlt.cli.loading import absolute_runs_dir, tell_set_aside, texts
    from smlt.core.plugins import load_registry
    from smlt.core.resume import Changes, resumption

    registry, folder = load_registry(), absolute_runs_dir(runs_dir)
    found = find_run(registry, folder, run)
    flags = {
        "backend": backend, "workers": workers, "memory": memory, "deadline": deadline, "budget": budget,
        "epochs": epochs, "steps": steps,
    }  # fmt: skip
    changes = Changes(texts(flags), "--{}".format, assignments=assignments or ())
    resumed = resumption(found.store, found.record, folder, Path.cwd(), changes, registry)
    tell_set_aside(resumed.settings)
    raise typer.Exit(drive(resumed.request, registry, Shown(output, quiet, verbose, debug), detach=detach))

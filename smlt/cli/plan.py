"""`smlt plan`: what a job would take and cost, by fleet; launches nothing."""

from __future__ import annotations

from pathlib import Path
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
    Epochs,
    Memory,
    Output,
    OutputFormat,
    ProfileFile,
    RunsDir,
    Steps,
    WorkerCount,
)


def plan(
    task: Annotated[str | None, typer.Argument(metavar="TASK", help="file.py:Class or package.module:Class.")] = None,
    config: Config = None,
    backend: BackendName = None,
    workers: WorkerCount = None,
    memory: Memory = None,
    deadline: Deadline = None,
    budget: Budget = None,
    epochs: Epochs = None,
    steps: Steps = None,
    catalog: CatalogFile = None,
    profile: ProfileFile = None,
    assignments: Assignments = None,
    output: OutputFormat = Output.TABLE,
    png: Annotated[
        Path | None, typer.Option("--png", metavar="FILE", help="Draw time and cost, with the limits.")
    ] = None,
    runs_dir: RunsDir = None,
    debug: Debug = False,
) -> None:
    """Predict what a job would take and cost, by fleet, best first. Launches nothing, and needs no account."""
    from smlt.cli.loading import absolute_runs_dir, load_settings
    from smlt.cli.plans import document_of, print_plans
    from smlt.cli.sizes import sizes_for
    from smlt.cli.tables import print_json
    from smlt.core.parcel import make_parcel
    from smlt.core.planning import survey_job
    from smlt.core.plugins import load_registry
    from smlt.core.profile import read_profile
    from smlt.report.picture import check_picture
    from smlt.report.time_cost import draw_plans

    if png is not None:
        check_picture(png)
    registry = load_registry()
    flags = {
        "task": task, "backend": backend, "workers": workers, "memory": memory, "deadline": deadline,
        "budget": budget, "epochs": epochs, "steps": steps, "catalog": catalog,
    }  # fmt: skip
    settings = load_settings(registry, config=config, assignments=assignments, flags=flags)
    spec, folder = settings.spec, absolute_runs_dir(runs_dir)
    place = registry.backend(spec.backend.name, spec.backend.options)
    parcel = make_parcel(spec, settings.folder, folder, None)
    found, age_s = sizes_for(spec, place, parcel, registry, read_profile(profile) if profile else None)
    planned = survey_job(spec, place, folder, registry, found)
    if png is not None:
        draw_plans(planned.survey, planned.request, png)
    if output is Output.JSON:
        print_json(document_of(planned, age_s))
    else:
        print_plans(planned, age_s)

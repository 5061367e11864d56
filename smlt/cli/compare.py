"""`smlt compare`: the same job on several providers, on functions and on virtual machines; launches nothing."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smlt.cli.options import (
    Assignments,
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

if TYPE_CHECKING:
    from smlt.planners.yardstick import Basis


class Equal(StrEnum):
    """What is made equal."""

    VCPU = "vcpu"
    MEMORY = "memory"
    USD = "usd"


def compare(
    task: Annotated[str | None, typer.Argument(metavar="TASK", help="file.py:Class or package.module:Class.")] = None,
    backends: Annotated[
        str, typer.Option("--backends", metavar="NAME,NAME", help="Where: see `smlt backends`.")
    ] = "aws,gcp,azure",
    equal: Annotated[
        Equal | None, typer.Option("--equal", help="Give all as many vCPUs, as much memory, or as much money.")
    ] = None,
    config: Config = None,
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
    png: Annotated[Path | None, typer.Option("--png", metavar="FILE", help="Draw times and costs as bars.")] = None,
    runs_dir: RunsDir = None,
    debug: Debug = False,
) -> None:
    """Predict what a job would take and cost on several providers, beside virtual machines. Needs no account."""
    from smlt.cli.comparisons import bars_of, basis_of, document_of, print_comparison
    from smlt.cli.lists import listed
    from smlt.cli.loading import absolute_runs_dir, load_settings
    from smlt.cli.sizes import sizes_for
    from smlt.cli.tables import print_json
    from smlt.core.parcel import make_parcel
    from smlt.core.planning import survey_job
    from smlt.core.plugins import load_registry
    from smlt.core.profile import read_profile
    from smlt.planners.comparison import compare as held_against
    from smlt.report.bars import draw_bars
    from smlt.report.picture import check_picture

    if png is not None:
        check_picture(png)
    names = listed(backends, "--backends")
    registry = load_registry()
    flags = {
        "task": task, "workers": workers, "memory": memory, "deadline": deadline, "budget": budget, "epochs": epochs,
        "steps": steps, "catalog": catalog,
    }  # fmt: skip
    measured = read_profile(profile) if profile else None
    found, age_s = None, None
    folder = absolute_runs_dir(runs_dir)
    planned = []
    for name in names:
        settings = load_settings(registry, config=config, assignments=assignments, flags={**flags, "backend": name})
        place = registry.backend(name, settings.spec.backend.options)
        if found is None:  # the task is the same everywhere: it is built once
            parcel = make_parcel(settings.spec, settings.folder, folder, None)
            found, age_s = sizes_for(settings.spec, place, parcel, registry, measured)
        planned.append(survey_job(settings.spec, place, folder, registry, found))
    basis: Basis | None = equal.value if equal else None
    comparison = held_against(planned, names, basis, settings.spec.limits.budget)
    if png is not None:
        draw_bars(bars_of(comparison), f"basis: {basis_of(comparison)}", png)
    if output is Output.JSON:
        print_json(document_of(comparison, planned, age_s))
    else:
        print_comparison(comparison, planned, age_s)

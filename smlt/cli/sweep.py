"""`smlt sweep`: measure one job on several fleets, again and again; the same command goes on with what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from smlt.cli.options import (
    Assignments,
    CatalogFile,
    Config,
    Debug,
    Epochs,
    Output,
    OutputFormat,
    ProfileFile,
    RunsDir,
    Steps,
    Yes,
)

if TYPE_CHECKING:
    from smlt.core.parcel import TaskParcel
    from smlt.core.plugins import Registry
    from smlt.core.profile import Profile
    from smlt.workflows.sweep import Cell


def sweep(
    task: Annotated[str | None, typer.Argument(metavar="TASK", help="file.py:Class or package.module:Class.")] = None,
    backends: Annotated[
        str, typer.Option("--backends", metavar="NAME,NAME", help="Where: see `smlt backends`.")
    ] = "local",
    workers: Annotated[
        str, typer.Option("-w", "--workers", metavar="N,N", help="How many work at once, each number in its turn.")
    ] = "1,2",
    memory: Annotated[
        str | None, typer.Option("--memory", metavar="SIZE,SIZE", help="Memory of each worker, each size in its turn.")
    ] = None,
    repeat: Annotated[int, typer.Option("--repeat", metavar="N", min=1, help="How often each fleet is measured.")] = 3,
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="The sweep's; the same name goes on with it.")
    ] = "sweep",
    config: Config = None,
    epochs: Epochs = None,
    steps: Steps = None,
    catalog: CatalogFile = None,
    profile: ProfileFile = None,
    assignments: Assignments = None,
    output: OutputFormat = Output.TABLE,
    yes: Yes = False,
    runs_dir: RunsDir = None,
    debug: Debug = False,
) -> None:
    """Train a job on several fleets, each several times, interleaved; write what was measured as CSV."""
    from smlt.api import cancelling
    from smlt.cli.lists import listed
    from smlt.cli.loading import absolute_runs_dir, load_settings
    from smlt.cli.sweeps import Teller, check_name, held, print_medians, remember, write_tables
    from smlt.cli.tables import print_json
    from smlt.core.engine import Interrupts, RunRequest
    from smlt.core.parcel import make_parcel
    from smlt.core.plugins import load_registry
    from smlt.core.profile import read_profile
    from smlt.workflows.sweep import Cell, Sweep

    check_name(name)
    registry = load_registry()
    all_runs = absolute_runs_dir(runs_dir)
    folder = all_runs / "sweeps" / name
    flags = {"task": task, "epochs": epochs, "steps": steps, "catalog": catalog}
    grid = [
        {"backend": backend, "workers": int(count), **({"memory": size} if size else {})}
        for backend in listed(backends, "--backends")
        for count in listed(workers, "--workers", whole_numbers=True)
        for size in (listed(memory, "--memory") if memory else [None])
    ]
    cells = []
    for settings in grid:
        chosen = {name: str(value) for name, value in settings.items()}
        resolved = load_settings(registry, config=config, assignments=assignments, flags={**flags, **chosen})
        cells.append(Cell(RunRequest(resolved.spec, folder / "runs", resolved.folder), settings))
    parcel = make_parcel(cells[0].request.spec, cells[0].request.folder, all_runs, None)
    cells = _planned(cells, parcel, registry, read_profile(profile) if profile else None, yes=yes)
    found = Sweep(tuple(cells), repeat, registry)
    interrupts, tell = Interrupts(), Teller(found, folder)
    with held(folder), cancelling(interrupts, tell.say):
        remember(found, folder)
        found.go_on(tell, interrupts)
        document = write_tables(found, folder)
    if output is Output.JSON:
        print_json(document)
    else:
        print_medians(document)
    raise typer.Exit(tell.code)


def _planned(
    cells: Sequence[Cell], parcel: TaskParcel, registry: Registry, profile: Profile | None, *, yes: bool
) -> list[Cell]:
    """Cells with what is submitted for each; money is confirmed before any is spent."""
    from smlt.cli.spending import confirm_spending
    from smlt.core.engine import planned

    ready = []
    for cell in cells:
        request = planned(replace(cell.request, kept=parcel, profile=profile), registry)
        confirm_spending(request, registry, yes=yes)
        ready.append(replace(cell, request=request))
    return ready

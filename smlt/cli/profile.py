"""`smlt profile`: how quickly this machine computes a task's steps, and how large the task is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smlt.cli.options import Assignments, Config, Debug, Output, OutputFormat, RunsDir

if TYPE_CHECKING:
    from smlt.core.profile import Profile


def profile(
    task: Annotated[str | None, typer.Argument(metavar="TASK", help="file.py:Class or package.module:Class.")] = None,
    config: Config = None,
    file: Annotated[
        Path, typer.Option("-O", "--out", metavar="FILE", help="Where it is kept, for `smlt plan --profile`.")
    ] = Path("profile.json"),
    assignments: Assignments = None,
    output: OutputFormat = Output.TABLE,
    runs_dir: RunsDir = None,
    debug: Debug = False,
) -> None:
    """Take a few real steps on this machine, which nobody keeps: examples a second, parameters, memory."""
    from smlt.cli.loading import absolute_runs_dir, load_settings
    from smlt.cli.prices import today
    from smlt.cli.tables import print_figures
    from smlt.core.errors import StorageError
    from smlt.core.parcel import make_parcel
    from smlt.core.plugins import load_registry
    from smlt.core.profiling import take_profile

    registry = load_registry()
    settings = load_settings(registry, config=config, assignments=assignments, flags={"task": task})
    parcel = make_parcel(settings.spec, settings.folder, absolute_runs_dir(runs_dir), None)
    cores = registry.backend("local", {}).limits.vcpus_at_hand or 1
    found = take_profile(settings.spec, parcel, registry, cores=cores, steps=True, today=today())
    try:
        file.write_text(found.to_json(), encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{file} cannot be written: {error.strerror}", "name another with -O") from error
    if output is Output.JSON:
        print(found.to_json(), end="")
    else:
        print_figures(_figures(found, file))


def _figures(found: Profile, file: Path) -> list[tuple[str, str]]:
    from smlt.core.units import format_bytes

    speed = found.speed
    assert speed is not None  # steps were taken
    shown = [
        ("speed", f"{speed.examples_per_vcpu_s:.4g} examples/s a vCPU, and {1000 * speed.step_base_s:.3g} ms a step"),
        ("parameters", f"{found.parameters}, state {format_bytes(found.state_bytes)}"),
        ("examples", f"{found.examples} an epoch"),
        ("memory", f"{found.stepped_mib:.0f} MiB, and {format_bytes(round(found.example_bytes or 0))} an example"),
        ("built in", f"{found.build_s:.1f} s"),
        ("measured", f"{speed.steps} steps, {found.machine}, {found.taken_on}"),
        ("kept in", str(file)),
    ]
    if speed.vcpu_exponent is not None:
        gain = speed.vcpus**speed.vcpu_exponent
        shown.insert(1, ("vCPUs", f"{speed.vcpus} are {gain:.2f} times as quick as one"))
    return shown

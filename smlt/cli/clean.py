"""`smlt clean`: remove what a run has left beside its result, or all that smlt made at a provider."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from smlt.cli.options import Assignments, BackendName, Config, Debug, Output, OutputFormat, Run, RunsDir

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from smlt.core.plugins import Registry


def clean(
    run: Run = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All that smlt made at the backend, but runs; no run may be under way.")
    ] = False,
    config: Config = None,
    backend: BackendName = None,
    assignments: Assignments = None,
    runs_dir: RunsDir = None,
    output: OutputFormat = Output.TABLE,
    debug: Debug = False,
) -> None:
    """Remove what a run has left beside log, checkpoints and model, or what smlt made at a backend."""
    from smlt.cli.loading import absolute_runs_dir, load_settings
    from smlt.cli.tables import print_json
    from smlt.core.errors import ConfigError
    from smlt.core.plugins import load_registry

    registry = load_registry()
    if everything:
        if run is not None:
            raise ConfigError("--all is about a backend, and a run is named too", "leave one of them out")
        chosen = load_settings(
            registry, config=config, assignments=assignments, flags={"backend": backend}, task_required=False
        ).spec.backend
        removed = registry.backend(chosen.name, chosen.options).clean_all()
    else:
        removed = _clean_run(registry, absolute_runs_dir(runs_dir), run)
    if output is Output.JSON:
        print_json({"removed": list(removed)})
        return
    for name in removed:
        print(f"removed {name}")
    print(f"{len(removed)} things removed" if len(removed) != 1 else "1 thing removed")


def _clean_run(registry: Registry, runs_dir: Path, name: str | None) -> Sequence[str]:
    """Of one run that nobody drives.

    Raises:
        ConfigError: it is under way.
    """
    from smlt.cli.found_runs import find_run
    from smlt.core.backend import RunPlace
    from smlt.core.errors import ConfigError
    from smlt.core.sessions import last_session

    found = find_run(registry, runs_dir, name)
    if not found.over and not found.state.startswith("interrupted"):
        raise ConfigError(
            f"run {found.record.name!r} is under way", f"`smlt cancel {found.record.name}` stops it after a checkpoint"
        )
    chosen = last_session(found.store, found.record).job.backend
    return registry.backend(chosen.name, chosen.options).clean(RunPlace(found.record.name, runs_dir))

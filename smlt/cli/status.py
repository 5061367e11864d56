"""`smlt status`: how a run is doing."""

from __future__ import annotations

from smlt.cli.options import Debug, Output, OutputFormat, Run, RunsDir


def status(
    run: Run = None, runs_dir: RunsDir = None, output: OutputFormat = Output.TABLE, debug: Debug = False
) -> None:
    """Show how a run is doing, or what came of it."""
    import time
    from dataclasses import asdict

    from smlt.cli.figures import status_rows
    from smlt.cli.found_runs import find_run
    from smlt.cli.loading import absolute_runs_dir
    from smlt.cli.tables import print_figures, print_json
    from smlt.core.plugins import load_registry

    found = find_run(load_registry(), absolute_runs_dir(runs_dir), run)
    if output is Output.JSON:
        summary = asdict(found.summary) if found.summary else None
        print_json({**asdict(found.view), "state": found.state, "last_event": found.last_event, "summary": summary})
        return
    print_figures(status_rows(found.view, found.state, time.time()))

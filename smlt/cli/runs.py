"""`smlt runs`: the runs of a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from smlt.cli.options import Debug, Output, OutputFormat, RunsDir

if TYPE_CHECKING:
    from smlt.cli.found_runs import FoundRun


def runs(runs_dir: RunsDir = None, output: OutputFormat = Output.TABLE, debug: Debug = False) -> None:
    """List the runs in the runs folder, the latest first."""
    import time

    from smlt.cli.found_runs import all_runs
    from smlt.cli.loading import absolute_runs_dir
    from smlt.cli.tables import print_json, print_rows
    from smlt.core.plugins import load_registry

    folder = absolute_runs_dir(runs_dir)
    found = all_runs(load_registry(), folder)
    if output is Output.JSON:
        print_json({"runs_dir": str(folder), "runs": [_document(run) for run in found]})
        return
    if not found:
        print(f"no runs in {folder}")
        return
    head = ["run", "state", "backend", "steps", "loss", "metrics", "started", "time", "cost"]
    print_rows([_row(run, time.localtime) for run in found], head=head, right=(3, 4, 7, 8))


def _document(run: FoundRun) -> dict[str, Any]:
    view = run.view
    return {
        "run": run.record.name,
        "state": run.state,
        "backend": run.record.backend,
        "task": run.record.task,
        "started": view.started,
        "seconds": (view.ended or run.last_event) - view.started,
        "steps": view.step,
        "loss": view.loss,
        "metrics": view.metrics,
        "cost_usd": view.spent_usd,
        "model_path": view.model_path,
    }


def _row(run: FoundRun, local_time: Any) -> list[str]:
    import time

    from smlt.cli.figures import metric_text
    from smlt.core.units import format_duration, format_usd

    view = run.view
    return [
        run.record.name,
        run.state,
        run.record.backend,
        str(view.step),
        "" if view.loss is None else f"{view.loss:.4g}",
        metric_text(view.metrics),
        time.strftime("%Y-%m-%d %H:%M", local_time(view.started or run.record.created)),
        format_duration((view.ended or run.last_event) - view.started) if view.started else "",
        format_usd(view.spent_usd),
    ]

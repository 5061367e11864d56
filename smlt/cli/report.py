"""`smlt report`: what a run came to, beside what was predicted; or all of it as one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smlt.cli.options import Debug, Output, OutputFormat, Run, RunsDir

if TYPE_CHECKING:
    from smlt.cli.found_runs import FoundRun
    from smlt.core.runlog import RunEvent


def report(
    run: Run = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle", metavar="FILE", help="Pack configuration, code, log, prices, versions and seed as a zip."
        ),
    ] = None,
    runs_dir: RunsDir = None,
    output: OutputFormat = Output.TABLE,
    debug: Debug = False,
) -> None:
    """Report what a run came to: figures, cost by item, digests; with --bundle, pack it for others."""
    from smlt.cli.found_runs import find_run
    from smlt.cli.loading import absolute_runs_dir
    from smlt.cli.tables import print_figures, print_json
    from smlt.core.errors import ConfigError, StorageError
    from smlt.core.plugins import load_registry
    from smlt.core.runlog import read_events
    from smlt.report.bundle import bundle as packed

    found = find_run(load_registry(), absolute_runs_dir(runs_dir), run)
    events = [event for _, event in read_events(found.store)]
    if not events:
        raise ConfigError(f"run {found.record.name!r} has not begun", "try again in a second")
    if bundle is not None:
        try:
            bundle.write_bytes(packed(found.store, events))
        except OSError as error:
            raise StorageError(f"{bundle} cannot be written: {error.strerror}", "name another file") from error
    document = _document(found, events, bundle)
    if output is Output.JSON:
        print_json(document)
    else:
        print_figures(_rows(document))


def _document(found: FoundRun, events: Sequence[RunEvent], bundle: Path | None) -> dict[str, Any]:
    """Figures of a run: seconds, US dollars."""
    import statistics
    from dataclasses import asdict

    steps = [item for event in events if event.kind == "steps" for item in event.data["items"]]
    created = [event.data for event in events if event.kind == "created"][-1]
    planned = [event.data for event in events if event.kind == "planned"][-1:]
    parts = ("seconds", "compute_s", "sync_s", "commit_s")
    return {
        "run": found.record.name,
        "state": found.state,
        "task": found.record.task,
        "backend": found.record.backend,
        "seed": created["job"]["job"]["seed"],
        "code_sha256": created["code"]["sha256"],
        "versions": created.get("versions", {}),
        "plan": planned[0] if planned else None,
        "sessions": sum(event.kind == "created" for event in events),
        "steps_p50": {part: statistics.median(step[part] for step in steps) for part in parts} if steps else None,
        "summary": asdict(found.summary) if found.summary else None,
        "bundle": str(bundle) if bundle else None,
    }


def _rows(document: dict[str, Any]) -> list[list[str]]:
    from smlt.core.units import format_duration, format_usd

    summary, plan, steps = document["summary"], document["plan"], document["steps_p50"]
    forecast = plan["forecast"] if plan else None
    rows = [
        ["run", f"{document['run']}: {document['task']} on {document['backend']}, seed {document['seed']}"],
        ["state", document["state"]],
    ]
    if plan:
        allocation = plan["allocation"]
        sync = allocation["sync"]
        fleet = f"{allocation['workers']} workers of {allocation['memory_mib']} MiB, {sync['mode']}, {sync['codec']}"
        rows.append(["fleet", f"{fleet}, {sync['channel']} ({plan['reason']})"])
    if steps:
        told = ", ".join(
            f"{1000 * steps[part]:.4g} ms {word}"
            for part, word in (("compute_s", "computing"), ("sync_s", "synchronising"), ("commit_s", "the optimizer"))
        )
        rows.append(["a step", f"{1000 * steps['seconds']:.4g} ms at the median: {told}"])
    if summary:
        lost = f"{summary['handovers']} hand-overs, {summary['replacements']} replacements"
        rows += [
            ["steps", f"{summary['steps']} in {document['sessions']} sessions, {lost}"],
            *([name, f"{value:.4g}"] for name, value in summary["metrics"].items()),
            ["time", format_duration(summary["wall_seconds"])],
            *([f"cost {item}", format_usd(usd)] for item, usd in summary["cost_usd"].items()),
        ]
    if forecast:
        time, cost = forecast["finish_s"], forecast["cost_usd"]
        rows.append(["predicted", f"{format_duration(time['likely'])}, {format_usd(cost['likely'])}"])
    rows += [["versions", ", ".join(f"{name} {version}" for name, version in document["versions"].items())]]
    rows += [["code", document["code_sha256"][:12]]]
    if summary:
        rows += [["weights", summary["weights_sha256"][:12]], ["prices", summary["catalog_sha256"][:12]]]
    return [*rows, *([["bundle", document["bundle"]]] if document["bundle"] else [])]

"""`smlt check`: whether a job could run on a backend now; launches nothing."""

from __future__ import annotations

import typer

from smlt.cli.options import Assignments, BackendName, Config, Debug, Output, OutputFormat


def check(
    config: Config = None,
    backend: BackendName = None,
    assignments: Assignments = None,
    output: OutputFormat = Output.TABLE,
    debug: Debug = False,
) -> None:
    """Try what a backend needs, and say how to mend what is missing."""
    from dataclasses import asdict

    from smlt.cli.loading import load_settings
    from smlt.cli.tables import print_json, print_rows
    from smlt.core.plugins import load_registry

    registry = load_registry()
    chosen = load_settings(
        registry, config=config, assignments=assignments, flags={"backend": backend}, task_required=False
    ).spec.backend
    place = registry.backend(chosen.name, chosen.options)
    results = place.check()
    if output is Output.JSON:
        print_json({"backend": chosen.name, "checks": [asdict(result) for result in results]})
    else:
        rows = [[item.status, item.name, item.detail, f"mend: {item.mend}" if item.mend else ""] for item in results]
        print_rows(rows or [["", f"the backend {chosen.name!r} checks nothing"]])
    if any(result.status == "fail" for result in results):
        here = place.limits.vcpus_at_hand is not None
        raise typer.Exit(1 if here else 4)

"""What a sweep measured, as tidy tables: a row a run, a row a step, and medians with bootstrap intervals over runs."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from smlt.report.intervals import median_interval
from smlt.workflows.sweep import Measured

Row = dict[str, Any]

QUANTITIES: Mapping[str, str] = {
    "wall_seconds": "s",
    "start_seconds": "s",
    "step_seconds_p50": "s",
    "compute_seconds_p50": "s",
    "sync_seconds_p50": "s",
    "examples_per_s": "1/s",
    "cost_usd": "USD",
    "loss": "",
}
"""Columns of runs that medians are taken of, and their units."""

OF_STEPS = (
    "step", "epoch", "loss", "examples", "seconds", "compute_s", "sync_s", "commit_s", "sent_bytes", "received_bytes",
    "requests",
)  # fmt: skip
"""Columns of steps: see `smlt.core.messages.StepRecord`."""


def run_rows(measured: Iterable[Measured]) -> list[Row]:
    """A row a run: its fleet, what it came to, and what that is by."""
    return [_run_row(each) for each in measured]


def step_rows(measured: Iterable[Measured]) -> list[Row]:
    """A row a step; one that was taken again after a loss has a row each time."""
    return [
        {**_key(each), "run": each.name, **{column: step.get(column) for column in OF_STEPS}}
        for each in measured
        for step in _steps(each)
    ]


def median_rows(runs: Sequence[Row], settings: Sequence[str]) -> list[Row]:
    """A row a fleet and quantity: the median over its runs, and the 95 % bootstrap interval.

    Args:
        runs: rows of `run_rows`.
        settings: columns that tell fleets apart.
    """
    fleets: dict[tuple[Any, ...], list[Row]] = {}
    for row in runs:
        if row["status"] == "succeeded":
            fleets.setdefault(tuple(row[name] for name in settings), []).append(row)
    rows: list[Row] = []
    for fleet, some in fleets.items():
        for quantity, unit in QUANTITIES.items():
            values = [row[quantity] for row in some if row[quantity] is not None and math.isfinite(row[quantity])]
            if values:
                found = median_interval(values)
                told = {"median": found.likely, "low": found.low, "high": found.high}
                rows.append(
                    {**dict(zip(settings, fleet, strict=True)), "quantity": quantity, "unit": unit}
                    | {"runs": len(values), **told}
                )
    return rows


def csv_of(rows: Sequence[Row]) -> str:
    """Rows as CSV; a column that a row lacks is empty there."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _key(each: Measured) -> Row:
    return {**each.cell.settings, "repeat": each.repeat}


def _steps(each: Measured) -> list[Mapping[str, Any]]:
    return [item for event in each.events if event.kind == "steps" for item in event.data["items"]]


def _run_row(each: Measured) -> Row:
    summary, steps = each.summary, _steps(each)
    begun = next(event for event in each.events if event.kind == "created")
    seconds = sum(step["seconds"] for step in steps)
    return {
        **_key(each),
        "run": each.name,
        "status": summary.status,
        "stop_reason": summary.stop_reason,
        "started": datetime.fromtimestamp(begun.time, UTC).isoformat(timespec="seconds"),
        "memory_mib": summary.allocation["memory_mib"],
        **{name: summary.allocation["sync"][name] for name in ("mode", "codec", "channel")},
        "steps": summary.steps,
        "wall_seconds": summary.wall_seconds,
        "start_seconds": steps[0]["ended"] - steps[0]["seconds"] - begun.time if steps else None,
        "step_seconds_p50": summary.step_seconds_p50 if steps else None,
        "compute_seconds_p50": statistics.median(step["compute_s"] for step in steps) if steps else None,
        "sync_seconds_p50": statistics.median(step["sync_s"] for step in steps) if steps else None,
        "examples_per_s": sum(step["examples"] for step in steps) / seconds if seconds else None,
        "cost_usd": summary.cost_usd["total"],
        "loss": summary.metrics.get("loss"),
        **{f"metric_{name}": value for name, value in summary.metrics.items() if name != "loss"},
        "generations": summary.generations,
        "handovers": summary.handovers,
        "replacements": summary.replacements,
        "seed": begun.data["job"]["job"]["seed"],
        "smlt": begun.data["smlt"],
        "weights_sha256": summary.weights_sha256,
        "catalog_sha256": summary.catalog_sha256,
    }

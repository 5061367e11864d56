"""Plans as a table and as a document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from smlt.core.forecast import Range

if TYPE_CHECKING:
    from smlt.core.catalog import Catalog
    from smlt.core.planner import Plan
    from smlt.core.planning import Planned

LEFT_OUT = "evaluations, checkpoints, reading data that do not lie in memory, taxes, discounts, free tiers"
"""Of times and costs."""

SHOWN = 8
"""Candidates in the table; the document has all."""


def document_of(planned: Planned) -> dict[str, Any]:
    """What `smlt plan -o json` prints: money in US dollars, times in seconds, memory in MiB."""
    survey = planned.survey
    return {
        "candidates": [plan_document(plan) for plan in survey.plans],
        "chosen": plan_document(survey.chosen) if survey.chosen else None,
        "feasible": survey.chosen is not None,
        "binding_limit": survey.binding_limit,
        "nearest_feasible": asdict(survey.nearest) if survey.nearest else None,
        "assumptions": _assumptions(planned),
    }


def plan_document(plan: Plan) -> dict[str, Any]:
    """A plan: its allocation, why, and its forecast."""
    return {
        "allocation": asdict(plan.allocation),
        "reason": plan.reason,
        "forecast": asdict(plan.forecast) if plan.forecast else None,
    }


def _assumptions(planned: Planned) -> dict[str, Any]:
    request, survey = planned.request, planned.survey
    forecast = survey.plans[0].forecast
    catalog = request.scene.catalog if request.scene else None
    return {
        "planner": planned.planner,
        "objective": request.objective,
        "deadline_s": request.deadline_s,
        "budget_usd": request.budget_usd,
        "speed": forecast.speed if forecast else None,
        "prices": {"provider": catalog.provider, "as_of": catalog.as_of, "sha256": catalog.sha256} if catalog else None,
        "left_out": LEFT_OUT,
        "constants": [asdict(each) for each in survey.assumptions],
    }


def print_plans(planned: Planned) -> None:
    """Candidates, best first, and what is to be known of them."""
    from smlt.cli.tables import print_rows

    survey, request = planned.survey, planned.request
    head = ["workers", "memory", "channel", "step", "compute+sync+load", "finish", "cost", "needs", ""]
    print_rows([_row(plan) for plan in survey.plans[:SHOWN]], head=head, right=[0, 1, 3, 4, 5, 6, 7])
    if len(survey.plans) > SHOWN:
        print(f"and {len(survey.plans) - SHOWN} more: -o json")
    print()
    for line in _notes(planned):
        print(line)
    if request.scene:
        print(f"prices: {_prices(request.scene.catalog)}; without {LEFT_OUT}")


def _row(plan: Plan) -> list[str]:
    from smlt.core.units import format_duration

    found, forecast = plan.allocation, plan.forecast
    start = [str(found.workers), f"{found.memory_mib} MiB", found.sync.channel]
    if forecast is None:
        return [*start, "", "", "", "", "", plan.reason]
    step = forecast.step
    parts = "+".join(f"{seconds * 1000:.3g}" for seconds in (step.compute_s, step.sync_s, step.load_s))
    return [
        *start,
        f"{step.total_s * 1000:.4g} ms",
        parts,
        shown_range(forecast.finish_s, format_duration),
        shown_range(forecast.cost_usd, usd_of),
        f"{forecast.memory_mib.likely:.0f} MiB",
        plan.reason,
    ]


def shown_range(found: Range, shown: Any) -> str:
    """Its likely case, and between which two cases of three lie."""
    if found.low == found.high:
        return str(shown(found.likely))
    return f"{shown(found.likely)} ({shown(found.low)} to {shown(found.high)})"


def usd_of(usd: float) -> str:
    """US dollars to two digits, as sure as predictions are."""
    return f"${usd:.2g}" if usd else "$0"


def _notes(planned: Planned) -> list[str]:
    survey, request = planned.survey, planned.request
    notes = []
    best = survey.plans[0].forecast
    if survey.chosen is None and survey.nearest is not None:
        near = survey.nearest
        notes.append(
            f"infeasible: {_words(survey.binding_limit)} cannot be kept. The nearest limits that can: {near.flags} "
            f"({near.workers} workers, {near.memory_mib} MiB)"
        )
    elif survey.chosen is None:
        notes.append(f"infeasible: {_words(survey.binding_limit)} cannot be kept by any fleet")
    elif survey.binding_limit:
        notes.append(f"binding limit: {_words(survey.binding_limit)}")
    notes.append(f"planner: {planned.planner}, objective: {request.objective}")
    if best is not None:
        notes.append(f"compute speed: {SPEEDS[best.speed]}")
    return notes


SPEEDS: Mapping[str, str] = {
    "guessed": "guessed, within 5 times up or down; `smlt profile` measures it",
    "profiled": "profiled on this machine",
    "observed": "observed in this run",
}


def _words(limit: str | None) -> str:
    return (limit or "the limits").replace("_", " ")


def _prices(catalog: Catalog) -> str:
    return f"{catalog.provider}, {catalog.as_of}, catalog {catalog.sha256[:12]}"

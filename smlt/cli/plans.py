"""Plans as a table and as a document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from smlt.core.figures import OLD_DAYS
from smlt.core.forecast import Range

if TYPE_CHECKING:
    from smlt.core.planner import Plan
    from smlt.core.planning import Planned
    from smlt.core.scene import Scene

COUNTED = "functions from launch to end, a channel's server, requests and bytes of exchanges; finish from the launch on"
"""In times and costs."""

LEFT_OUT = "evaluations, checkpoints, reading data that do not lie in memory, taxes, discounts, free tiers"
"""Of times and costs."""

SHOWN = 8
"""Candidates in the table; the document has all."""


def document_of(planned: Planned, age_s: float | None = None) -> dict[str, Any]:
    """What `smlt plan -o json` prints: money in US dollars, times in seconds, memory in MiB.

    Args:
        planned: the survey.
        age_s: how long ago the task was built; None for now, or from a profile.
    """
    survey = planned.survey
    return {
        "candidates": [plan_document(plan) for plan in survey.plans],
        "chosen": plan_document(survey.chosen) if survey.chosen else None,
        "feasible": survey.chosen is not None,
        "binding_limit": survey.binding_limit,
        "nearest_feasible": asdict(survey.nearest) if survey.nearest else None,
        "assumptions": {**_assumptions(planned), "task_built_s_ago": age_s},
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
    return {
        "planner": planned.planner,
        "objective": request.objective,
        "deadline_s": request.deadline_s,
        "budget_usd": request.budget_usd,
        "speed": forecast.speed if forecast else None,
        "prices": price_document(request.scene) if request.scene else None,
        "counted": COUNTED,
        "left_out": LEFT_OUT,
        "constants": [asdict(each) for each in survey.assumptions],
    }


def price_document(scene: Scene) -> dict[str, Any]:
    """Whose prices, as of when the functions' is and the whole list, how sure that is, and the list's digest."""
    catalog = scene.catalog
    said = catalog.provenance(("functions", scene.functions, "usd_per_gib_s") if scene.functions else ("function",))
    return {
        "provider": catalog.provider,
        "as_of": catalog.as_of,
        "functions_as_of": said.as_of,
        "confidence": said.confidence,
        "sha256": catalog.sha256,
    }


def price_words(scene: Scene) -> str:
    """The same for people; a price that was read long ago says so."""
    told = price_document(scene)
    functions = f"{scene.functions} of {told['functions_as_of'] or 'the user'}{age_mark(told['functions_as_of'])}, "
    functions = functions if scene.functions else ""
    return f"{told['provider']}, {functions}list of {told['as_of']}, catalog {told['sha256'][:12]}"


def age_mark(as_of: str | None) -> str:
    """What is to be said of a price's day if it is long ago; None is the user's own word, which does not age."""
    from datetime import date

    from smlt.cli.prices import today

    age_days = (today() - date.fromisoformat(as_of)).days if as_of else 0
    return f" ({age_days} days ago: `smlt prices refresh`)" if age_days > OLD_DAYS else ""


def print_plans(planned: Planned, age_s: float | None = None) -> None:
    """Candidates, best first, and what is to be known of them; `age_s` as of `document_of`."""
    from smlt.cli.sizes import age_words
    from smlt.cli.tables import print_rows

    survey, request = planned.survey, planned.request
    head = ["workers", "memory", "channel", "step", "compute+sync+load, ms", "finish", "cost, USD", "needs", ""]
    print_rows([_row(plan) for plan in survey.plans[:SHOWN]], head=head, right=[0, 1, 3, 4, 5, 6, 7])
    if len(survey.plans) > SHOWN:
        print(f"and {len(survey.plans) - SHOWN} more: -o json")
    print()
    for line in _notes(planned):
        print(line)
    if age_s is not None:
        print(age_words(age_s))
    if request.scene:
        print(f"prices: {price_words(request.scene)}")
        print(f"counted: {COUNTED}; without {LEFT_OUT}")


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

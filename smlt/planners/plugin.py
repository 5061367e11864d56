"""Registers our planners."""

from __future__ import annotations

from collections.abc import Mapping

from smlt.core.plugins import Entry, hookimpl

api_version = (1, 0)


@hookimpl
def smlt_planners() -> Mapping[str, Entry]:
    """Our planners by name."""
    return {
        "fixed": Entry(
            "smlt.planners.fixed:FixedPlanner", summary="what you ask for; one worker a core where you do not"
        ),
        "analytic": Entry("smlt.planners.modelled:AnalyticPlanner", summary="the best of the model's grid"),
        "exhaustive": Entry(
            "smlt.planners.modelled:ExhaustivePlanner", summary="every number of workers, by the model"
        ),
        "optuna": Entry(
            "smlt.planners.optuna:OptunaPlanner", summary="Optuna's search from the model's best on, under constraints"
        ),
        "bo": Entry("smlt.planners.bo:BoPlanner", summary="the paper's: Bayesian optimization that knows no model"),
    }

"""A picture of plans: time against money, the front of those that none beats in both, and the limits drawn in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from smlt.core.forecast import Forecast, pareto
from smlt.core.planner import PlanRequest, Survey
from smlt.report.picture import new_figure, save_figure

COLOURS = {"met": "#009e73", "uncertain": "#e69f00", "missed": "#b5b5b5"}
"""Of plans by how they stand to the limits; told apart by all eyes (Okabe and Ito, "Color universal design", 2008)."""

LABELS = {"met": "keeps the limits", "uncertain": "may keep them", "missed": "does not"}


def draw_plans(survey: Survey, request: PlanRequest, path: Path) -> None:
    """Write the picture.

    Raises:
        StorageError: the file cannot be written.
    """
    figure = new_figure(7.0, 4.6)
    panel = figure.subplots()
    shown = [plan.forecast for plan in survey.plans if plan.forecast is not None]
    _draw_points(panel, shown)
    if survey.chosen is not None and survey.chosen.forecast is not None:
        _draw_chosen(panel, survey.chosen.forecast, f"{survey.chosen.allocation.workers} workers")
    if request.deadline_s is not None:
        panel.axvline(request.deadline_s, color="#d55e00", linestyle="--", label="deadline")
    if request.budget_usd is not None:
        panel.axhline(request.budget_usd, color="#0072b2", linestyle="--", label="budget")
    panel.set_xscale("log")
    if any(each.cost_usd.likely > 0 for each in shown):
        panel.set_yscale("log")
    panel.set_xlabel("predicted time to the end, s")
    panel.set_ylabel("predicted cost, USD")
    panel.legend(fontsize="small", frameon=False)
    panel.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def _draw_points(panel: Any, shown: list[Forecast]) -> None:
    for standing, colour in COLOURS.items():
        some = [each for each in shown if each.standing == standing]
        if some:
            times, money = [each.finish_s.likely for each in some], [each.cost_usd.likely for each in some]
            panel.scatter(times, money, s=16, color=colour, label=LABELS[standing])
    front = pareto(shown)
    panel.plot(
        [each.finish_s.likely for each in front], [each.cost_usd.likely for each in front],
        color="black", linewidth=0.8, label="none is both quicker and cheaper",
    )  # fmt: skip


def _draw_chosen(panel: Any, chosen: Forecast, label: str) -> None:
    time, cost = chosen.finish_s, chosen.cost_usd
    panel.errorbar(
        [time.likely], [cost.likely],
        xerr=[[time.likely - time.low], [time.high - time.likely]],
        yerr=[[cost.likely - cost.low], [cost.high - cost.likely]],
        color="black", marker="o", capsize=3, linewidth=1, label=f"chosen: {label}; two cases of three",
    )  # fmt: skip

"""Figures of a run for people: the same words in the progress display, `smlt status` and the end of `smlt train`."""

from __future__ import annotations

from collections.abc import Mapping

from smlt.core.runlog import RunView
from smlt.core.summary import Summary
from smlt.core.units import format_duration, format_usd


def metric_text(metrics: Mapping[str, float]) -> str:
    """Metrics in one line, the training loss aside."""
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items() if name != "loss")


def progress_text(view: RunView) -> str:
    """How far a run is: its step and epoch."""
    parts = [f"step {view.step} of {view.total_steps}" if view.total_steps else f"step {view.step}"]
    if view.epochs is not None and view.step:
        parts.append(f"epoch {min(view.epoch + 1, view.epochs)} of {view.epochs}")
    return ", ".join(parts)


def time_text(seconds: float, deadline_s: float | None) -> str:
    """Time taken, against the deadline if there is one."""
    return format_duration(seconds) + (f" of {format_duration(deadline_s)}" if deadline_s else "")


def cost_text(usd: float, budget_usd: float | None) -> str:
    """Money spent, against the budget if there is one."""
    return format_usd(usd) + (f" of {format_usd(budget_usd)}" if budget_usd else "")


def cost_explained(view: RunView, usd: float) -> str:
    """Money spent; where it is none, what was used instead."""
    text = cost_text(usd, view.budget_usd)
    if usd == 0 and view.function_s:
        text += f" ({view.backend}: {format_duration(view.function_s)} of workers' time, price 0)"
    return text


def status_rows(view: RunView, state: str, now: float) -> list[list[str]]:
    """A run as it is now: name and value of each figure that is known."""
    seconds = (view.ended or now) - view.started if view.started else 0.0
    rows = [
        ["run", view.run],
        ["state", state],
        ["why", view.stop_reason if view.stop_reason not in (view.state, "goal") else ""],
        ["task", f"{view.task} on {view.backend}"],
        ["workers", "" if view.ended else f"{view.workers_up} of {view.workers_wanted} up"],
        ["progress", progress_text(view)],
        ["loss", "" if view.loss is None else f"{view.loss:.4g}"],
        *([name, f"{value:.4g}"] for name, value in view.metrics.items()),
        ["speed", "" if view.ended or not view.examples_per_s else f"{view.examples_per_s:.0f} examples/s"],
        ["checkpoint", "" if view.checkpoint_step is None else f"at step {view.checkpoint_step}"],
        ["time", time_text(seconds, view.deadline_s)],
        ["cost", cost_explained(view, view.spent_usd)],
        ["model", view.model_path],
        ["error", view.error],
    ]
    return [row for row in rows if row[1]]


def closing_rows(summary: Summary, view: RunView) -> list[list[str]]:
    """What a run came to: name and value of each figure."""
    reason = summary.stop_reason
    rows = [
        ["run", summary.run],
        ["status", summary.status + (f" ({reason})" if reason not in ("", summary.status) else "")],
        ["steps", f"{summary.steps} in {summary.epochs} epoch{'s' if summary.epochs != 1 else ''}"],
        *([name, f"{value:.4g}"] for name, value in summary.metrics.items()),
        ["time", time_text(summary.wall_seconds, view.deadline_s)],
        ["cost", cost_explained(view, summary.cost_usd.get("total", 0.0))],
        ["model", summary.model_path],
        ["best model", _best_model(summary)],
    ]
    return [row for row in rows if row[1]]


def _best_model(summary: Summary) -> str:
    """Where it is, and what made it the best one."""
    best = summary.best
    return f"{best['model_path']} ({best['value']:.4g} after step {best['step']})" if best else ""

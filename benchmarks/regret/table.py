"""What came of the runs: regret by planner, and limits met, with its interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]


def value(row: Row) -> float:
    """What a run is worth by what was wanted: its cost by a deadline, its time on a budget; less is better."""
    return float(row["usd"] if row["wanted"] == "cheapest" else row["seconds"])


def is_met(row: Row) -> bool:
    """Whether the run came to its goal; a run that has limits stops at them."""
    return bool(row["status"] == "succeeded")


def regrets(rows: Sequence[Row], planner: str) -> list[float]:
    """Of each workload on which the planner came to the goal: how much worse than the best fleet, as a part of it."""
    best = {row["number"]: value(row) for row in rows if row["planner"] == "oracle" and is_met(row)}
    own = [row for row in rows if row["planner"] == planner and is_met(row) and row["number"] in best]
    return sorted(value(row) / best[row["number"]] - 1 for row in own)


def wilson(successes: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a rate (E. B. Wilson, JASA 22, 1927)."""
    if not count:
        return 0.0, 1.0
    rate = successes / count
    middle = (rate + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(rate * (1 - rate) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return middle - half, middle + half


def quantile(values: Sequence[float], part: float) -> float:
    """A quantile of ascending values."""
    return values[min(len(values) - 1, math.ceil(part * len(values)) - 1)] if values else math.nan


def print_table(rows: Sequence[Row], png: Path | None) -> None:
    """Both studies as Markdown; the regrets as a picture."""
    regret = [row for row in rows if row["study"] == "regret"]
    print("| planner | workloads | at the goal | median regret | 95th percentile | most probes |")
    print("|---|---|---|---|---|---|")
    for planner in ("optuna", "analytic", "bo"):
        own = [row for row in regret if row["planner"] == planner]
        if not own:
            continue
        found = regrets(regret, planner)
        met = sum(is_met(row) for row in own)
        probes = max((row.get("probes", 0) for row in own), default=0)
        told = f"{100 * quantile(found, 0.5):.1f} % | {100 * quantile(found, 0.95):.1f} %"
        print(f"| {planner} | {len(own)} | {met} | {told} | {probes} |")
    limits = [row for row in rows if row["study"] == "limits"]
    for kind in ("deadline", "budget", "both"):
        own = [row for row in limits if kind in (row["kind"], "both")]
        met = sum(is_met(row) for row in own)
        low, high = wilson(met, len(own))
        if own:
            print(
                f"{kind}: {met} of {len(own)} met, {100 * met / len(own):.1f} % ({100 * low:.1f} to {100 * high:.1f} %)"
            )
    if png is not None:
        _draw(regret, png)


def _draw(rows: Sequence[Row], png: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for planner, colour in (("optuna", "C0"), ("analytic", "C2"), ("bo", "C3")):
        found = regrets(rows, planner)
        if not found:
            continue
        share = [(number + 1) / len(found) for number in range(len(found))]
        label = f"{planner}: median {100 * quantile(found, 0.5):.1f} %"
        axes.step([100 * each for each in found], share, where="post", color=colour, label=label)
    axes.axvline(7, color="grey", linewidth=0.8, linestyle="--")
    axes.axvline(20, color="grey", linewidth=0.8, linestyle=":")
    axes.set(xlabel="regret of a whole run, probes included, %", ylabel="share of workloads", xlim=(-10, 150))
    axes.legend()
    figure.savefig(png, dpi=120)

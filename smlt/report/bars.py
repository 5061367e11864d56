"""A picture of contenders: their times and costs as points with bars, which overlap where it is a tie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smlt.core.forecast import Range
from smlt.report.picture import new_figure, save_figure

COLOURS: Mapping[str, str] = {"functions": "#0072b2", "vm": "#e69f00", "gpu": "#009e73"}
"""By kind; told apart by all eyes (Okabe and Ito, "Color universal design", 2008)."""


@dataclass(frozen=True)
class Bar:
    """One contender: what it is called, its kind, seconds and US dollars."""

    label: str
    kind: str
    finish_s: Range
    cost_usd: Range


def draw_bars(bars: Sequence[Bar], title: str, path: Path) -> None:
    """Write the picture.

    Raises:
        StorageError: the file cannot be written.
    """
    figure = new_figure(10.0, 1.4 + 0.32 * len(bars))
    times, money = figure.subplots(1, 2, sharey=True)
    _draw(times, [(bar.kind, bar.finish_s) for bar in bars], "predicted time to the end, s")
    _draw(money, [(bar.kind, bar.cost_usd) for bar in bars], "predicted cost, USD")
    times.set_yticks(range(len(bars)), [bar.label for bar in bars], fontsize="small")
    times.invert_yaxis()
    figure.suptitle(f"{title}; bars: two cases of three", fontsize="small")
    save_figure(figure, path)


def _draw(panel: Any, found: Sequence[tuple[str, Range]], label: str) -> None:
    for number, (kind, each) in enumerate(found):
        panel.errorbar(
            [each.likely], [number],
            xerr=[[each.likely - each.low], [each.high - each.likely]],
            color=COLOURS[kind], marker="o", capsize=3, linewidth=1.5,
        )  # fmt: skip
    if any(each.likely > 0 for _, each in found):
        panel.set_xscale("symlog", linthresh=min(each.low for _, each in found if each.low > 0))
    panel.set_xlabel(label)
    panel.grid(axis="x", linewidth=0.3)
    panel.spines[["top", "right"]].set_visible(False)

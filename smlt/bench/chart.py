"""A picture of a report: how each variant compares with gloo, in every setting."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from smlt.bench.report import REFERENCE, Report, Row
from smlt.core.errors import ConfigError
from smlt.report.picture import check_picture, new_figure, save_figure

COLOURS = ("#0072b2", "#009e73", "#e69f00", "#cc79a7", "#56b4e9", "#d55e00")
"""Of channels; told apart by all eyes (Okabe and Ito, "Color universal design", 2008)."""

PEER_COLOURS = ("#7f7f7f", "#b5b5b5", "#4d4d4d")


def check_chart(path: Path, peers: Sequence[str]) -> None:
    """See that a picture can be drawn and written; raises `ConfigError`. To be asked before anything is measured."""
    if REFERENCE not in peers:
        raise ConfigError("--png shows ratios to gloo, which is not measured", "add gloo to --peers")
    check_picture(path)


def draw_chart(report: Report, path: Path) -> None:
    """Write bars from 1, which is gloo, down to what is faster and up to what is slower; a panel a size of vector."""
    rows = [row for row in report.rows if row.variant != REFERENCE]
    sizes = sorted({row.megabytes for row in rows})
    figure = new_figure(2.0 + 4.5 * len(sizes), 4.2)
    panels = figure.subplots(1, len(sizes), squeeze=False, sharey=True)[0]
    for panel, megabytes in zip(panels, sizes, strict=True):
        _draw_panel(panel, [row for row in rows if row.megabytes == megabytes])
        panel.set_title(f"{megabytes:g} MB of float32")
    panels[0].set_ylabel("time / gloo all_reduce, log scale")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4 * len(sizes)), frameon=False)
    rounds = report.rows[0].rounds
    figure.suptitle(f"gradient synchronisation, median of {rounds} rounds, {report.date[:10]}", fontsize="medium")
    save_figure(figure, path)


def _draw_panel(panel: Any, rows: Sequence[Row]) -> None:
    from matplotlib.ticker import LogLocator

    workers = sorted({row.workers for row in rows})
    variants = list(dict.fromkeys(row.variant for row in rows))
    channels = [row.variant for row in rows if row.kind == "channel"]
    shades = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(dict.fromkeys(channels))}
    grey = iter(PEER_COLOURS)
    width = 0.8 / len(variants)
    for number, variant in enumerate(variants):
        ratios = {row.workers: row.ratio_to_gloo or 0.0 for row in rows if row.variant == variant}
        places = [workers.index(count) + (number - (len(variants) - 1) / 2) * width for count in ratios]
        heights = [ratio - 1 for ratio in ratios.values()]
        bars = panel.bar(
            places, heights, width * 0.92, bottom=1, label=variant, color=shades.get(variant) or next(grey)
        )  # fmt: skip
        for bar, ratio in zip(bars, ratios.values(), strict=True):
            above = ratio >= 1
            panel.annotate(
                f"{ratio:.2g}", (bar.get_x() + bar.get_width() / 2, ratio), xytext=(0, 2 if above else -2),
                textcoords="offset points", ha="center", va="bottom" if above else "top", fontsize="x-small",
            )  # fmt: skip
    panel.set_yscale("log")
    panel.margins(y=0.12)
    panel.axhline(1, color="black", linewidth=0.8)
    panel.set_xticks(range(len(workers)), [f"N = {count}" for count in workers])
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_major_formatter("{x:g}")
    panel.spines[["top", "right"]].set_visible(False)

"""The end of a run as a command tells it: figures or JSON on stdout, what is to be said on stderr, the exit code."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from smlt.cli.options import Output
from smlt.core.errors import Interrupted, LimitReached
from smlt.core.units import format_usd

if TYPE_CHECKING:
    from smlt.cli.driving import Shown
    from smlt.core.runlog import RunView
    from smlt.core.summary import Summary

START_AGAIN = 1.1
"""What going on costs beside the steps: functions start once more."""

EXIT_CODES = {"succeeded": 0, "stopped": LimitReached.exit_code, "cancelled": Interrupted.exit_code}
"""By status; of a failed run it is that of its error."""


def tell_end(summary: Summary, view: RunView, shown: Shown) -> int:
    """Say what a run came to; returns the exit code."""
    _report(summary, view, shown)
    if summary.error:
        _tell_error(summary, shown)
    elif summary.status != "succeeded" and not shown.quiet:
        print(f"to go on: smlt resume {summary.run}{_raised(summary, view)}", file=sys.stderr)
    return summary.failure().exit_code if summary.status == "failed" else EXIT_CODES[summary.status]


def _raised(summary: Summary, view: RunView) -> str:
    """The limit that must be a larger one, and about how large: the other steps will cost what those before did."""
    if summary.stop_reason == "deadline":
        return " --deadline …"
    if summary.stop_reason != "budget":
        return ""
    if not view.step or view.total_steps <= view.step:
        return " --budget …"
    kept_back_usd = max(0.0, (view.budget_usd or 0.0) - view.spent_usd)  # for stopping, as it will be again
    whole_usd = START_AGAIN * view.spent_usd * view.total_steps / view.step + kept_back_usd
    return f" --budget {format_usd(whole_usd).removeprefix('$')}usd (about what all of it needs)"


def _report(summary: Summary, view: RunView, shown: Shown) -> None:
    from smlt.cli.figures import closing_rows
    from smlt.cli.tables import print_figures

    if shown.output is Output.JSON:
        print(summary.to_json(), flush=True)
    elif not shown.quiet:
        print_figures(closing_rows(summary, view))
        sys.stdout.flush()


def _tell_error(summary: Summary, shown: Shown) -> None:
    from smlt.cli.lines import own_traceback

    error = summary.error
    if shown.debug or shown.verbose:
        print(error["traceback"] if shown.debug else own_traceback(error), file=sys.stderr)
    print(f"error: {error['message']}", file=sys.stderr)
    if error["hint"]:
        print(f"  hint: {error['hint']}", file=sys.stderr)
    if not (shown.debug or shown.verbose) and error["traceback"]:
        print(f"  the traceback: smlt logs {summary.run}", file=sys.stderr)

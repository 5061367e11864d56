"""Driving a run from a command: with its progress until it ends, or in the background."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from smlt.cli.options import Output

if TYPE_CHECKING:
    from smlt.core.engine import RunRequest
    from smlt.core.plugins import Registry


@dataclass(frozen=True)
class Shown:
    """What a user wants to see of a run."""

    output: Output
    quiet: bool
    verbose: bool
    debug: bool


def drive(request: RunRequest, registry: Registry, shown: Shown, *, detach: bool) -> int:
    """Drive a run to its end, or have it driven in the background; returns the exit code."""
    from smlt.api import cancelling
    from smlt.cli.ending import tell_end
    from smlt.cli.progress import progress_for
    from smlt.core.engine import Interrupts, run

    if detach:
        from smlt.cli.detached import start

        return start(request, shown)
    interrupts = Interrupts()
    progress = progress_for(quiet=shown.quiet, detailed=shown.verbose)
    with progress, cancelling(interrupts, progress.say):
        summary = run(request, registry, listener=progress, interrupts=interrupts)
    return tell_end(summary, progress.view, shown)

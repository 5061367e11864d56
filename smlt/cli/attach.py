"""`smlt attach`: the progress of a run that another process drives."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import typer

from smlt.cli.options import Debug, Output, OutputFormat, Quiet, Run, RunsDir, Verbose
from smlt.core.errors import Interrupted, JobFailed

if TYPE_CHECKING:
    from smlt.cli.progress import Progress
    from smlt.core.storage import ObjectStore
    from smlt.core.summary import Summary

POLL_S = 0.25


def attach(
    run: Run = None,
    output: OutputFormat = Output.TABLE,
    quiet: Quiet = False,
    verbose: Verbose = False,
    runs_dir: RunsDir = None,
    debug: Debug = False,
) -> None:
    """Show how a run goes on until it ends, and how it ended; Ctrl-C leaves it alone, and going on.

    The exit code is that of the run.
    """
    from smlt.cli.driving import Shown
    from smlt.cli.ending import tell_end
    from smlt.cli.found_runs import find_run
    from smlt.cli.loading import absolute_runs_dir
    from smlt.cli.progress import progress_for
    from smlt.core.plugins import load_registry

    found = find_run(load_registry(), absolute_runs_dir(runs_dir), run)
    name = found.record.name
    progress = progress_for(quiet=quiet, detailed=verbose)
    try:
        with progress:
            summary = follow(found.store, name, progress)
    except KeyboardInterrupt:
        if not quiet:
            print(f"{name} goes on; to stop it: smlt cancel {name}", file=sys.stderr)
        raise typer.Exit(Interrupted.exit_code) from None
    raise typer.Exit(tell_end(summary, progress.view, Shown(output, quiet, verbose, debug)))


def follow(
    store: ObjectStore,
    run: str,
    progress: Progress,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Summary:
    """Show what is added to a run's log until the run is over; what is in it already is only taken note of.

    Args:
        store: of the run.
        run: its name, for messages.
        progress: shows it.
        clock: monotonic seconds.
        sleep: waits so many seconds.

    Returns:
        What the run came to.

    Raises:
        JobFailed: nobody drives it, though it is not over.
    """
    from smlt.core import layout, wire
    from smlt.core.control import Pulse
    from smlt.core.errors import NotFound
    from smlt.core.messages import Control
    from smlt.core.runlog import read_events
    from smlt.core.summary import Summary

    try:
        pulse = Pulse(store, clock, wire.read(store, layout.CONTROL, Control))
    except NotFound:
        raise _undriven(run) from None
    take_note, segment = progress.catch_up, 0
    while True:
        # In this order: what is logged before the record is closed is not missed.
        control, is_silent = pulse.look(), pulse.is_silent
        for number, event in read_events(store, first_segment=segment):
            segment = number + 1
            take_note(event)
        if control.closed or is_silent:
            if not progress.view.ended:
                raise _undriven(run)
            return Summary.from_json(store.get(layout.SUMMARY))
        take_note = progress
        sleep(POLL_S)


def _undriven(run: str) -> JobFailed:
    return JobFailed(f"nobody drives run {run!r}: its controller is gone", f"go on with it: smlt resume {run}")

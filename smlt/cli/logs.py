"""`smlt logs`: what happened in a run."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from smlt.cli.options import Debug, Output, OutputFormat, Run, RunsDir

if TYPE_CHECKING:
    from smlt.core.control import Pulse
    from smlt.core.storage import ObjectStore

POLL_S = 0.5
STEPS_EVERY_S = 1.0


def logs(
    run: Run = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as the run does, until it is over.")] = False,
    runs_dir: RunsDir = None,
    output: OutputFormat = Output.TABLE,
    debug: Debug = False,
) -> None:
    """Print what happened in a run, what the workers printed included."""
    from smlt.cli.found_runs import find_run
    from smlt.cli.loading import absolute_runs_dir
    from smlt.cli.tables import print_json
    from smlt.core.errors import ConfigError
    from smlt.core.plugins import load_registry
    from smlt.core.runlog import read_events

    if follow and output is Output.JSON:
        raise ConfigError("a log that is followed is not one JSON document", "leave out --follow or -o json")
    found = find_run(load_registry(), absolute_runs_dir(runs_dir), run)
    if output is Output.JSON:
        events = [event.to_plain() for _, event in read_events(found.store)]
        print_json({"run": found.record.name, "state": found.state, "events": events})
        return
    pulse = pulse_of(found.store) if follow and not found.over else None
    print_log(found.store, follow=follow and not found.over, pulse=pulse)
    if pulse and pulse.is_silent:
        typer.echo(f"nobody drives {found.record.name}: to go on: smlt resume {found.record.name}", err=True)
    elif not follow and not found.over and found.state != found.view.state:
        typer.echo(f"{found.record.name} is {found.state}", err=True)


def pulse_of(store: ObjectStore) -> Pulse | None:
    """What tells whether a run has a controller; None where none has taken it yet."""
    from smlt.core import layout, wire
    from smlt.core.control import Pulse
    from smlt.core.errors import NotFound
    from smlt.core.messages import Control

    try:
        return Pulse(store, time.monotonic, wire.read(store, layout.CONTROL, Control))
    except NotFound:
        return None


def print_log(
    store: ObjectStore, *, follow: bool, pulse: Pulse | None = None, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Print the log so far and, with `follow`, what is added to it until the run is over, or nobody drives it."""
    from smlt.cli.lines import EventLines
    from smlt.core.runlog import read_events

    lines = EventLines(steps_every_s=STEPS_EVERY_S, detailed=True)
    segment = 0
    while True:
        over = pulse is not None and (pulse.look().closed or pulse.is_silent)
        for number, event in read_events(store, first_segment=segment):
            segment = number + 1
            over = event.kind == "finished" or (over and event.kind != "created")
            stamp = time.strftime("%H:%M:%S", time.localtime(event.time))
            for line in lines.of(event):
                print(f"{stamp}  {line}", flush=follow)
        if over or not follow:
            return
        sleep(POLL_S)

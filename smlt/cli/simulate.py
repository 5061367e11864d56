"""`smlt simulate`: a run of the protocol in virtual time, with faults drawn from a seed; replays a seed exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from smlt.cli.options import Debug, Output, OutputFormat
from smlt.core.errors import ConfigError

if TYPE_CHECKING:
    from smlt.simulator.scenario import Scenario
    from smlt.simulator.simulation import Outcome

TRACE_LINES = 60
"""So many lines before the first broken invariant are shown."""


def simulate(
    seed: Annotated[int, typer.Option(metavar="S", help="Everything random derives from it.")] = 0,
    workers: Annotated[
        int | None, typer.Option("-w", "--workers", metavar="N", min=1, help="Ranks. [default: drawn, 1 to 1000]")
    ] = None,
    steps: Annotated[int | None, typer.Option(metavar="T", min=1, help="Steps of the job. [default: drawn]")] = None,
    faults: Annotated[
        str, typer.Option(metavar="KIND,…", help="What may go wrong: all, none, or kinds such as kill,hang,freeze.")
    ] = "all",
    time_limit: Annotated[
        str | None, typer.Option(metavar="TIME", help="The platform ends a function after so long, like 60s.")
    ] = None,
    budget: Annotated[str | None, typer.Option(metavar="MONEY", help="What the run may commit, like 0.5usd.")] = None,
    output: OutputFormat = Output.TABLE,
    debug: Debug = False,
) -> None:
    """Run both protocol machines in virtual time, with faults drawn from the seed, and check every invariant.

    Exit code 1, and the events before it, where an invariant does not hold.
    """
    from smlt.cli.tables import print_json
    from smlt.core.units import parse_duration_s, parse_usd
    from smlt.simulator.scenario import Scenario, parse_kinds
    from smlt.simulator.simulation import simulate as run
    from smlt.simulator.trace import Trace

    scenario = Scenario.random(
        seed,
        workers=workers,
        steps=steps,
        kinds=parse_kinds(faults),
        time_limit_s=_read(parse_duration_s, "--time-limit", time_limit),
        budget_usd=_read(parse_usd, "--budget", budget),
    )
    outcome = run(scenario)
    if outcome.broken:  # once more, and this time with every event written down
        outcome = run(scenario, trace=lambda timeline: Trace(timeline, TRACE_LINES))
    if output is Output.JSON:
        print_json({"scenario": asdict(scenario), **asdict(outcome)})
    else:
        _print(scenario, outcome)
    if outcome.broken:
        raise typer.Exit(1)


def _read(parse: Callable[[str], float], name: str, text: str | None) -> float | None:
    try:
        return None if text is None else parse(text)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from error


def _print(scenario: Scenario, outcome: Outcome) -> None:
    from smlt.cli.tables import print_figures
    from smlt.core.units import format_duration, format_usd

    for line in outcome.trace:
        print(line)
    faults = "\n".join(str(fault) for fault in scenario.faults)
    ended = f"{outcome.status}: {outcome.stop_reason}" if outcome.status else "not ended"
    print_figures(
        [
            ("broken", outcome.broken or "nothing: every invariant holds"),
            ("ended", ended),
            ("workers", str(scenario.workers)),
            ("steps", f"{outcome.steps} of {scenario.steps}, {outcome.commits} commits by all ranks together"),
            ("time", f"{format_duration(outcome.virtual_s)} of virtual time, {outcome.events} events"),
            ("generations", f"{outcome.generations}, and {outcome.controllers} controllers"),
            ("cost", format_usd(outcome.spent_usd)),
            ("faults", faults or "none"),
        ]
    )

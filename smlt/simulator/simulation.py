"""One simulated run, from its scenario to what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from smlt.core.controller import Controller
from smlt.core.protocol import RankProtocol, Rules
from smlt.core.run_events import Terms
from smlt.simulator.invariants import Broken
from smlt.simulator.scenario import Scenario
from smlt.simulator.timeline import Timeline
from smlt.simulator.trace import Trace
from smlt.simulator.world import World


@dataclass(frozen=True)
class Outcome:
    """What came of a simulated run.

    Attributes:
        broken: the first invariant that did not hold; empty where all did.
        status, stop_reason: as in the summary of a run.
        virtual_s: how long it took.
        events: that were handled.
        commits: by all ranks together.
        steps: the highest that was committed.
        generations, losses, rounds: how many.
        spent_usd: by the ledger.
        trace: what happened, if it was asked for.
    """

    broken: str
    status: str
    stop_reason: str
    virtual_s: float
    events: int
    commits: int
    steps: int
    generations: int
    controllers: int
    spent_usd: float
    trace: tuple[str, ...] = ()


def simulate(
    scenario: Scenario,
    *,
    controller: Callable[[Terms], Controller] = Controller,
    rank: Callable[[int, Rules], RankProtocol] = RankProtocol,
    trace: Callable[[Timeline], Trace] | None = None,
) -> Outcome:
    """Run a scenario to its end, or to the first invariant that does not hold.

    Args:
        scenario: what happens.
        controller, rank: the machines; others than the real ones to see whether they are found out.
        trace: makes what keeps the trace; None for none.
    """
    world = World(scenario, controller, rank, trace)
    broken = ""
    try:
        _run(world)
    except Broken as reason:
        broken = str(reason)
    finish = next((pilot.finish for pilot in world.pilots if pilot.finish), None)
    return Outcome(
        broken=broken,
        status=finish.status if finish else "",
        stop_reason=finish.stop_reason if finish else "",
        virtual_s=world.timeline.now,
        events=world.timeline.handled,
        commits=world.invariants.commits,
        steps=world.invariants.reached,
        generations=world.log_generation,
        controllers=len(world.pilots),
        spent_usd=world.spent_usd(),
        trace=world.trace.lines if world.trace else (),
    )


def _run(world: World) -> None:
    world.begin()
    timeline, platform = world.timeline, world.platform
    timeline.run(world.scenario.bound_s, lambda: any(pilot.finish for pilot in world.pilots))
    if not any(pilot.finish for pilot in world.pilots):
        world.invariants.not_over()
    longest_s = max((fault.seconds for fault in world.scenario.faults), default=0.0)
    timeline.run(timeline.now + longest_s + 4 * world.orphan_grace_s + 60.0, lambda: not platform.processes)
    world.invariants.left_over()

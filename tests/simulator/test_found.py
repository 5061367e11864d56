"""What the simulator has found in the machines, each as the shortest story that shows it."""

from __future__ import annotations

from smlt.core.run_events import KillWorkers, Tick, Wish
from tests.support.events import Desk


def test_a_run_that_stops_for_its_budget_is_ended_when_what_was_set_aside_is_used_up() -> None:
    """Seeds 109 and 1190: a slow rank made steps longer, and the time for an orderly end with them; not the money."""
    desk = Desk(budget_usd=2.0)
    desk.run()
    desk.steps(0, 1, seconds=1.0)
    assert desk.tell(Tick(10.0, committed_usd=2.0, worker_usd=0.5, leased_usd=1.0)) == [Wish("budget")]
    desk.steps(2, seconds=100.0)
    assert desk.tell(Tick(12.0, committed_usd=9.0, worker_usd=0.5, leased_usd=1.9)) == []
    assert desk.tell(Tick(13.0, committed_usd=9.0, worker_usd=0.5, leased_usd=2.0)) == [KillWorkers()]

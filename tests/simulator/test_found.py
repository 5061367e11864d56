"""What the simulator has found in the machines, each as the shortest story that shows it."""

from __future__ import annotations

from smlt.core.messages import Left
from smlt.core.run_events import (
    Address,
    Command,
    Finish,
    Kill,
    KillWorkers,
    Launch,
    OpenRound,
    StopWorkers,
    Tick,
    Wish,
)
from tests.support.events import Desk, relaunch


def test_a_run_that_stops_for_its_budget_is_ended_when_what_was_set_aside_is_used_up() -> None:
    """Seeds 109 and 1190: a slow rank made steps longer, and the time for an orderly end with them; not the money."""
    desk = Desk(budget_usd=2.0)
    desk.run()
    desk.steps(0, 1, seconds=1.0)
    assert desk.tell(Tick(10.0, committed_usd=2.0, worker_usd=0.5, leased_usd=1.0)) == [Wish("budget")]
    desk.steps(2, seconds=100.0)
    assert desk.tell(Tick(12.0, committed_usd=9.0, worker_usd=0.5, leased_usd=1.9)) == []
    assert desk.tell(Tick(13.0, committed_usd=9.0, worker_usd=0.5, leased_usd=2.0)) == [StopWorkers(), KillWorkers()]


def test_a_rank_that_hangs_while_it_waits_is_replaced_once_it_has_not_come_to_the_next_round() -> None:
    """Seed 4668: it looked like the others, who waited for it; every new round stalled as the one before."""
    desk = Desk()
    desk.run()
    for rank in range(2):
        desk.steps(0, rank=rank)
    since = [0, 0]
    commands: list[Command] = []
    for second in range(1, 100):
        for rank in range(2):
            desk.beat(rank, "waiting for sums", float(second - since[rank]))
        said = desk.tick(1.0)
        commands += said
        if any(isinstance(command, OpenRound) for command in said):
            since[1] = second + 1  # rank 1 comes to the round that is opened because all wait; rank 0 does not
    assert [type(command) for command in commands] == [OpenRound, Kill, Launch]
    assert commands[1:] == [Kill(Address(1, 0, 0)), relaunch(1, 0, 1)]


def test_steps_of_one_who_was_thought_lost_are_in_the_log_when_the_run_goes_on_from_them() -> None:
    """Seed 1082: a function that nobody could end revived, saved two more steps, and was the last to know of them."""
    desk = Desk(workers=1)
    desk.run()
    desk.beat(0)
    desk.steps(0)
    frozen = desk.address(0)
    desk.tick(6.0)
    assert desk.address(0) == Address(1, 0, 1)
    desk.steps(1, 2, at=frozen)
    desk.checkpointed(3, at=frozen)
    desk.ready(0)
    desk.steps(3)
    assert [item["step"] for record in desk.records("steps") for item in record["items"]] == [0, 1, 2, 3]


def test_a_controller_that_takes_over_without_money_ends_the_functions_at_once() -> None:
    """Seed 100066 of the runs with a budget: taking the run over renews all leases, and there was no money for that."""
    desk = Desk(budget_usd=2.0)
    desk.run()
    assert desk.tell(Tick(10.0, committed_usd=2.5, worker_usd=0.5, leased_usd=2.0)) == [
        Wish("budget"),
        StopWorkers(),
        KillWorkers(),
    ]


def test_a_rank_that_leaves_alone_while_the_run_stops_softly_ends_it_at_once() -> None:
    """Seed 4451: it had not heard of its controller for a while; the others waited for it, and the run never ended."""
    desk = Desk()
    desk.run()
    assert desk.cancel() == [Wish("cancelled")]
    assert StopWorkers() in desk.left(1, "stopped")
    desk.exited(1)
    assert desk.left(0, "stopped") == [Finish("cancelled", "cancelled", Left("stopped"))]

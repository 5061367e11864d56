"""The run's machine: what happens on the way to the goal, at a time limit, and when the user cancels."""

from __future__ import annotations

from dataclasses import replace

import pytest

from smlt.core.controller import Controller
from smlt.core.messages import Left
from smlt.core.run_events import Address, Finish, Kill, KillWorkers, Record, Started, StopWorkers, Wish
from tests.support.events import TERMS, Desk, launches, opened, relaunch


def test_a_run_from_its_start_to_its_goal() -> None:
    desk = Desk(workers=3)
    assert desk.start() == launches(1, 3)
    assert desk.state == "starting"
    assert [desk.ready(2), desk.ready(0)] == [[], []]
    assert desk.ready(1) == [opened(1, 0, (0, 0, 0))]
    assert desk.state == "running"
    assert [desk.steps(0, 1), desk.evaluated(2), desk.checkpointed(2), desk.tick(1.0)] == [[], [], [], []]
    assert [desk.left(1, "goal", 2), desk.exited(1), desk.left(0, "goal", 2)] == [[], [], []]
    assert desk.left(2, "goal", 2) == [Finish("succeeded", "goal", Left("goal", 2))]
    assert desk.state == "over"
    assert desk.all_exit() == desk.cancel() == desk.tick(1e6) == []


def test_a_target_is_success_too() -> None:
    desk = Desk()
    desk.run()
    assert desk.all_leave("target", 7) == [Finish("succeeded", "target", Left("target", 7))]


def test_the_intent_is_recorded_before_any_launch() -> None:
    desk = Desk(workers=3)
    desk.start(generation=4)
    kinds = [type(command).__name__ for command in desk.said]
    assert kinds == ["Record"] * 3 + ["Launch"] * 3 + ["Record"]
    first = {"generation": 4, "incarnation": 0, "memory_mib": 1024, "is_heir": False}
    assert desk.records("launched") == [{**first, "rank": rank} for rank in range(3)]


def test_a_run_goes_on_from_a_checkpoint_as_a_later_generation() -> None:
    desk = Desk()
    assert desk.start(generation=5, resume_from="checkpoints/7/manifest", step=7) == launches(5, 2)
    assert desk.all_ready() == [opened(5, 0, resume_from="checkpoints/7/manifest")]
    assert desk.records("round_opened") == [{"generation": 5, "round": 0, "workers": 2, "step": 7}]


def test_steps_are_recorded_as_rank_0_saw_them() -> None:
    desk = Desk()
    desk.run()
    for rank in (1, 0):
        desk.steps(0, 1, rank=rank)
    (record,) = desk.records("steps")
    assert record["generation"] == 1
    assert [item["step"] for item in record["items"]] == [0, 1]


def test_a_record_is_plain_data() -> None:
    desk = Desk()
    desk.run()
    desk.steps(0)
    desk.evaluated(1)
    desk.checkpointed(1)
    desk.failed(0)
    for command in desk.said:
        if isinstance(command, Record):
            _assert_plain(command.data)


def _assert_plain(value: object) -> None:
    if isinstance(value, dict):
        assert all(isinstance(key, str) for key in value)
        for item in value.values():
            _assert_plain(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _assert_plain(item)
    else:
        assert value is None or isinstance(value, (str, int, float))


def test_workers_that_leave_without_being_asked_are_replaced() -> None:
    """They saw no controller for a while, say."""
    desk = Desk()
    desk.run()
    desk.steps(0)
    assert desk.left(1, "stopped", 1) == [Kill(Address(1, 1, 0)), relaunch(1, 1, 1)]
    assert desk.records("lost") == [
        {"generation": 1, "rank": 1, "incarnation": 0, "step": 1, "detail": "it left: stopped"}
    ]
    assert desk.ready(1) == [opened(1, 1, (0, 1))]


def test_workers_that_end_without_being_asked_are_followed_by_others() -> None:
    """They saw no controller for a while, and came to an agreed step."""
    desk = Desk()
    desk.run()
    desk.checkpointed(5)
    assert desk.all_leave("ended", 5) == launches(2, 2)
    assert desk.all_ready() == [opened(2, 0, resume_from="checkpoints/5/manifest")]


# Cancelling


def test_cancelled_before_the_first_step_stops_at_once() -> None:
    desk = Desk()
    desk.start()
    desk.ready(0)
    assert desk.cancel() == [StopWorkers()]
    assert desk.state == "stopping"
    assert desk.ready(1) == []
    assert desk.left(0, "stopped") == []
    assert desk.left(1, "stopped") == [Finish("cancelled", "cancelled", Left("stopped"))]


@pytest.mark.parametrize("handing_over", [False, True])
def test_cancelled_once_ends_at_an_agreed_step(handing_over: bool) -> None:
    desk = Desk(time_limit_s=60.0, max_workers=2)
    desk.run()
    if handing_over:
        assert desk.live(59.0) == [Wish("time limit")]
    assert desk.cancel() == [Wish("cancelled")]
    assert desk.state == "stopping"
    assert desk.live(10.0) == []
    desk.checkpointed(3)
    assert desk.all_leave("ended", 3) == [Finish("cancelled", "cancelled", Left("ended", 3))]


def test_cancelled_twice_stops_at_once_and_kills_who_does_not_leave() -> None:
    desk = Desk(leave_s=5.0)
    desk.run()
    desk.cancel()
    desk.now += 100.0
    assert desk.cancel() == [StopWorkers()]
    assert desk.tick(4.9) == []
    assert desk.tick(0.2) == [KillWorkers()]
    assert desk.tick(10.0) == []
    assert desk.exited(0, lost=True) == []
    assert desk.exited(1, lost=True) == [Finish("cancelled", "cancelled")]


def test_cancelled_a_third_time_kills() -> None:
    desk = Desk()
    desk.run()
    desk.cancel()
    desk.cancel()
    assert desk.cancel() == [KillWorkers()]
    assert desk.cancel() == []


def test_cancelled_while_the_goal_is_reached_is_success() -> None:
    desk = Desk()
    desk.run()
    desk.cancel()
    assert desk.all_leave("goal", 9) == [Finish("succeeded", "goal", Left("goal", 9))]


def test_cancelled_between_two_generations() -> None:
    desk = Desk(time_limit_s=60.0, max_workers=2)
    desk.run()
    desk.live(59.0)
    assert desk.all_leave("ended", 3) == []
    assert desk.all_exit(generation=1) == []
    assert desk.tick() == launches(2, 2)
    assert desk.cancel() == [StopWorkers(), KillWorkers()]  # nobody of the next one has begun anything
    assert desk.all_exit(generation=1) == []
    assert desk.all_leave("stopped") == [Finish("cancelled", "cancelled", Left("stopped"))]


def test_a_budget_that_is_spent_launches_nothing() -> None:
    machine = Controller(replace(TERMS, budget_usd=2.0))
    assert machine.handle(Started(0.0, 3, "checkpoints/7/manifest", 7, spent_usd=2.0)) == [Finish("stopped", "budget")]

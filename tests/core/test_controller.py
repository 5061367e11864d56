"""The run's machine: what happens on the way to the goal, at a time limit, and when the user cancels."""

from __future__ import annotations

from dataclasses import replace

import pytest

from smlt.core.controller import Controller
from smlt.core.messages import Left, Round
from smlt.core.run_events import Finish, KillWorkers, OpenRound, Record, Started, StopWorkers, Wish
from tests.support.events import TERMS, Desk, launches


def test_a_run_from_its_start_to_its_goal() -> None:
    desk = Desk(workers=3)
    assert desk.start() == launches(1, 3)
    assert desk.state == "starting"
    assert [desk.ready(2), desk.ready(0)] == [[], []]
    assert desk.ready(1) == [OpenRound(Round(1, 0, ("uuid-0", "uuid-1", "uuid-2")))]
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
    assert desk.records("launched") == [{"generation": 4, "rank": rank, "incarnation": 0} for rank in range(3)]


def test_a_run_goes_on_from_a_checkpoint_as_a_later_generation() -> None:
    desk = Desk()
    assert desk.start(generation=5, resume_from="checkpoints/7/manifest", step=7) == launches(
        5, 2, "checkpoints/7/manifest"
    )
    assert desk.all_ready(step=7) == [OpenRound(Round(5, 0, ("uuid-0", "uuid-1")))]
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


def test_the_time_limit_hands_over_to_a_generation_that_starts_from_the_newest_checkpoint() -> None:
    desk = Desk(time_limit_s=60.0, state_write_s=5.0)
    desk.run()
    desk.steps(0, seconds=10.0)
    assert desk.tick(34.0) == []
    assert desk.tick(2.0) == [Wish("time limit")]
    assert desk.state == "handing_over"
    assert desk.tick(1.0) == []
    desk.checkpointed(3)
    assert desk.left(0, "ended", 3) == []
    assert desk.left(1, "ended", 3) == launches(2, 2, "checkpoints/3/manifest")
    assert desk.state == "starting"
    assert desk.all_ready(step=3) == [OpenRound(Round(2, 0, ("uuid-0", "uuid-1")))]
    assert desk.tick(30.0) == []
    assert desk.tick(10.0) == [Wish("time limit")]


def test_the_wish_leaves_time_for_two_steps_and_the_state() -> None:
    for step_s, last_s in ((0.5, 57.0), (20.0, 18.0)):
        desk = Desk(time_limit_s=60.0, state_write_s=2.0)
        desk.run()
        desk.steps(0, seconds=step_s)
        assert desk.tick(last_s) == []
        assert desk.tick(0.1) == [Wish("time limit")]


def test_exits_of_an_old_generation_are_no_news() -> None:
    desk = Desk(time_limit_s=60.0)
    desk.run()
    desk.tick(59.0)
    desk.all_leave("ended", 3)
    for rank in (0, 1):
        assert desk.exited(rank, generation=1, lost=True, detail="killed") == []
    assert desk.state == "starting"
    assert desk.all_ready() == [OpenRound(Round(2, 0, ("uuid-0", "uuid-1")))]


def test_workers_that_leave_without_being_asked_fail_the_run() -> None:
    desk = Desk()
    desk.run()
    (finish,) = desk.all_leave("stopped", 5)
    assert isinstance(finish, Finish)
    assert (finish.status, finish.stop_reason) == ("failed", "stopped")
    assert finish.failure is not None
    assert "the workers left: stopped" in finish.failure.message


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
    desk = Desk(time_limit_s=60.0)
    desk.run()
    if handing_over:
        assert desk.tick(59.0) == [Wish("time limit")]
    assert desk.cancel() == [Wish("cancelled")]
    assert desk.state == "stopping"
    assert desk.tick(10.0) == []
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
    desk = Desk(time_limit_s=60.0)
    desk.run()
    desk.tick(59.0)
    desk.all_leave("ended", 3)
    assert desk.cancel() == [StopWorkers()]
    assert desk.all_exit(generation=1) == []
    assert desk.all_leave("stopped") == [Finish("cancelled", "cancelled", Left("stopped"))]


def test_a_budget_that_is_spent_launches_nothing() -> None:
    machine = Controller(replace(TERMS, budget_usd=2.0))
    assert machine.handle(Started(0.0, 3, "checkpoints/7/manifest", 7, spent_usd=2.0)) == [Finish("stopped", "budget")]

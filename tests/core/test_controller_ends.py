"""The run's machine: failures and limits, and how a run is stopped that reaches one."""

from __future__ import annotations

from smlt.core.messages import Left
from smlt.core.run_events import Address, Finish, Kill, KillWorkers, StopWorkers, Wish
from tests.support.events import FAILURE, Desk, launches, running


def test_a_failure_in_the_task_stops_all_and_is_told() -> None:
    desk = Desk(workers=3)
    desk.run()
    assert desk.failed(1) == [StopWorkers()]
    assert desk.state == "stopping"
    assert desk.left(0, "stopped") == desk.left(2, "stopped") == []
    assert desk.exited(0) == desk.exited(1) == []
    assert desk.exited(2) == [Finish("failed", "TaskError", failure=FAILURE)]
    assert [(record["rank"], record["message"]) for record in desk.records("failed")] == [(1, "it broke")]


def test_the_first_failure_is_the_one_that_is_told() -> None:
    desk = Desk()
    desk.run()
    desk.failed(0)
    other = type(FAILURE)("JobFailed", "a consequence", "", "")
    assert desk.failed(1, other) == []
    assert desk.all_exit() == [Finish("failed", "TaskError", failure=FAILURE)]
    assert len(desk.records("failed")) == 1


def test_a_failure_before_the_others_are_ready() -> None:
    desk = Desk()
    desk.start()
    assert desk.failed(0) == [StopWorkers()]
    assert desk.ready(1) == []
    assert desk.all_exit() == [Finish("failed", "TaskError", failure=FAILURE)]


def test_a_worker_that_exits_after_its_last_word_is_not_lost() -> None:
    desk = Desk()
    desk.run()
    desk.left(1, "goal")
    assert desk.exited(1, lost=True, detail="killed") == []
    assert desk.left(0, "goal") == [Finish("succeeded", "goal", Left("goal"))]


def test_a_loss_while_stopping_softly_stops_the_rest_at_once() -> None:
    """They would wait for the lost one, and nobody would tell them not to."""
    desk = Desk()
    desk.run()
    assert desk.cancel() == [Wish("cancelled")]
    assert desk.exited(1, lost=True, detail="killed") == [StopWorkers()]
    assert desk.left(0, "stopped") == [Finish("cancelled", "cancelled", Left("stopped"))]


def test_a_deadline_ends_the_run_before_it_is_over() -> None:
    desk = Desk(deadline_s=100.0, state_write_s=2.0)
    desk.run()
    desk.steps(0, seconds=3.0)
    assert desk.live(92.0) == []
    assert desk.live(0.1) == [Wish("deadline")]
    assert desk.tick(1.0) == []
    assert desk.all_leave("ended", 5) == [Finish("stopped", "deadline", Left("ended", 5))]


def test_a_deadline_holds_for_all_generations_together() -> None:
    desk = Desk(deadline_s=100.0, time_limit_s=60.0, max_workers=2)
    desk.run()
    desk.live(59.0)
    assert desk.all_leave("ended") == desk.all_exit(generation=1) == []
    assert desk.tick() == launches(2, 2)
    desk.all_ready()
    assert desk.live(38.0) == []
    assert desk.live(1.1) == [Wish("deadline")]


def test_a_budget_ends_the_run() -> None:
    desk = Desk(budget_usd=2.0)
    desk.run()
    assert desk.tick(1.0, usd=1.99) == []
    assert desk.tick(1.0, usd=2.0) == [Wish("budget")]
    assert desk.all_leave("ended", 5) == [Finish("stopped", "budget", Left("ended", 5))]


def test_a_limit_that_is_reached_before_the_first_step_stops_at_once() -> None:
    for limits, usd in (({"deadline_s": 30.0}, 0.0), ({"budget_usd": 1.0}, 1.5)):
        desk = Desk(**limits)
        desk.start()
        assert desk.tick(29.0, usd=usd) == [StopWorkers()]
        (finish,) = desk.all_leave("stopped")
        assert isinstance(finish, Finish)
        assert finish.status == "stopped"


def test_a_limit_is_a_wall_for_who_does_not_end_in_time() -> None:
    desk = Desk(deadline_s=100.0, leave_s=5.0, state_write_s=2.0)
    desk.run()
    assert desk.live(98.5) == [Wish("deadline")]
    assert desk.live(8.9) == []
    assert desk.live(0.2) == [StopWorkers()]
    assert desk.live(5.1) == [KillWorkers()]


def test_a_user_who_cancels_may_wait_as_long_as_it_takes() -> None:
    desk = Desk(leave_s=5.0)
    desk.run()
    assert desk.cancel() == [Wish("cancelled")]
    assert desk.live(1000.0) == []


def test_a_run_that_is_stopped_at_once_is_over_when_the_last_rank_is_given_up() -> None:
    """Nobody tells of the end of functions that are gone since another controller was there."""
    desk = running(silence_s=5.0)
    desk.all_beat()
    desk.cancel()
    kills = [Kill(Address(1, 0)), StopWorkers(), Kill(Address(1, 1))]
    assert desk.tick(5.1) == [*kills, Finish("cancelled", "cancelled")]

"""The run's machine: ranks that are lost, in every way, and who takes their place."""

from __future__ import annotations

import pytest

from smlt.core.endings import BEGIN_AGAIN, GO_ON
from smlt.core.messages import Failure, Left
from smlt.core.run_events import Address, FindState, Finish, Kill, KillWorkers, StateFound, StopWorkers, Wish
from tests.support.events import PASSING, Desk, failure_of, launches, opened, relaunch, running

# One, several, all


def test_a_lost_rank_is_launched_again_and_a_round_opened_with_the_survivors() -> None:
    desk = running(workers=3)
    assert desk.killed(1) == [relaunch(1, 1, 1, workers=3)]
    assert desk.state == "recovering"
    assert desk.records("lost") == [
        {"generation": 1, "rank": 1, "incarnation": 0, "step": 3, "detail": "killed by signal 9"}
    ]
    assert desk.records("launched")[-1] == {
        "generation": 1,
        "rank": 1,
        "incarnation": 1,
        "memory_mib": 1024,
        "is_heir": False,
    }
    assert desk.live(1.0) == []
    assert desk.ready(1) == [opened(1, 1, (0, 1, 0))]
    assert desk.state == "running"


def test_the_round_names_the_newest_checkpoint_for_where_nobody_has_a_state() -> None:
    desk = running(workers=1)
    desk.checkpointed(2)
    assert desk.killed(0) == [relaunch(1, 0, 1, workers=1)]
    assert desk.ready(0) == [opened(1, 1, (1,), resume_from="checkpoints/2/manifest")]
    desk.steps(2)
    assert desk.records("rolled_back") == [{"step": 2}]
    assert [item["step"] for record in desk.records("steps") for item in record["items"]] == [0, 1, 2, 2]


def test_a_function_that_returns_without_a_word_is_lost_too() -> None:
    desk = running()
    assert desk.exited(1) == [relaunch(1, 1, 1)]
    assert desk.records("lost")[0]["detail"] == "it returned without a word"


def test_several_at_once_share_one_round() -> None:
    desk = running(workers=4)
    for rank in (3, 0):
        assert desk.killed(rank) == [relaunch(1, rank, 1, workers=4)]
    assert desk.ready(0) == []
    assert desk.ready(3) == [opened(1, 1, (1, 0, 0, 1))]


def test_all_at_once_are_one_loss_each() -> None:
    desk = running(workers=8)
    for rank in range(8):
        assert desk.killed(rank) == [relaunch(1, rank, 1, workers=8)]
    assert desk.all_ready() == [opened(1, 1, [1] * 8)]


def test_a_replacement_that_is_lost_in_its_turn_is_replaced() -> None:
    desk = running()
    desk.killed(1)
    assert desk.killed(1) == [relaunch(1, 1, 2)]
    assert desk.ready(1) == [opened(1, 1, (0, 2))]


def test_a_survivor_that_is_lost_before_the_round_opens_is_replaced_too() -> None:
    desk = running()
    desk.killed(1)
    assert desk.killed(0) == [relaunch(1, 0, 1)]
    assert desk.ready(1) == []
    assert desk.ready(0) == [opened(1, 1, (1, 1))]


def test_a_rank_that_is_lost_before_the_first_round_is_launched_again() -> None:
    desk = Desk()
    desk.start()
    desk.ready(0)
    assert desk.killed(0) == [relaunch(1, 0, 1)]
    assert desk.state == "starting"
    assert desk.ready(1) == []
    assert desk.ready(0) == [opened(1, 0, (1, 0))]


def test_what_a_stale_incarnation_says_is_no_news() -> None:
    desk = running()
    stale = desk.address(1)
    desk.live(0.1)
    desk.now += 6.0
    desk.beat(0)
    assert desk.tick() == [Kill(stale), relaunch(1, 1, 1)]
    launched, desk.launched[1, 1] = desk.launched[1, 1], relaunch(1, 1, 0)
    assert desk.beat(1) == desk.ready(1, after_round=0) == desk.steps(3, rank=1) == []
    assert desk.failed(1) == desk.left(1, "stopped") == desk.killed(1) == []
    assert len(desk.records("lost")) == 1
    desk.launched[1, 1] = launched
    assert desk.ready(1) == [opened(1, 1, (0, 1))]


@pytest.mark.parametrize("kind", ["ChannelError", "PeerLost", "StorageError", "CloudError", "NotFound"])
def test_an_error_that_says_nothing_against_the_task_costs_one_rank(kind: str) -> None:
    desk = running()
    commands = desk.failed(1, Failure(kind, "the channel closed", "", ""))
    assert commands[-2:] == [Kill(Address(1, 1)), relaunch(1, 1, 1)]
    assert desk.records("failed") == []


def test_an_error_that_is_told_is_not_counted_again_when_the_function_exits() -> None:
    desk = running()
    desk.failed(1, PASSING)
    stale = Address(1, 1, 0)
    desk.launched[1, 1] = relaunch(1, 1, 0)
    assert desk.exited(1) == []
    assert [record["incarnation"] for record in desk.records("lost")] == [stale.incarnation]


# Lost again and again


def test_a_rank_that_is_lost_again_and_again_without_progress_fails_the_run_and_says_where() -> None:
    desk = running(max_losses=3)
    for incarnation in (1, 2, 3):
        assert desk.killed(1) == [relaunch(1, 1, incarnation)]
        assert desk.ready(1) == [opened(1, incarnation, (0, incarnation))]
    assert desk.killed(1) == [StopWorkers()]
    failure = failure_of(desk.exited(0))
    assert "rank 1 was lost at step 3: killed by signal 9; this happened 4 times without progress" in failure.message
    assert (failure.kind, failure.hint) == ("JobFailed", BEGIN_AGAIN)


def test_a_run_that_fails_so_leaves_the_checkpoint_to_go_on_from() -> None:
    desk = running(max_losses=0)
    desk.checkpointed(3)
    desk.killed(1)
    assert failure_of(desk.exited(0)).hint == GO_ON


def test_losses_with_progress_in_between_are_bad_luck() -> None:
    desk = running(max_losses=1)
    for incarnation in range(1, 10):
        assert desk.killed(1) == [relaunch(1, 1, incarnation)]
        assert desk.ready(1) == [opened(1, incarnation, (0, incarnation))]
        desk.steps(2 + incarnation)


def test_steps_that_are_made_again_after_a_loss_are_no_progress() -> None:
    desk = Desk(workers=1, max_losses=2)
    desk.run()
    for incarnation in (1, 2):
        desk.steps(*range(5 - incarnation))  # not all of what it has made is told before it dies
        assert desk.killed(0) == [relaunch(1, 0, incarnation, workers=1)]
        desk.ready(0)
    desk.steps(0, 1)
    assert desk.killed(0)[0] == StopWorkers()


# While ranks come to the end


def test_a_rank_that_is_lost_after_others_have_left_is_not_replaced() -> None:
    desk = running(workers=3)
    desk.left(0, "goal", 9)
    desk.left(2, "goal", 9)
    assert desk.killed(1) == [Finish("succeeded", "goal", Left("goal", 9))]


def test_rank_0_that_is_lost_with_the_goal_unsaid_is_followed_by_another_that_says_it() -> None:
    desk = running()
    desk.steps(3, rank=1)
    desk.checkpointed(4)
    desk.left(1, "goal", 4)
    assert desk.killed(0) == launches(2, 2)
    assert [item["step"] for record in desk.records("steps") for item in record["items"]] == [0, 1, 2, 3]
    assert desk.all_ready() == [opened(2, 0, resume_from="checkpoints/4/manifest")]
    assert desk.all_leave("goal", 4) == [Finish("succeeded", "goal", Left("goal", 4))]


def test_rank_0_that_is_lost_before_the_others_say_so_is_followed_by_another_too() -> None:
    """It was being replaced; its replacement would wait for peers that have left."""
    desk = running()
    assert desk.killed(0) == [relaunch(1, 0, 1)]
    assert desk.left(1, "goal", 9) == [Kill(Address(1, 0, 1)), *launches(2, 2)]


def test_a_round_that_was_opened_while_a_rank_was_leaving_is_left_by_all() -> None:
    desk = running()
    desk.killed(1)
    desk.ready(1)
    assert desk.left(0, "ended", 3, round_number=0) == [Kill(Address(1, 1, 1)), *launches(2, 2)]


def test_a_rank_that_cannot_come_to_the_end_after_others_have_left_is_not_waited_for() -> None:
    desk = running()
    desk.left(0, "goal", 9)
    assert desk.ready(1, after_round=0) == [Kill(Address(1, 1)), Finish("succeeded", "goal", Left("goal", 9))]


def test_a_rank_that_does_not_leave_although_others_have_is_given_up() -> None:
    desk = running()
    desk.left(0, "goal", 9)
    desk.now += 60.0
    desk.beat(1, "waiting for bye")
    assert desk.tick() == []
    desk.beat(1, "waiting for bye")
    assert desk.tick(0.1) == [Kill(Address(1, 1)), Finish("succeeded", "goal", Left("goal", 9))]


def test_a_loss_while_a_stopped_run_comes_to_its_end_does_not_undo_it() -> None:
    desk = running()
    desk.cancel()
    desk.left(0, "ended", 4)
    assert desk.killed(1) == [Finish("cancelled", "cancelled", Left("ended", 4))]


def test_a_user_who_cancels_during_a_recovery_gets_a_checkpoint_after_it() -> None:
    desk = running()
    desk.killed(1)
    assert desk.cancel() == [Wish("cancelled")]
    assert desk.state == "stopping"
    assert desk.refused(1) == desk.live(0.5) == []
    assert desk.live(0.5) == [relaunch(1, 1, 1)]
    assert desk.ready(1) == [opened(1, 1, (0, 1))]
    assert desk.all_leave("ended", 5) == [Finish("cancelled", "cancelled", Left("ended", 5))]


def test_a_recovery_that_comes_to_nothing_ends_a_cancelled_run_all_the_same() -> None:
    for disturb in (lambda desk: desk.killed(1), lambda desk: desk.killed(0), lambda desk: desk.cancel()):
        desk = running()
        desk.killed(1)
        desk.cancel()
        assert disturb(desk) == [StopWorkers()]
        assert desk.state == "stopping"
    desk = running(start_deadline_s=0.5)
    desk.killed(1)
    desk.cancel()
    assert desk.refused(1) == [StopWorkers()]
    assert desk.left(0, "stopped") == [Finish("cancelled", "cancelled", Left("stopped"))]


@pytest.mark.parametrize("limit", ["deadline_s", "budget_usd"])
def test_a_limit_does_not_wait_for_a_recovery(limit: str) -> None:
    desk = running(**{limit: 10.0})
    desk.killed(1)
    assert desk.live(8.0, usd=10.0) == [StopWorkers()]


def test_a_passing_error_while_stopping_does_not_make_a_failure_of_it() -> None:
    desk = running()
    desk.cancel()
    assert desk.failed(1, PASSING) == [Kill(Address(1, 1)), StopWorkers()]
    assert desk.left(0, "stopped") == [Finish("cancelled", "cancelled", Left("stopped"))]


# The channel


def test_a_rank_in_trouble_with_its_channel_gets_another_round() -> None:
    desk = running(workers=3)
    assert desk.ready(1, after_round=0) == [opened(1, 1, (0, 0, 0))]
    assert desk.state == "running"
    assert len(desk.records("ready")) == 3


def test_one_round_answers_all_who_asked_for_it() -> None:
    desk = running()
    assert desk.ready(1, after_round=0) == [opened(1, 1)]
    assert desk.ready(0, after_round=0) == []
    assert desk.ready(0, after_round=1) == [opened(1, 2)]


def test_trouble_while_a_rank_is_replaced_waits_for_it() -> None:
    desk = running()
    desk.killed(1)
    assert desk.ready(0, after_round=0) == []
    assert desk.ready(1) == [opened(1, 1, (0, 1))]


def test_another_round_while_stopping_does_not_undo_the_stop() -> None:
    desk = running()
    assert desk.cancel() == [Wish("cancelled")]
    assert desk.ready(1, after_round=0) == [opened(1, 1)]
    assert desk.state == "stopping"
    assert desk.all_leave("ended", 4) == [Finish("cancelled", "cancelled", Left("ended", 4))]


def test_nobody_is_given_a_round_who_is_told_to_leave() -> None:
    desk = running()
    desk.cancel()
    desk.cancel()
    assert desk.ready(1, after_round=0) == []


# Launches that are refused


def test_a_refused_launch_is_tried_again_later_each_time() -> None:
    desk = Desk()
    desk.start()
    desk.ready(0)
    for wait_s in (1.0, 2.0, 4.0):
        assert desk.refused(1) == []
        assert desk.live(wait_s - 0.1) == []
        assert desk.live(0.1) == [relaunch(1, 1, 0)]
    assert [record["again_in_s"] for record in desk.records("launch_failed")] == [1.0, 2.0, 4.0]
    assert desk.ready(1) == [opened(1, 0)]


def test_a_launch_that_is_refused_for_too_long_fails_the_run_which_does_not_wait_for_that_function() -> None:
    desk = Desk(start_deadline_s=5.0)
    desk.start()
    desk.ready(0)
    for wait_s in (1.0, 2.0):
        desk.refused(1)
        desk.live(wait_s)
    assert desk.refused(1) == [StopWorkers()]
    failure = failure_of(desk.exited(0))
    assert (failure.kind, failure.hint) == ("CloudError", "ask for more")
    assert failure.message == "rank 1 could not be launched: quota exceeded"


def test_a_launch_that_was_refused_is_not_tried_again_without_the_money_for_it() -> None:
    desk = Desk(budget_usd=2.0)
    desk.worker_usd = 0.5
    desk.start()
    desk.ready(0)
    assert desk.refused(1) == []
    assert desk.live(1.0, usd=1.6) == [StopWorkers()]
    assert desk.exited(0) == [Finish("stopped", "budget")]


def test_a_start_counts_from_the_launch_that_was_not_refused() -> None:
    desk = Desk(start_deadline_s=60.0)
    desk.start()
    desk.ready(0)
    for wait_s in (1.0, 2.0, 4.0, 8.0, 10.0, 10.0):
        desk.refused(1)
        desk.live(wait_s)
    assert desk.live(60.0) == []
    assert desk.live(0.1) == [Kill(Address(1, 1)), relaunch(1, 1, 1)]


def test_a_launch_that_is_refused_while_stopping_is_not_waited_for() -> None:
    desk = Desk()
    desk.start()
    desk.refused(0)
    assert desk.cancel() == [StopWorkers(), KillWorkers()]
    assert desk.tick(10.0) == []
    assert desk.refused(1) == [Finish("cancelled", "cancelled")]


# Money


def test_a_rank_is_not_replaced_without_the_money_to_stop_it_cleanly() -> None:
    for usd, commands in ((1.8, [relaunch(1, 1, 1)]), (1.9, [StopWorkers()])):
        desk = running(budget_usd=2.0)
        desk.worker_usd = 0.2
        desk.live(1.0, usd)
        assert desk.killed(1) == commands


def test_what_was_launched_since_the_ledger_was_read_is_counted() -> None:
    desk = running(workers=3, budget_usd=2.0)
    desk.worker_usd = 0.2
    desk.live(1.0, usd=1.7)
    assert desk.killed(0) == [relaunch(1, 0, 1, workers=3)]
    assert desk.killed(1) == [StopWorkers()]
    assert desk.exited(0) == []
    assert desk.left(2, "stopped") == [Finish("stopped", "budget")]


def test_a_run_does_not_begin_without_the_money_to_end_it() -> None:
    for workers, expected in ((2, launches(1, 2)), (3, [Finish("stopped", "budget")])):
        desk = Desk(workers=workers, budget_usd=2.0)
        desk.usd, desk.worker_usd = 1.5, 0.2
        assert desk.start() == expected


# What was committed


def test_steps_that_rank_0_died_before_telling_are_told_by_others() -> None:
    desk = running()
    desk.steps(3, 4, rank=1)
    desk.killed(0)
    desk.ready(0)
    desk.steps(5)
    assert [item["step"] for record in desk.records("steps") for item in record["items"]] == [0, 1, 2, 3, 4, 5]
    assert desk.records("rolled_back") == []


def test_a_step_that_is_made_again_is_told_as_that() -> None:
    desk = running()
    desk.killed(0)
    desk.ready(0)
    desk.steps(2, 3)
    assert desk.records("rolled_back") == [{"step": 2}]
    assert desk.records("round_opened")[-1] == {"generation": 1, "round": 1, "workers": 2, "step": 3}


def test_a_checkpoint_that_is_told_late_by_who_was_lost_is_not_gone_back_to() -> None:
    desk = running()
    stale = desk.address(0)
    desk.killed(0)
    desk.ready(0)
    desk.checkpointed(20)
    desk.checkpointed(10, at=stale)
    desk.checkpointed(30, at=stale)
    desk.killed(1)
    assert desk.ready(1) == [opened(1, 2, (1, 1), resume_from="checkpoints/30/manifest")]
    assert [record["step"] for record in desk.records("checkpointed")] == [20, 30]


def test_what_one_has_done_alone_who_was_thought_lost_is_gone_on_from() -> None:
    """It was frozen, and no round without it was open when it went on."""
    desk = running(workers=1)
    stale = desk.address(0)
    desk.killed(0)
    desk.steps(3, 4, at=stale)
    desk.checkpointed(5, at=stale)
    assert desk.ready(0) == [opened(1, 1, (1,), resume_from="checkpoints/5/manifest")]
    desk.steps(5)
    assert [item["step"] for record in desk.records("steps") for item in record["items"]] == [0, 1, 2, 3, 4, 5]
    assert desk.records("rolled_back") == []


def test_steps_that_one_tells_late_who_was_thought_lost_are_no_step_back() -> None:
    desk = running()
    stale = desk.address(0)
    desk.killed(0)
    desk.ready(0)
    desk.steps(3, 4, 5)
    desk.steps(3, 4, at=stale)
    desk.steps(6)
    assert [item["step"] for record in desk.records("steps") for item in record["items"]] == list(range(7))
    assert desk.records("rolled_back") == []


def test_a_checkpoint_of_an_earlier_generation_is_not_gone_on_from() -> None:
    desk = running()
    stale = desk.address(0)
    desk.all_leave("ended", 3)
    desk.checkpointed(9, at=stale)
    assert desk.all_ready() == [opened(2, 0)]


def test_a_checkpoint_that_cannot_be_read_is_looked_for_again() -> None:
    desk = running(workers=1)
    desk.checkpointed(20)
    assert desk.failed(0, Failure("CorruptObject", "digest", "", "")) == [
        FindState(),
        Kill(Address(1, 0)),
        relaunch(1, 0, 1, workers=1),
    ]
    assert desk.tell(StateFound("checkpoints/10/manifest")) == []
    assert desk.ready(0) == [opened(1, 1, (1,), resume_from="checkpoints/10/manifest")]
    desk.checkpointed(15)
    desk.killed(0)
    assert desk.ready(0) == [opened(1, 2, (2,), resume_from="checkpoints/15/manifest")]


@pytest.mark.parametrize(("lived_s", "told"), [(19.0, "killed by signal 9"), (21.0, "its time limit of 20 s came")])
def test_of_a_function_that_came_to_its_time_limit_the_limit_is_named(lived_s: float, told: str) -> None:
    desk = running(workers=1, time_limit_s=20.0, exchange_every=1000)
    desk.live(lived_s)
    desk.killed(0)
    assert desk.records("lost")[-1]["detail"].startswith(told)


def test_losses_of_the_next_generation_are_none_of_the_current_one() -> None:
    desk = Desk(time_limit_s=60.0, max_losses=3)
    desk.run(start_s=10.0)
    desk.steps(0)
    assert desk.live(33.0) == launches(2, 2)
    for _ in range(3):
        desk.killed(1, generation=2)
    assert desk.killed(1) == [relaunch(1, 1, 1)]

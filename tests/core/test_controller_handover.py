"""The run's machine: generations take over from each other, at a time limit or for another number of workers."""

from __future__ import annotations

from smlt.core.messages import Left
from smlt.core.run_events import Address, Finish, Kill, KillWorkers, PlanChanged, ScaleRequested, StopWorkers, Wish
from tests.support.events import FAILURE, PASSING, TOTAL_STEPS, Desk, launches, opened, relaunch


def relay(**terms: float) -> Desk:
    """Trains under a time limit of 60 s; from 59 s on, 2 s for writing the state leave room for two steps of 0.1 s."""
    desk = Desk(**{"time_limit_s": 60.0, "start_s": 5.0, **terms})
    desk.run(start_s=5.0)
    desk.steps(0)
    return desk


def made_ready() -> Desk:
    """Its next generation is launched, and not READY yet."""
    desk = relay()
    assert desk.live(45.0) == []
    assert desk.live(0.5) == launches(2, 2)  # 7.5 s to start, 2.2 s to end the generation before
    assert desk.state == "handing_over"
    return desk


# Prepared


def test_the_next_generation_is_launched_ahead_and_takes_over_once_it_is_ready() -> None:
    desk = made_ready()
    assert desk.records("hand_over") == [{"generation": 2, "workers": 2, "reason": "time limit"}]
    assert desk.live(1.0) == desk.ready(1, generation=2) == []
    assert desk.ready(0, generation=2) == [Wish("hand over")]
    assert desk.live(0.1) == []
    desk.steps(1, 2)
    desk.checkpointed(3)
    assert desk.left(1, "ended", 3) == []
    assert desk.left(0, "ended", 3) == [opened(2, 0, resume_from="checkpoints/3/manifest")]
    assert desk.state == "running"
    desk.steps(3)
    (handed_over,) = desk.records("handed_over")
    assert handed_over["generation"] == 2
    assert [item["step"] for record in desk.records("steps") for item in record["items"]] == [0, 1, 2, 3]


def test_the_stall_is_from_the_last_step_of_one_to_the_first_of_the_other() -> None:
    desk = made_ready()
    desk.all_ready(generation=2)
    desk.steps(1, seconds=1.0)  # ended at 2 s
    desk.all_leave("ended", 2)
    desk.steps(4, seconds=1.0)  # from 4 s to 5 s
    assert desk.records("handed_over") == [{"generation": 2, "stall_s": 2.0}]


def test_steps_that_only_another_rank_told_are_no_part_of_the_stall() -> None:
    desk = made_ready()
    desk.all_ready(generation=2)
    desk.steps(1, 2, 3, rank=1, seconds=1.0)  # ended at 4 s
    desk.killed(0)
    desk.all_leave("ended", 4)
    desk.all_ready(generation=2)
    desk.steps(4, seconds=1.0)
    assert desk.records("handed_over") == [{"generation": 2, "stall_s": 0.0}]


def test_the_lead_follows_from_how_long_a_start_takes() -> None:
    desk = Desk(time_limit_s=60.0, start_s=5.0)
    desk.run(start_s=10.0)
    desk.steps(0)
    assert desk.live(32.7) == []
    assert desk.live(0.2) == launches(2, 2)


def test_a_lead_is_never_longer_than_half_of_what_a_function_can_work() -> None:
    desk = Desk(time_limit_s=20.0)
    desk.run(start_s=6.0)
    desk.steps(0)
    assert desk.live(2.85) == []
    assert desk.live(0.2) == launches(2, 2)


def test_an_end_is_forced_where_the_next_generation_is_not_ready_in_time() -> None:
    desk = made_ready()
    assert desk.live(7.2) == []
    assert desk.live(0.2) == [Wish("time limit")]
    assert desk.ready(0, generation=2) == []
    desk.checkpointed(3)
    assert desk.all_leave("ended", 3) == []
    assert desk.state == "starting"
    assert desk.ready(1) == [opened(2, 0, resume_from="checkpoints/3/manifest")]


def test_a_ready_rank_that_is_lost_is_replaced_and_holds_up_nobody() -> None:
    desk = made_ready()
    desk.ready(0, generation=2)
    assert desk.killed(0, generation=2) == [relaunch(2, 0, 1)]
    assert desk.state == "handing_over"
    assert desk.ready(1, generation=2) == []
    assert desk.ready(0, generation=2) == [Wish("hand over")]
    assert desk.all_leave("ended") == [opened(2, 0, (1, 0))]


def test_a_ready_rank_that_is_lost_after_the_wish_is_waited_for() -> None:
    desk = made_ready()
    desk.all_ready(generation=2)
    assert desk.killed(1, generation=2) == [relaunch(2, 1, 1)]
    assert desk.all_leave("ended") == []
    assert desk.state == "starting"
    assert desk.ready(1) == [opened(2, 0, (0, 1))]


def test_an_old_rank_that_is_lost_meanwhile_is_replaced_and_the_wish_still_stands() -> None:
    desk = made_ready()
    desk.all_ready(generation=2)
    assert desk.killed(0) == [relaunch(1, 0, 1)]
    assert desk.state == "recovering"
    assert desk.ready(0) == [opened(1, 1, (1, 0))]
    assert desk.state == "handing_over"
    assert desk.all_leave("ended", 4) == [opened(2, 0)]


def test_where_nobody_of_the_old_generation_is_left_the_next_one_goes_on_at_once() -> None:
    desk = made_ready()
    desk.checkpointed(1)
    desk.all_ready(generation=2)
    assert desk.killed(0) == [relaunch(1, 0, 1)]
    assert desk.killed(1) == [Kill(Address(1, 0, 1)), opened(2, 0, resume_from="checkpoints/1/manifest")]
    assert desk.state == "running"


def test_where_nobody_is_left_the_next_one_goes_on_as_soon_as_it_is_ready() -> None:
    desk = made_ready()
    desk.killed(0)
    assert desk.killed(1) == [Kill(Address(1, 0, 1))]
    assert desk.state == "starting"
    assert desk.all_ready() == [opened(2, 0)]


def test_the_goal_that_is_reached_meanwhile_ends_the_run_and_the_next_generation() -> None:
    desk = made_ready()
    desk.ready(0, generation=2)
    assert desk.all_leave("goal", 9) == [
        Kill(Address(2, 0)),
        Kill(Address(2, 1)),
        Finish("succeeded", "goal", Left("goal", 9)),
    ]


def test_a_user_who_cancels_wants_no_next_generation() -> None:
    desk = made_ready()
    desk.all_ready(generation=2)
    assert desk.cancel() == [Kill(Address(2, 0)), Kill(Address(2, 1)), Wish("cancelled")]
    assert desk.exited(0, generation=2) == desk.exited(1, generation=2) == []
    assert desk.all_leave("ended", 4) == [Finish("cancelled", "cancelled", Left("ended", 4))]


def test_no_other_generation_is_launched_where_the_job_ends_before() -> None:
    for steps_left, expected in ((70, []), (80, launches(2, 2))):
        desk = relay()
        desk.steps(TOTAL_STEPS - steps_left - 1)  # 0.1 s each, and 2.2 s to end in order; 9.5 s are left
        assert desk.live(45.5) == expected


def test_no_other_generation_is_launched_where_the_deadline_comes_before() -> None:
    desk = relay(deadline_s=59.0)
    assert desk.live(50.0) == []
    assert desk.live(1.9) == [Wish("deadline")]


def test_a_function_that_may_not_live_as_long_as_it_takes_to_end_it_is_a_mistake_of_the_job() -> None:
    desk = relay()
    desk.steps(1, 2, seconds=30.0)
    assert desk.live(1.0) == [StopWorkers()]
    (finish,) = desk.all_leave("stopped") + desk.all_exit()
    assert isinstance(finish, Finish)
    assert finish.failure is not None
    assert (finish.status, finish.failure.kind) == ("failed", "ConfigError")
    assert "a function may live 60 s here" in finish.failure.message
    assert "62 s: 2 steps" in finish.failure.message


def test_one_save_that_took_long_is_no_reason_to_end_early_or_to_fail() -> None:
    desk = relay()
    desk.steps(1, 2)
    for step, seconds in ((1, 0.2), (2, 65.0), (3, 0.2)):
        desk.checkpointed(step, seconds)
    assert desk.live(1.0) == []
    assert desk.records("failed") == []


# What fails of it


def test_a_next_generation_that_fails_is_done_without_and_the_run_goes_on() -> None:
    """Two generations may not fit where one does."""
    desk = made_ready()
    assert desk.failed(1, FAILURE, generation=2) == [Kill(Address(2, 0))]
    assert desk.records("hand_over_failed") == [{"detail": "it broke"}]
    assert desk.state == "running"
    assert desk.live(1.0) == []
    assert desk.live(7.0) == [Wish("time limit")]
    assert desk.all_leave("ended", 4) == launches(3, 2)


def test_after_a_next_generation_that_failed_the_one_after_it_is_launched_ahead_again() -> None:
    desk = made_ready()
    desk.failed(1, FAILURE, generation=2)
    desk.live(8.0)
    desk.all_leave("ended", 4)
    desk.all_ready()
    assert launches(4, 2)[0] in [*desk.live(50.0), *desk.live(2.0)]


def test_a_next_generation_whose_rank_is_lost_again_and_again_is_done_without() -> None:
    desk = made_ready()
    for incarnation in (1, 2, 3):
        assert desk.killed(0, generation=2) == [relaunch(2, 0, incarnation)]
    assert desk.killed(0, generation=2) == [Kill(Address(2, 1))]
    assert desk.state == "running"
    assert desk.killed(1) == [relaunch(1, 1, 1)]


def test_a_passing_error_in_the_next_generation_costs_that_rank_only() -> None:
    desk = made_ready()
    assert desk.failed(1, PASSING, generation=2) == [Kill(Address(2, 1)), relaunch(2, 1, 1)]


def test_a_launch_ahead_that_is_refused_is_tried_again_for_as_long_as_the_old_ones_work() -> None:
    desk = Desk(time_limit_s=600.0, start_deadline_s=60.0)
    desk.run(start_s=150.0)
    desk.steps(0)
    assert desk.live(380.0 - 150.0) == launches(2, 2)
    desk.ready(0, generation=2)
    for wait_s in (1.0, 2.0, 4.0, 8.0, *[10.0] * 10):
        assert desk.refused(1, generation=2) == []
        desk.now += wait_s
        desk.beat(0, "ready", generation=2)
        assert desk.live(0.0) == [relaunch(2, 1, 0)]
    assert desk.state == "handing_over"


def test_what_was_refused_is_tried_at_once_when_the_old_ones_are_gone() -> None:
    desk = made_ready()
    desk.refused(1, generation=2)
    desk.ready(0, generation=2)
    desk.live(1.0)
    desk.refused(1, generation=2)
    assert desk.all_leave("ended", 3) == []
    assert desk.tick() == [relaunch(2, 1, 0)]
    assert desk.ready(1) == [opened(2, 0)]


def test_old_functions_that_stay_after_their_last_word_are_ended() -> None:
    desk = made_ready()
    desk.all_ready(generation=2)
    desk.all_leave("ended", 3)
    assert desk.exited(0, generation=1) == []
    assert desk.live(5.0) == []
    assert desk.live(0.1) == [Kill(Address(1, 1))]
    assert desk.live(10.0) == []


def test_what_an_old_generation_says_late_is_no_news() -> None:
    desk = made_ready()
    desk.all_ready(generation=2)
    desk.all_leave("ended", 3)
    assert desk.ready(0, generation=1, after_round=0) == desk.failed(0, generation=1) == []
    assert desk.left(1, "stopped", generation=1) == desk.killed(0, generation=1) == []
    assert desk.steps(7, at=Address(1, 0)) == []
    assert desk.state == "running"
    desk.steps(1)
    assert [item["step"] for record in desk.records("steps") for item in record["items"]] == [0, 1]


# Where the quota does not allow it


def test_without_room_for_both_one_generation_follows_the_other() -> None:
    desk = relay(max_workers=3, has_private=True)
    assert desk.live(52.7) == []
    assert desk.live(0.2) == [Wish("time limit")]
    assert desk.state == "handing_over"
    desk.checkpointed(3)
    assert desk.left(0, "ended", 3) == desk.exited(0) == []
    assert desk.left(1, "ended", 3) == launches(2, 2)
    assert desk.state == "starting"
    assert desk.all_ready() == [opened(2, 0, resume_from="checkpoints/3/manifest")]
    assert desk.state == "running"


def test_those_who_have_left_make_room_before_others_are_launched() -> None:
    desk = relay(max_workers=3)
    desk.live(53.0)
    assert desk.all_leave("ended", 3) == launches(2, 1, workers=2)
    assert [record["rank"] for record in desk.records("launched")] == [0, 1, 0, 1]
    assert desk.tick(0.1) == []
    assert desk.exited(0, generation=1) == []
    assert desk.tick(0.1) == [relaunch(2, 1, 0)]


def test_the_wish_leaves_time_for_two_steps_and_the_state() -> None:
    for step_s, last_s in ((0.5, 56.9), (20.0, 17.9)):
        desk = Desk(time_limit_s=60.0, state_write_s=2.0, max_workers=2)
        desk.run()
        desk.steps(0, seconds=step_s)
        assert desk.live(last_s) == []
        assert desk.live(0.2) == [Wish("time limit")]


def test_a_state_that_took_long_to_write_is_given_more_time() -> None:
    desk = relay(max_workers=3, has_private=True)
    desk.checkpointed(1, seconds=10.0)
    assert desk.live(39.7) == []
    assert desk.live(0.2) == [Wish("time limit")]


# Another number of workers


def test_more_workers_make_ready_while_the_old_ones_go_on() -> None:
    desk = Desk()
    desk.run()
    assert desk.scale(4) == launches(2, 4)
    assert desk.records("scale") == [{"workers": 4}]
    assert desk.records("hand_over") == [{"generation": 2, "workers": 4, "reason": "scale"}]
    assert desk.all_ready(generation=2) == [Wish("hand over")]
    assert desk.all_leave("ended", 3) == [opened(2, 0, (0, 0, 0, 0))]


def test_fewer_workers_too() -> None:
    desk = Desk()
    desk.run()
    assert desk.scale(1) == launches(2, 1)
    assert desk.ready(0, generation=2) == [Wish("hand over")]
    assert desk.all_leave("ended", 3) == [opened(2, 0, (0,))]


def test_a_number_that_does_not_fit_beside_the_old_one_follows_it() -> None:
    desk = Desk(max_workers=8)
    desk.run()
    assert desk.scale(7) == [Wish("scale")]
    assert desk.all_leave("ended", 3) == launches(2, 6, workers=7)
    assert desk.exited(1, generation=1) == []
    assert desk.tick() == [relaunch(2, 6, 0, workers=7)]


def test_a_number_that_is_wanted_before_the_run_has_begun_comes_after_the_first_round() -> None:
    desk = Desk()
    desk.start()
    assert desk.scale(3) == []
    assert desk.all_ready() == [opened(1, 0)]
    assert desk.live(0.1) == launches(2, 3)


def test_a_number_that_is_wanted_while_a_rank_is_replaced_comes_after_that() -> None:
    desk = Desk()
    desk.run()
    desk.killed(1)
    assert desk.scale(3) == desk.live(0.1) == []
    desk.ready(1)
    assert desk.live(0.1) == launches(2, 3)


def test_another_number_during_a_hand_over_replaces_the_generation_that_makes_ready() -> None:
    desk = made_ready()
    assert desk.scale(3) == [Kill(Address(2, 0)), Kill(Address(2, 1)), *launches(3, 3)]
    assert desk.all_ready(generation=3) == [Wish("hand over")]
    assert desk.all_leave("ended", 3) == [opened(3, 0, (0, 0, 0))]


def test_another_number_after_the_wish_comes_when_the_old_ones_have_ended() -> None:
    desk = made_ready()
    desk.all_ready(generation=2)
    assert desk.scale(3) == [Kill(Address(2, 0)), Kill(Address(2, 1))]
    assert desk.all_leave("ended", 3) == launches(3, 3)


def test_another_number_right_after_a_hand_over_comes_when_the_old_ones_are_gone() -> None:
    desk = Desk(max_workers=6)
    desk.run()
    desk.scale(3)
    desk.all_ready(generation=2)
    assert desk.all_leave("ended", 3) == [opened(2, 0, (0, 0, 0))]
    assert desk.scale(2) == desk.live(0.1) == desk.exited(0, generation=1) == []
    assert desk.exited(1, generation=1) == []
    assert desk.live(0.1) == launches(3, 2)


def test_who_changes_their_mind_needs_no_hand_over() -> None:
    desk = Desk()
    desk.run()
    desk.scale(4)
    assert desk.scale(2) == [Kill(Address(2, rank)) for rank in range(4)]
    assert desk.state == "running"
    assert desk.live(1.0) == desk.scale(2) == []


def test_more_workers_than_the_budget_pays_for_are_refused() -> None:
    desk = Desk(budget_usd=2.0, max_workers=12)
    desk.worker_usd = 0.1
    desk.run()
    desk.tick(usd=1.2)
    assert desk.tell(ScaleRequested(desk.now, 8, order=0)) != []
    assert desk.records("order")[0]["refused"] == ""
    desk.tick(usd=1.3)
    desk.tell(ScaleRequested(desk.now, 9, order=1))
    assert desk.records("order")[1]["refused"] == "the budget does not pay for 9 workers"


def test_a_number_that_the_platform_or_the_batch_does_not_allow_is_refused() -> None:
    desk = Desk(max_workers=8, max_ranks=6)
    desk.run()
    assert desk.scale(0) == desk.scale(7) == []
    assert desk.records("scale") == []


def test_another_number_while_stopping_is_refused() -> None:
    desk = Desk()
    desk.run()
    desk.cancel()
    assert desk.scale(3) == []
    assert desk.cancel() == [StopWorkers()]
    assert desk.scale(3) == []
    assert desk.cancel() == [KillWorkers()]


# Money


def test_no_generation_is_launched_ahead_without_the_money_to_stop_it_cleanly() -> None:
    for usd, expected in ((1.6, launches(2, 2)), (1.7, [])):
        desk = relay(budget_usd=2.0)
        desk.worker_usd = 0.2
        desk.now += 46.0
        assert desk.live(0.0, usd) == expected


def test_a_generation_that_cannot_be_paid_for_is_not_launched_after_the_old_one() -> None:
    desk = relay(budget_usd=2.0, max_workers=2)
    desk.worker_usd = 0.2
    desk.live(53.0, usd=1.7)
    assert desk.all_leave("ended", 4) == [Finish("stopped", "budget")]


def test_more_workers_than_the_budget_allows_wait_for_more_money() -> None:
    desk = Desk(budget_usd=2.0)
    desk.run()
    desk.worker_usd = 0.2
    desk.live(1.0, usd=1.5)
    assert desk.scale(4) == []
    assert desk.live(1.0, usd=1.5) == []
    assert desk.state == "running"


def test_the_next_generation_s_rank_is_not_replaced_without_the_money_and_the_run_goes_on() -> None:
    desk = relay(budget_usd=2.0)
    desk.worker_usd = 0.2
    desk.live(46.0, usd=1.0)
    assert desk.live(0.1, usd=1.9) == []
    assert desk.killed(0, generation=2) == [Kill(Address(2, 1))]
    assert desk.state == "running"


# Another plan


def test_another_plan_is_taken_over_by_the_door_of_a_hand_over() -> None:
    desk = Desk()
    desk.run()
    desk.steps(0)
    assert desk.tell(PlanChanged(desk.now, 3, 2048, {"trigger": "drift"})) == []
    assert desk.records("replanned") == [{"workers": 3, "memory_mib": 2048, "trigger": "drift"}]
    commands = desk.live(0.1)
    assert [(command.address, command.workers, command.memory_mib) for command in commands] == [
        (Address(2, rank), 3, 2048) for rank in range(3)
    ]
    desk.all_ready(generation=2)
    desk.all_leave("ended", 1)
    assert desk.state == "running"
    assert desk.live(5.0) == []


def test_another_size_alone_is_another_plan() -> None:
    desk = Desk()
    desk.run()
    desk.steps(0)
    desk.tell(PlanChanged(desk.now, 2, 2048))
    assert {command.memory_mib for command in desk.live(0.1)} == {2048}


def test_a_plan_comes_to_nothing_while_another_is_on_its_way_or_too_many_workers_are_asked_for() -> None:
    desk = Desk()
    desk.run()
    desk.steps(0)
    desk.tell(PlanChanged(desk.now, 9, 1024))
    assert desk.records("replanned") == []
    desk.tell(PlanChanged(desk.now, 3, 1024))
    desk.tell(PlanChanged(desk.now, 4, 1024))
    assert [data["workers"] for data in desk.records("replanned")] == [3]


def test_a_plan_that_the_budget_does_not_pay_is_not_changed_to() -> None:
    desk = Desk(budget_usd=10.0)
    desk.worker_usd = 1.0
    desk.run()
    desk.steps(0)
    desk.tick(usd=8.0)
    desk.tell(PlanChanged(desk.now, 5, 1024))
    assert desk.records("replanned") == []

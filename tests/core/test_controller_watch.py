"""The run's machine: who is lost without a word: silent, stuck, stalled, slow; and who is not."""

from __future__ import annotations

import pytest

from smlt.core.run_events import Address, Kill, KillWorkers, StopWorkers
from smlt.core.stragglers import LOOKS
from tests.support.events import Desk, failure_of, opened, relaunch, running

# Silence


def test_a_rank_that_is_not_heard_of_is_lost() -> None:
    desk = running(silence_s=5.0)
    desk.all_beat()
    desk.now += 5.0
    desk.beat(0)
    assert desk.tick() == []
    desk.beat(0)
    assert desk.tick(0.1) == [Kill(Address(1, 1)), relaunch(1, 1, 1)]
    assert "it was not heard of for 5 s" in desk.records("lost")[0]["detail"]


def test_a_rank_that_builds_its_task_may_be_silent_for_longer() -> None:
    desk = Desk(silence_s=5.0)
    desk.start()
    desk.all_beat("building")
    assert desk.tick(30.0) == []
    assert desk.tick(0.1) == [command for rank in (0, 1) for command in (Kill(Address(1, rank)), relaunch(1, rank, 1))]


def test_a_rank_that_is_never_ready_is_launched_again_and_fails_the_run_in_the_end() -> None:
    desk = Desk(start_deadline_s=60.0, max_losses=1)
    desk.start()
    desk.ready(0)
    desk.live(60.0)
    assert desk.live(0.1) == [Kill(Address(1, 1)), relaunch(1, 1, 1)]
    assert desk.live(60.0) == []
    assert desk.live(0.1) == [Kill(Address(1, 1, 1)), StopWorkers()]
    assert desk.tick(5.1) == [KillWorkers()]
    assert "rank 1 was lost at step 0: it did not start within 60 s" in failure_of(desk.exited(0)).message


def test_a_store_out_of_reach_makes_nobody_lost() -> None:
    desk = running()
    desk.all_beat("computing")
    desk.beat(1, "waiting for sum")
    assert desk.tick(60.0, blind=True) == []
    assert desk.tick(4.9) == []
    desk.beat(0, "saving", phase_s=64.9)
    desk.beat(1, "waiting for save", phase_s=64.9)
    assert desk.tick() == []
    assert desk.records("lost") == []


def test_a_store_out_of_reach_makes_no_start_late() -> None:
    desk = Desk(start_deadline_s=60.0)
    desk.start()
    assert desk.tick(70.0, blind=True) == []
    assert desk.tick(59.0) == []


def test_who_is_silent_after_the_store_is_back_is_lost() -> None:
    desk = running()
    desk.all_beat()
    desk.tick(60.0, blind=True)
    desk.now += 5.1
    desk.beat(0)
    assert desk.tick() == [Kill(Address(1, 1)), relaunch(1, 1, 1)]


# Stuck and stalled


def stuck(desk: Desk, phase: str, seconds: float) -> list:
    """Rank 0 is in a phase for so long, while the others wait for it."""
    desk.now += seconds
    desk.beat(0, phase, seconds)
    for rank in range(1, desk.workers()):
        desk.beat(rank, "waiting for sum", seconds / 2)
    return desk.tick()


def test_a_rank_that_builds_its_task_anew_has_as_long_as_for_the_first_time() -> None:
    desk = running(stuck_s=5.0, start_deadline_s=60.0)
    desk.steps(1, 2)
    assert stuck(desk, "building", 59.0) == []
    assert stuck(desk, "building", 60.1) == [Kill(Address(1, 0)), relaunch(1, 0, 1)]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_rank_that_all_others_wait_for_is_stuck_after_a_while(workers: int) -> None:
    desk = running(workers, stuck_s=5.0)
    assert stuck(desk, "computing", 5.0) == []
    assert stuck(desk, "computing", 5.1) == [Kill(Address(1, 0)), relaunch(1, 0, 1, workers)]
    assert desk.records("lost")[0]["detail"] == "it is stuck in 'computing' while all others wait"


def test_a_rank_is_no_suspect_as_long_as_another_is_busy_too() -> None:
    desk = running(workers=3)
    desk.now += 60.0
    desk.beat(0, "computing", 60.0)
    desk.beat(1, "computing", 60.0)
    desk.beat(2, "waiting for sum", 60.0)
    assert desk.tick() == []


def test_ranks_that_are_stuck_together_are_lost_in_the_end() -> None:
    desk = running(workers=3, stuck_s=5.0, slow_phase_s=60.0)
    desk.now += 75.1
    desk.beat(0, "computing", 75.1)
    desk.beat(1, "computing", 75.1)
    desk.beat(2, "waiting for sum", 75.0)
    assert [command for command in desk.tick() if isinstance(command, Kill)] == [
        Kill(Address(1, 0)),
        Kill(Address(1, 1)),
    ]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_rank_that_does_not_come_to_the_round_is_stuck(workers: int) -> None:
    """It was READY long before; what counts is since when the round is open."""
    desk = Desk(workers=workers, stuck_s=5.0)
    desk.run()
    desk.tick()
    for seconds, told in ((5.0, []), (0.1, [Kill(Address(1, 0)), relaunch(1, 0, 1, workers)])):
        desk.now += seconds
        desk.beat(0, "ready", 1000.0)
        for rank in range(1, workers):
            desk.beat(rank, "waiting for hello", 1.0)
        assert desk.tick() == told


def test_slow_steps_are_given_more_time() -> None:
    desk = running()
    desk.steps(3, rank=1, seconds=10.0)
    desk.steps(3, 4, 5, seconds=10.0)
    assert stuck(desk, "computing", 50.0) == []
    assert stuck(desk, "computing", 50.1) == [Kill(Address(1, 0)), relaunch(1, 0, 1)]


@pytest.mark.parametrize("phase", ["evaluating", "saving", "loading", "serving", "leaving"])
@pytest.mark.parametrize("workers", [1, 2])
def test_phases_that_take_as_long_as_they_take_are_given_a_minute(phase: str, workers: int) -> None:
    desk = running(workers, slow_phase_s=60.0)
    assert stuck(desk, phase, 60.0) == []
    assert stuck(desk, phase, 60.1) == [Kill(Address(1, 0)), relaunch(1, 0, 1, workers)]


def test_an_evaluation_that_took_long_is_given_longer() -> None:
    desk = running()
    desk.evaluated(3, seconds=30.0)
    assert stuck(desk, "evaluating", 150.0) == []
    assert stuck(desk, "evaluating", 150.1) != []


def test_a_first_evaluation_is_measured_by_steps() -> None:
    """20 examples to evaluate; a step has 8, and 40 s of that are 5 times what they take."""
    desk = running()
    desk.steps(*range(3, 103), seconds=16.0)
    assert stuck(desk, "evaluating", 200.0) == []
    assert stuck(desk, "evaluating", 200.1) != []


def test_a_state_that_took_long_to_write_may_take_so_again() -> None:
    desk = running()
    desk.checkpointed(3, seconds=20.0)
    assert stuck(desk, "saving", 100.0) == []
    assert stuck(desk, "saving", 100.1) != []


@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_step_of_all_may_compile(workers: int) -> None:
    desk = Desk(workers=workers, start_deadline_s=60.0)
    desk.run()
    assert stuck(desk, "computing", 60.0) == []
    assert stuck(desk, "computing", 60.1) == [Kill(Address(1, 0)), relaunch(1, 0, 1, workers)]


def test_the_first_step_of_a_replacement_may_take_as_long_as_first_steps_do() -> None:
    desk = Desk()
    desk.run()
    desk.steps(0, seconds=4.0)
    desk.steps(0, rank=1, seconds=4.0)
    desk.steps(*range(1, 101))
    desk.killed(0)
    desk.ready(0)
    assert stuck(desk, "computing", 20.0) == []
    assert stuck(desk, "computing", 20.1) == [Kill(Address(1, 0, 1)), relaunch(1, 0, 2)]


def test_a_rank_is_not_stuck_in_what_it_did_before_the_round_opened() -> None:
    desk = running()
    desk.killed(1)
    desk.beat(0, "computing", 4.9)
    desk.ready(1)
    desk.beat(1, "waiting for hello")
    assert desk.tick(0.2) == []


def test_a_rank_that_still_waits_in_the_round_before_is_the_one_that_is_stuck() -> None:
    desk = running(stuck_s=5.0, slow_phase_s=60.0)
    desk.now += 10.0
    desk.killed(1)
    desk.ready(1)
    for seconds, told in ((5.0, []), (0.1, [Kill(Address(1, 0)), relaunch(1, 0, 1)])):
        desk.now += seconds
        desk.beat(0, "waiting for sum", 1000.0)
        desk.beat(1, "waiting for hello", 1.0)
        assert desk.tick() == told


def held_up(desk: Desk, look: int, usd: float = 0.0) -> list:
    """20 more steps, in each of which rank 0 waits for rank 1."""
    for rank, compute_s in ((1, 4.0), (0, 1.0)):
        desk.steps(*range(20 * look, 20 * look + 20), rank=rank, seconds=5.0, compute_s=compute_s)
    return desk.live(0.1, usd)


def test_a_slow_rank_is_replaced_where_that_pays_and_can_be_paid() -> None:
    for usd, told in ((1.0, [Kill(Address(1, 1)), relaunch(1, 1, 1)]), (1.9, [])):
        desk = Desk(budget_usd=2.0)
        desk.run(start_s=1.0)
        desk.worker_usd = 0.2
        assert [held_up(desk, look, usd) for look in range(LOOKS)] == [*[[]] * (LOOKS - 1), told]
        assert [record["replaced"] for record in desk.records("straggler")] == [bool(told)]


def test_a_slow_rank_is_let_be_where_its_generation_is_about_to_end() -> None:
    desk = Desk()
    desk.run(start_s=1.0)
    desk.scale(3)
    assert [held_up(desk, look) for look in range(2 * LOOKS)] == [[]] * 2 * LOOKS
    assert desk.records("straggler") == []


def test_ranks_that_all_wait_for_each_other_get_another_round() -> None:
    desk = running(stuck_s=5.0, slow_phase_s=60.0, max_losses=1)
    desk.now += 70.0
    desk.all_beat("waiting for sum", 70.0)
    assert desk.tick() == []
    desk.all_beat("waiting for sum", 70.0)
    assert desk.tick(0.1) == [opened(1, 1)]
    assert desk.records("stalled") == [{"generation": 1, "round": 0}]
    assert desk.live(0.1) == []
    desk.all_beat("waiting for hello", 70.2)
    assert desk.tick() == [StopWorkers()]
    assert "all ranks waited for each other at step 3" in failure_of(desk.all_exit()).message


def test_a_hang_is_noticed_while_the_run_stops_softly() -> None:
    desk = running()
    desk.cancel()
    assert stuck(desk, "computing", 5.1) == [Kill(Address(1, 0)), StopWorkers()]


# Steps that take longer than those before


def test_who_was_taken_for_stuck_may_take_twice_as_long_the_next_time_until_a_step_comes_through() -> None:
    desk = running(workers=1, stuck_s=5.0)
    desk.steps(3)
    for incarnation, limit_s in enumerate((5.0, 10.0, 20.0)):
        assert stuck(desk, "computing", limit_s) == []
        assert stuck(desk, "computing", limit_s + 0.1) == [
            Kill(Address(1, 0, incarnation)), relaunch(1, 0, incarnation + 1, workers=1)
        ]  # fmt: skip
        desk.ready(0)
        desk.steps(3)  # made again, which is no progress
    desk.steps(4)
    assert stuck(desk, "computing", 5.1) == [Kill(Address(1, 0, 3)), relaunch(1, 0, 4, workers=1)]


def scaled_to_one() -> Desk:
    """Four ranks whose steps took 2 s, and then one."""
    desk = Desk(workers=4, max_workers=8, stuck_s=5.0)
    desk.run()
    for rank in range(4):
        desk.steps(0, rank=rank, seconds=2.0)
    desk.scale(1)
    desk.ready(0, generation=2)
    desk.all_leave("ended", 1)
    desk.all_exit(generation=1)
    assert (desk.generation, desk.workers()) == (2, 1)
    return desk


def test_fewer_ranks_may_take_longer_as_each_has_more_to_do() -> None:
    desk = scaled_to_one()
    assert stuck(desk, "computing", 40.0) == []
    assert stuck(desk, "computing", 40.1) == [Kill(Address(2, 0)), relaunch(2, 0, 1, workers=1)]


def test_what_steps_took_another_number_of_ranks_does_not_count() -> None:
    desk = scaled_to_one()
    desk.steps(1, seconds=0.1)
    assert stuck(desk, "computing", 5.1) == [Kill(Address(2, 0)), relaunch(2, 0, 1, workers=1)]


def test_a_batch_that_grows_may_take_longer() -> None:
    desk = running(workers=1, stuck_s=5.0, largest_batch=8 * 4)
    desk.steps(*range(3, 103), seconds=2.0)
    assert stuck(desk, "computing", 40.0) == []
    assert stuck(desk, "computing", 40.1) == [Kill(Address(1, 0)), relaunch(1, 0, 1, workers=1)]

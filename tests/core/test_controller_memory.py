"""The run's machine: ranks whose memory does not suffice, and how much those get that are launched from then on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from smlt.core.messages import Failure
from smlt.core.run_events import Address, Command, Finish, Kill, Launch, StopWorkers, Wish
from tests.support.events import Desk, failure_of, launches, opened, relaunch, running

SHORT = Failure("OutOfMemory", "build_model raised MemoryError (task.py:3)", "", "Traceback …")


def with_memory(commands: list[Command], memory_mib: int) -> list[Command]:
    return [replace(each, memory_mib=memory_mib) if isinstance(each, Launch) else each for each in commands]


def handing_over() -> Desk:
    """Trains under a time limit; the next generation is launched 46 s later."""
    desk = Desk(time_limit_s=60.0)
    desk.run(start_s=5.0)
    desk.steps(0)
    return desk


def test_who_says_that_its_memory_did_not_suffice_is_launched_again_with_more() -> None:
    desk = running()
    assert desk.failed(1, SHORT) == [Kill(Address(1, 1)), relaunch(1, 1, 1, memory_mib=2048)]
    assert desk.records("memory_raised") == [
        {
            "generation": 1,
            "rank": 1,
            "incarnation": 0,
            "from_mib": 1024,
            "memory_mib": 2048,
            "detail": SHORT.message,
        }
    ]
    assert desk.records("launched")[-1]["memory_mib"] == 2048
    assert desk.ready(1) == [opened(1, 1, (0, 1))]


def test_and_so_is_one_of_whom_the_platform_says_it() -> None:
    desk = running()
    assert desk.exited(0, lost=True, detail="oom", out_of_memory=True) == [relaunch(1, 0, 1, memory_mib=2048)]
    assert desk.records("lost")[0]["detail"] == "out of memory: oom"


def test_the_exit_of_who_has_said_it_raises_nothing_more() -> None:
    desk = running()
    address = desk.address(1)
    desk.failed(1, SHORT)
    relaunched = desk.launched.pop((1, 1))
    desk.launched[1, 1] = Launch(address, 2, 1024)
    assert desk.exited(1, lost=True, out_of_memory=True) == []
    assert relaunched.memory_mib == 2048
    assert len(desk.records("memory_raised")) == 1


def test_all_ranks_that_had_too_little_get_the_same() -> None:
    desk = running(workers=3)
    for rank in range(3):
        assert relaunch(1, rank, 1, 3, 2048) in desk.failed(rank, SHORT)
    assert len(desk.records("memory_raised")) == 1
    assert desk.all_ready() == [opened(1, 1, (1, 1, 1))]


def test_each_size_has_at_least_half_as_much_again_until_the_largest() -> None:
    desk = Desk(workers=1, memory_choices_mib=(1024, 1100, 1535, 1536, 2000, 3000))
    desk.start()
    assert desk.failed(0, SHORT) == [Kill(Address(1, 0)), relaunch(1, 0, 1, 1, 1536)]
    assert desk.failed(0, SHORT) == [Kill(Address(1, 0, 1)), relaunch(1, 0, 2, 1, 3000)]
    assert desk.failed(0, SHORT)[0] == StopWorkers()


def test_a_size_between_two_on_offer_grows_to_the_next() -> None:
    desk = Desk(workers=1, memory_mib=3000)
    desk.start()
    assert relaunch(1, 0, 1, 1, 5120) in desk.failed(0, SHORT)


@pytest.mark.parametrize("sizes", [range(1024, 40000, 1024)])
def test_trying_larger_sizes_is_no_bad_luck(sizes: range) -> None:
    desk = Desk(workers=1, memory_choices_mib=tuple(sizes))
    desk.start()
    for _ in range(8):
        desk.failed(0, SHORT)
    assert desk.launched[1, 0].memory_mib > 20 * 1024
    assert desk.state == "starting"


def test_everything_that_is_launched_later_has_as_much() -> None:
    desk = handing_over()
    desk.failed(0, SHORT)
    assert desk.killed(1) == [relaunch(1, 1, 1, memory_mib=2048)]
    desk.all_ready()
    assert desk.live(51.0) == with_memory(launches(2, 2), 2048)


def test_whoever_was_refused_and_is_tried_again_has_as_much_and_that_is_on_record() -> None:
    desk = Desk()
    desk.start()
    desk.refused(0)
    desk.failed(1, SHORT)
    assert desk.tick(1.5) == [relaunch(1, 0, 0, memory_mib=2048)]
    assert [(record["rank"], record["memory_mib"]) for record in desk.records("launched")] == [
        (0, 1024),
        (1, 1024),
        (1, 2048),
        (0, 2048),
    ]


def test_who_makes_ready_for_a_hand_over_is_launched_again_too() -> None:
    desk = handing_over()
    assert desk.live(46.0) == launches(2, 2)
    assert desk.failed(0, SHORT, generation=2) == [Kill(Address(2, 0)), relaunch(2, 0, 1, memory_mib=2048)]
    assert desk.all_ready(generation=2) == [Wish("hand over")]


def test_where_there_is_no_more_the_run_fails_and_says_what_it_had() -> None:
    desk = running(memory_mib=5120)
    assert desk.failed(1, SHORT) == [StopWorkers()]
    failure = failure_of(desk.exited(0))
    assert failure.message == (
        "rank 1 ran out of memory: build_model raised MemoryError (task.py:3); "
        "it had 5.0 GiB, and there is no larger size here"
    )
    assert "[train].micro_batch" in failure.hint
    assert (failure.kind, failure.traceback) == ("OutOfMemory", "Traceback …")


def test_where_sizes_mean_nothing_the_run_fails_at_once() -> None:
    desk = running(memory_choices_mib=())
    assert desk.failed(1, SHORT) == [StopWorkers()]
    failure = failure_of(desk.exited(0))
    assert failure.message.endswith("; all workers share the memory of this machine")
    assert "--workers" in failure.hint


@pytest.mark.parametrize(
    ("larger_usd", "outcome"), [(0.6, [relaunch(1, 1, 1, memory_mib=2048)]), (0.7, [StopWorkers()])]
)
def test_more_memory_has_to_be_paid_for(larger_usd: float, outcome: list[Command]) -> None:
    desk = running(budget_usd=2.0)
    desk.worker_usd, desk.larger_worker_usd = 0.3, larger_usd
    assert desk.tick(0.1, usd=1.4) == []
    assert desk.failed(1, SHORT) == [Kill(Address(1, 1)), *outcome]


def test_and_so_has_everything_later() -> None:
    desk = running(budget_usd=2.0)
    desk.worker_usd, desk.larger_worker_usd = 0.3, 0.6
    desk.tick(0.1, usd=0.7)
    assert desk.failed(1, SHORT) == [Kill(Address(1, 1)), relaunch(1, 1, 1, memory_mib=2048)]
    assert desk.killed(0) == [relaunch(1, 0, 1, memory_mib=2048)]
    assert desk.killed(1) == [StopWorkers()]
    assert desk.exited(0) == [Finish("stopped", "budget")]


def test_nothing_is_raised_for_a_run_that_is_being_stopped() -> None:
    desk = running()
    desk.cancel()
    assert desk.failed(1, SHORT) == [Kill(Address(1, 1)), StopWorkers()]
    assert desk.records("memory_raised") == []

"""The run's machine: ranks that hand over one after another, where there is no room for a second generation."""

from __future__ import annotations

import pytest

from smlt.core.messages import Left, StepRecord
from smlt.core.run_events import (
    Address,
    Beat,
    Command,
    Event,
    Finish,
    Kill,
    Launch,
    OpenRound,
    StepsDone,
    Wish,
    WorkerExited,
    WorkerLeft,
)
from tests.support.events import FAILURE, Desk, launches, opened, relaunch

OLD = Address(1, 0)


class Relay(Desk):
    """Two ranks under a time limit of 100 s, with room for one function more; steps of 0.1 s, starts of 5 s.

    A turn takes 7.7 s, an end 2.2 s: the first heir is due 15.4 s before that, 82.4 s after the launch.
    """

    def __init__(self, **terms: object) -> None:
        self.working: dict[int, Address] = {}
        super().__init__(**{"time_limit_s": 100.0, "max_workers": 3, **terms})
        self.run(start_s=5.0)
        self.step_in(0, 0)

    def prepare_heir(self) -> Address:
        """The turn of rank 0 has come: it has an heir."""
        assert self.live(77.0) == []
        assert self.live(0.5) == [relaunch(1, 0, 1)]
        return self.address(0)

    def live(self, seconds: float, usd: float = 0.0) -> list[Command]:
        """Time passes, and every function is heard of that works."""
        self.now += seconds
        said = [self.tell(Beat(self.now, address, "computing", 0)) for address in self.working.values()]
        return [*(each for commands in said for each in commands), *self.tick(0.0, usd)]

    def tell(self, event: Event) -> list[Command]:
        said = super().tell(event)
        for command in said:
            if isinstance(command, OpenRound):
                self.working = {rank: self.address(rank) for rank in range(len(command.round.members))}
        return said

    def report(self, address: Address, number: int, step: int) -> None:
        """A step that was made in this round."""
        record = StepRecord(step, 0, 0.5, 8, 0.1, 0.1, 0.0, 0.0, (step + 1) * 0.1, round=number)
        self.tell(StepsDone(address, (record,)))

    def step_in(self, number: int, step: int) -> None:
        """All report it."""
        for address in self.working.values():
            self.report(address, number, step)


def test_the_heir_of_a_rank_takes_its_place_in_a_new_round_once_it_is_ready() -> None:
    desk = Relay()
    heir = desk.prepare_heir()
    assert desk.state == "handing_over"
    assert desk.records("launched")[-1] == {**vars(heir), "memory_mib": 1024, "is_heir": True}
    assert desk.live(5.0) == []
    assert desk.ready(0) == [opened(1, 1, (1, 0))]
    assert desk.state == "running"
    assert desk.records("lost") == []


def test_the_next_rank_has_its_turn_and_its_heir_the_place_once_the_one_before_has_stepped() -> None:
    desk = Relay()
    desk.prepare_heir()
    desk.ready(0)
    desk.tell(WorkerExited(desk.now, OLD, lost=False, detail=""))
    assert desk.live(7.5) == []
    assert desk.live(0.2) == [relaunch(1, 1, 1)]
    assert desk.ready(1) == []  # nobody knows yet that the first heir has the state
    desk.step_in(1, 1)
    assert desk.live(0.1) == [opened(1, 2, (1, 1))]


def test_a_function_that_does_not_leave_its_place_is_ended() -> None:
    desk = Relay()
    desk.prepare_heir()
    desk.ready(0)
    assert desk.live(4.9) == []
    assert desk.live(0.2)[0] == Kill(Address(1, 0))


def test_the_stall_is_from_the_last_step_before_to_the_first_of_the_new_round() -> None:
    desk = Relay()
    heir = desk.prepare_heir()
    desk.report(OLD, 0, 1)  # ended at 0.2 s
    desk.ready(0)
    desk.report(heir, 1, 3)  # from 0.3 s to 0.4 s
    (handed_over,) = desk.records("rank_handed_over")
    assert handed_over == {**vars(heir), "stall_s": pytest.approx(0.1)}
    assert desk.records("handed_over") == []


# What may go wrong


def test_an_heir_that_is_lost_has_a_successor_and_costs_the_run_nothing() -> None:
    desk = Relay()
    desk.prepare_heir()
    assert desk.failed(0, FAILURE) == [Kill(Address(1, 0, 1))]
    assert desk.state == "running"
    assert desk.live(1.9) == []
    assert desk.live(0.2) == [relaunch(1, 0, 2)]


def test_after_three_of_them_the_generation_ends_as_a_whole() -> None:
    desk = Relay()
    desk.prepare_heir()
    assert desk.refused(0) == [Kill(Address(1, 0, 1))]
    for again in (2, 3):
        assert desk.live(2.1) == [relaunch(1, 0, again)]
        desk.killed(0)
    assert desk.live(11.0) == []
    assert desk.live(0.5) == [Wish("time limit")]
    assert desk.records("failed") == []
    for address in list(desk.working.values()):
        desk.tell(WorkerLeft(desk.now, address, Left("ended", 3)))
        desk.tell(WorkerExited(desk.now, address, False, ""))
    desk.now += 5.0
    desk.all_ready()
    desk.step_in(0, 3)
    assert desk.live(83.0) == [relaunch(2, 0, 1)]


def test_an_heir_that_is_not_ready_when_the_time_is_up_is_given_up() -> None:
    desk = Relay()
    desk.prepare_heir()
    for _ in range(3):
        assert desk.live(5.0) == []
        desk.beat(0, "building")
    assert desk.live(0.5) == [Kill(Address(1, 0, 1)), Wish("time limit")]
    desk.launched[1, 0] = Launch(OLD, 2, 1024)
    assert desk.all_leave("ended", 3) == launches(2, 1, workers=2)  # for the other one somebody has to be gone


def test_one_that_is_never_heard_of_is_given_up_in_its_time() -> None:
    desk = Relay(start_deadline_s=6.0)
    desk.prepare_heir()
    assert desk.live(5.9) == []
    assert desk.live(0.2) == [Kill(Address(1, 0, 1))]


def test_where_the_working_function_dies_its_heir_is_its_replacement() -> None:
    desk = Relay()
    desk.prepare_heir()
    assert desk.tell(WorkerExited(desk.now, OLD, lost=True, detail="killed by signal 9")) == []
    assert desk.state == "recovering"
    assert desk.ready(0) == [opened(1, 1, (1, 0))]
    desk.step_in(1, 1)
    assert desk.records("rank_handed_over") == []


def test_an_heir_waits_while_the_only_one_that_has_the_state_is_the_one_before_it() -> None:
    desk = Relay()
    desk.prepare_heir()
    assert desk.killed(1) == [relaunch(1, 1, 1)]
    assert desk.ready(0) == []
    assert desk.ready(1) == [opened(1, 1, (0, 1))]
    assert desk.live(0.1) == []
    desk.step_in(1, 1)
    assert desk.live(0.1) == [opened(1, 2, (1, 1))]


# What else may happen


def test_a_stop_ends_the_heir_first() -> None:
    desk = Relay()
    desk.prepare_heir()
    assert desk.cancel() == [Kill(Address(1, 0, 1)), Wish("cancelled")]


def test_and_so_does_another_number_of_workers() -> None:
    desk = Relay()
    desk.prepare_heir()
    assert desk.scale(1) == [Kill(Address(1, 0, 1)), *launches(2, 1)]


def test_and_so_does_the_end_of_the_job() -> None:
    desk = Relay()
    heir = desk.prepare_heir()
    desk.launched[1, 0] = Launch(OLD, 2, 1024)
    said = desk.all_leave("goal", 9)
    assert said[0] == Kill(heir)
    assert isinstance(said[1], Finish)


@pytest.mark.parametrize(
    "terms",
    [
        {"max_workers": 2},
        {"has_private": True},
        {"exchange_every": 2},
        {"time_limit_s": 30.0},
        {"workers": 1, "max_workers": 1},
        {"budget_usd": 0.5},
    ],
    ids=["no room", "private state", "local steps", "no time for two turns", "one rank", "no money"],
)
def test_the_generation_ends_as_a_whole_where_ranks_cannot_hand_over(terms: dict[str, object]) -> None:
    desk = Relay(**terms)
    desk.worker_usd = 0.2
    limit_s = desk.terms.time_limit_s or 0.0
    assert desk.live(limit_s - 5.0 - 2.5, usd=0.4) == []
    assert desk.live(0.5, usd=0.4) == [Wish("time limit")]


def test_where_there_is_room_for_two_generations_they_overlap() -> None:
    desk = Relay(max_workers=4)
    assert desk.live(77.5) == []
    assert desk.live(8.0) == launches(2, 2)

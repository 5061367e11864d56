"""When a fleet is planned anew, and when another one pays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from smlt.core.adaptation import MOST_PROBES, WARM_UP, WINDOW, Adaptation, Change, Rest, Standing, pays
from smlt.core.job import BatchPhase
from smlt.core.planner import Allocation, Observation, Plan, Planner, PlanRequest
from smlt.planners.bo import BoPlanner
from smlt.planners.modelled import AnalyticPlanner
from tests.support.scenes import REQUEST, request

BATCH = 512
PHASES = (BatchPhase(from_epoch=0, size=BATCH), BatchPhase(from_epoch=1, size=2 * BATCH))
ENOUGH = WARM_UP + WINDOW
FLEET = Allocation(8, 1769, REQUEST.sync)


class Watched(AnalyticPlanner):
    """Remembers what it was told, over all of its kind."""

    told: list[Observation]

    def observe(self, observation: Observation) -> None:
        super().observe(observation)
        self.told.append(observation)


@pytest.fixture
def told() -> list[Observation]:
    Watched.told = []
    return Watched.told


def adaptation(asked: PlanRequest = REQUEST, planner: Callable[[], Planner] = Watched) -> Adaptation:
    return Adaptation(planner, asked, PHASES)


def steps(count: int, seconds: float = 6.0, sync_s: float = 1.0, epoch: int = 0, **fields: Any) -> list[dict[str, Any]]:
    examples = BATCH * (1 + epoch)
    return [{"seconds": seconds, "sync_s": sync_s, "epoch": epoch, "examples": examples, **fields}] * count


def standing(steps_left: int = 1000, deadline_s: float | None = None, budget_usd: float | None = None) -> Standing:
    return Standing(steps_left, deadline_s, budget_usd, usd_per_s=8 * 1769 / 1024 * 1.67e-5)


def test_a_planner_is_told_what_a_window_has_shown_and_which_part_was_computing(told: list[Observation]) -> None:
    found = adaptation()
    found.saw(FLEET, steps(WARM_UP, seconds=99.0))
    found.saw(FLEET, steps(WINDOW - 1))
    assert told == []
    found.saw(FLEET, steps(1))
    assert told == [Observation(FLEET, 6.0, BATCH, compute_seconds=5.0)]


def test_the_last_batch_of_an_epoch_says_nothing(told: list[Observation]) -> None:
    found = adaptation()
    found.saw(FLEET, [*steps(ENOUGH - 1), *steps(1, seconds=0.1, examples=3)])
    assert told == []


def test_noise_asks_nobody_again(told: list[Observation]) -> None:
    found, rng = adaptation(request(deadline_s=1e6)), Random(1)
    for _ in range(400):
        found.saw(FLEET, steps(1, seconds=6.0 * rng.lognormvariate(0.0, 0.1)))
        found.look(standing(deadline_s=1e6))
    assert len(told) == 1


def test_a_cloud_that_is_slower_is_noticed_within_20_steps_and_what_was_seen_before_forgotten(
    told: list[Observation],
) -> None:
    found = adaptation()
    found.saw(FLEET, steps(ENOUGH + 3))
    found.look(standing())
    for _ in range(20):
        found.saw(FLEET, steps(1, seconds=12.0))
    assert [each.step_seconds for each in told] == [6.0, 12.0]


def test_the_rest_is_predicted_from_what_was_seen(told: list[Observation]) -> None:
    found = adaptation()
    found.saw(FLEET, steps(ENOUGH))
    assert found.prediction is None
    found.look(standing(steps_left=100))
    assert found.prediction is not None
    assert found.prediction.seconds == pytest.approx(600.0)
    assert found.prediction.usd == pytest.approx(600.0 * standing().usd_per_s)


def test_a_deadline_in_danger_gets_a_larger_fleet(told: list[Observation]) -> None:
    found = adaptation(request(objective="cheapest", deadline_s=7200.0))
    found.saw(FLEET, steps(ENOUGH))
    change = found.look(standing(steps_left=1000, deadline_s=3000.0))  # of which 8 workers would take 6000 s
    assert change is not None
    assert change.allocation.workers * change.allocation.memory_mib > 8 * 1769
    assert change.why["there"]["seconds"] < 3000 < change.why["here"]["seconds"]


def test_little_is_left_to_save_at_the_end(told: list[Observation]) -> None:
    found = adaptation(request(objective="cheapest", deadline_s=7200.0))
    found.saw(FLEET, steps(ENOUGH))
    assert found.look(standing(steps_left=3, deadline_s=7000.0)) is None


def test_another_batch_asks_at_once(told: list[Observation]) -> None:
    found = adaptation(request(objective="fastest", budget_usd=50.0))
    found.saw(FLEET, steps(ENOUGH))
    first = found.look(standing(budget_usd=40.0))
    assert first is not None
    assert first.why["trigger"] == "learned"
    found.changed(first)
    found.saw(first.allocation, steps(ENOUGH, seconds=3.0))
    found.look(standing(budget_usd=40.0))
    found.saw(first.allocation, steps(1, seconds=5.0, epoch=1))
    change = found.look(standing(budget_usd=60.0))
    assert change is None or change.why["trigger"] == "batch"
    found.saw(first.allocation, steps(WINDOW, seconds=5.0, epoch=1))
    assert told[-1].global_batch == 2 * BATCH


def test_steps_of_the_fleet_before_are_not_taken_for_the_new_one_s(told: list[Observation]) -> None:
    found = adaptation(request(objective="cheapest", deadline_s=7200.0))
    found.saw(FLEET, steps(ENOUGH))
    change = found.look(standing(deadline_s=3000.0))
    assert change is not None
    found.changed(change)
    found.saw(FLEET, steps(3 * ENOUGH, seconds=30.0))
    assert found.look(standing(deadline_s=3000.0)) is None
    assert len(told) == 1


def tried(found: Adaptation, seconds: Callable[[Allocation], float]) -> list[Change]:
    """Changes until nothing changes any more."""
    allocation, changes = FLEET, list[Change]()
    for _ in range(3 * MOST_PROBES):
        found.saw(allocation, steps(ENOUGH, seconds=seconds(allocation)))
        change = found.look(standing())
        if change is None:
            break
        found.changed(change)
        changes.append(change)
        allocation = change.allocation
    return changes


def test_a_planner_without_a_model_tries_five_fleets_and_settles_on_the_best() -> None:
    found = adaptation(request(objective="fastest"), BoPlanner)
    changes = tried(found, lambda fleet: 100.0 / fleet.workers + 0.1 * fleet.workers)
    assert found.probes == MOST_PROBES
    assert len(changes) <= MOST_PROBES + 1
    seen = {FLEET.workers, *(change.allocation.workers for change in changes)}
    last = changes[-1].allocation.workers
    assert min(seen, key=lambda workers: 100.0 / workers + 0.1 * workers) == last


def test_a_planner_with_a_model_comes_to_rest() -> None:
    found = adaptation(request(objective="cheapest", deadline_s=7200.0), AnalyticPlanner)
    changes = tried(found, lambda fleet: 40.0 / fleet.workers + 0.3)
    assert found.probes == len(changes) <= 2


def test_a_planner_that_is_told_of_memory_that_did_not_suffice_does_not_choose_it_again(
    told: list[Observation],
) -> None:
    found = adaptation(request(objective="cheapest", deadline_s=7200.0))
    found.ran_out_of_memory(replace(FLEET, memory_mib=1024))
    assert told[-1].out_of_memory
    assert told[-1].allocation.memory_mib == 1024


def test_a_fleet_that_was_left_is_not_come_back_to(told: list[Observation]) -> None:
    found = adaptation(request(objective="fastest", budget_usd=50.0))
    seen, allocation = [FLEET], FLEET
    for number in range(20):  # the planner is misled: whatever it has looks dear, whatever it has not cheap
        found.saw(allocation, steps(ENOUGH, seconds=6.0 if number % 2 else 60.0))
        change = found.look(standing(budget_usd=1.0))
        if change is not None:
            found.changed(change)
            allocation = change.allocation
            assert allocation not in seen
            seen.append(allocation)
    assert found.probes <= MOST_PROBES


def test_what_is_tied_up_in_leases_is_that_of_the_fleet_in_question() -> None:
    small, large = Rest(100.0, 0.9, usd_per_s=0.001), Rest(50.0, 0.9, usd_per_s=0.1)
    stands = Standing(10, None, 1.0, usd_per_s=0.001, tied_s=2.0)
    assert stands.missed(small) == []
    assert stands.missed(large) == ["budget"]
    assert stands.overshoot(large) == pytest.approx(1.1)


ONE, OTHER = Rest(1000.0, 1.0), Rest(900.0, 1.2)


@pytest.mark.parametrize(
    ("there", "objective", "limits", "expected"),
    [
        (Rest(1000.0, 0.96), "cheapest", (None, None), False),  # too little
        (Rest(2000.0, 0.94), "cheapest", (None, None), True),
        (Rest(2000.0, 0.94), "cheapest", (1500.0, None), False),  # passes the deadline
        (Rest(900.0, 1.5), "cheapest", (950.0, None), True),  # keeps it
        (OTHER, "fastest", (None, 1.1), False),
        (OTHER, "fastest", (None, 2.0), True),
        (Rest(900.0, 1.0), "knee", (None, None), False),
        (Rest(800.0, 1.0), "knee", (None, None), True),
        (Rest(800.0, 0.0), "cheapest", (None, None), True),
    ],
)
def test_a_change_must_pay(
    there: Rest, objective: Any, limits: tuple[float | None, float | None], *, expected: bool
) -> None:
    asked = request(objective=objective)
    assert pays(ONE, there, asked, standing(100, *limits)) is expected


def test_where_nothing_costs_anything_time_decides() -> None:
    asked = request(objective="cheapest")
    assert pays(Rest(1000.0, 0.0), Rest(900.0, 0.0), asked, standing())
    assert not pays(Rest(900.0, 0.0), Rest(1000.0, 0.0), asked, standing())


def test_a_plan_without_a_forecast_is_told_with_its_reason() -> None:
    class Other(Planner):
        def _do_propose(self, asked: PlanRequest) -> Plan:
            return Plan(Allocation(4, 2048, asked.sync), "because")

    found = adaptation(REQUEST, Other)
    found.saw(FLEET, steps(ENOUGH))
    change = found.look(standing())
    assert change is not None
    assert change.why == {
        "trigger": "learned", "probes": 1, "from_workers": 8, "from_memory_mib": 1769, "reason": "because",
    }  # fmt: skip

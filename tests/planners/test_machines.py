"""Virtual machines as a baseline: what they would take and cost, by hand and by the price list."""

from __future__ import annotations

from dataclasses import replace

import pytest

from smlt.core.forecast import Forecast
from smlt.planners.machines import MachineForecaster, Machines, fleets_of
from tests.support.scenes import ELEMENTS, PROFILED, REQUEST, SCENE, guessed, request


def forecast(name: str = "c5.xlarge", count: int = 1, *, spot: bool = False, asked=REQUEST) -> Forecast:
    found = MachineForecaster(asked).plan(Machines(name, count, spot)).forecast
    assert found is not None
    return found


def test_one_machine_computes_and_synchronises_with_nobody() -> None:
    found = forecast()
    assert found.step.compute_s == pytest.approx(0.02 + 512 / (8.0 * 4**0.9))
    assert found.step.sync_s == 0
    assert found.start_s == pytest.approx((30 * 90) ** 0.5 + PROFILED.build_s)
    assert found.finish_s.likely == pytest.approx(found.start_s + SCENE.steps * found.step.total_s)


def test_several_machines_sum_in_a_ring() -> None:
    found = forecast("c5.2xlarge", 4)
    moved = 2 * 3 / 4 * 4 * ELEMENTS / 1e6 / 312.5
    assert found.step.sync_s == pytest.approx(moved + 2 * 3 * 3e-4)
    assert found.step.compute_s == pytest.approx(0.02 + 128 / (8.0 * 8**0.9))


def test_all_machines_are_paid_from_boot_to_end_and_a_minute_at_least() -> None:
    found = forecast("c5.xlarge", 3)
    assert found.cost_usd.likely == pytest.approx(3 * 0.17 * found.finish_s.likely / 3600, rel=1e-3)
    short = request(scene=replace(SCENE, steps=1, profile=replace(PROFILED, build_s=0.1)), global_batch=1)
    assert forecast(asked=short).cost_usd.likely == pytest.approx(0.17 / 60)


def test_spot_is_as_quick_and_cheaper() -> None:
    on_demand, spot = forecast(), forecast(spot=True)
    assert spot.finish_s == on_demand.finish_s
    assert spot.cost_usd.likely / on_demand.cost_usd.likely == pytest.approx(0.07154 / 0.17)


def test_the_speed_of_a_gpu_is_a_guess_even_where_the_task_was_profiled() -> None:
    found = forecast("g4dn.xlarge")
    assert found.speed == "guessed"
    assert forecast().speed == "profiled"
    assert found.finish_s.high / found.finish_s.likely > forecast().finish_s.high / forecast().finish_s.likely


def test_a_gpu_nobody_knows_is_less_sure() -> None:
    offer = SCENE.catalog.vms["g4dn.xlarge"].model_copy(update={"gpu": "X1"})
    catalog = SCENE.catalog.model_copy(update={"vms": {"g4dn.xlarge": offer}})
    found = forecast("g4dn.xlarge", asked=request(scene=replace(SCENE, catalog=catalog)))
    known = forecast("g4dn.xlarge")
    assert found.finish_s.high / found.finish_s.likely > known.finish_s.high / known.finish_s.likely


def test_limits_are_those_of_the_request() -> None:
    found = forecast(asked=request(deadline_s=1.0, budget_usd=100.0))
    assert found.limits == {"memory": "met", "deadline": "missed", "budget": "met"}


def test_machines_are_offered_up_to_the_most_workers_and_gpus_one_by_one() -> None:
    asked = guessed(max_workers=3)
    vms = list(fleets_of(asked, "vm", spot=False))
    assert {each.count for each in vms} == {1, 2, 3}
    assert all(not SCENE.catalog.vms[each.offer].gpu for each in vms)
    gpus = list(fleets_of(asked, "gpu", spot=True))
    assert {each.count for each in gpus} == {1}
    assert {each.offer for each in gpus} == {"g4dn.xlarge", "g5.xlarge", "g6.xlarge", "p3.2xlarge"}

"""The regret benchmark: the best fleet keeps its limits, and what is told of runs is right."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.regret.__main__ import _limits_of
from benchmarks.regret.oracle import SPARE, Oracle
from benchmarks.regret.table import is_met, quantile, regrets, value, wilson
from benchmarks.regret.workloads import DATASETS, LIMITS, MODELS, PROVIDERS, all_workloads, random_workload


def test_there_are_sixty_workloads_of_all_kinds() -> None:
    workloads = list(all_workloads())
    assert len({(each.model, each.dataset, each.limits) for each in workloads}) == 60
    assert len(workloads) == len(MODELS) * len(DATASETS) * len(LIMITS)
    assert {each.provider for each in workloads} == set(PROVIDERS)
    assert len({each.seed for each in workloads}) == 60


@pytest.mark.parametrize("number", [0, 1, 2, 3, 4])
def test_the_best_fleet_keeps_the_limits_and_no_other_that_does_is_better(number: int) -> None:
    workload = list(all_workloads())[number]
    oracle = Oracle(workload)
    (deadline_s, budget_usd), wanted = _limits_of(workload, oracle)
    best = oracle.best(wanted, deadline_s, budget_usd)
    assert SPARE * best.seconds <= (deadline_s or best.seconds * SPARE)
    assert SPARE * best.usd <= (budget_usd or best.usd * SPARE)
    for fleet in oracle.fleets:
        is_kept = SPARE * fleet.seconds <= (deadline_s or 1e9) and SPARE * fleet.usd <= (budget_usd or 1e9)
        worth = (fleet.usd, best.usd) if wanted == "cheapest" else (fleet.seconds, best.seconds)
        assert not is_kept or worth[0] >= worth[1]


def test_random_limits_can_be_kept_with_something_to_spare() -> None:
    slacks = [random_workload(number)[2] for number in range(200)]
    assert min(slacks) >= 1.15
    assert random_workload(7) == random_workload(7)


def row(planner: str, number: int, usd: float, status: str = "succeeded") -> dict[str, Any]:
    return {"planner": planner, "number": number, "usd": usd, "seconds": 1.0, "status": status, "wanted": "cheapest"}


def test_regret_is_how_much_more_is_paid_than_by_the_best() -> None:
    rows = [row("oracle", 0, 1.0), row("oracle", 1, 2.0), row("optuna", 0, 1.1), row("optuna", 1, 2.0)]
    rows.append(row("optuna", 2, 9.0, "stopped"))
    assert regrets(rows, "optuna") == pytest.approx([0.0, 0.1])
    assert [is_met(each) for each in rows] == [True, True, True, True, False]
    assert value({**rows[0], "wanted": "fastest"}) == 1.0
    assert quantile([0.0, 0.1], 0.5) == 0.0
    assert quantile([0.0, 0.1], 0.95) == 0.1


def test_the_interval_of_a_rate() -> None:
    assert wilson(98, 100) == pytest.approx((0.930, 0.994), abs=1e-3)

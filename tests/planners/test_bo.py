"""The paper's planner: what it tries, what it learns, and that it ends."""

from __future__ import annotations

import math

import numpy as np
import pytest

from smlt.core.planner import Observation, Planner
from smlt.planners.bo import BoPlanner, expected_improvement, worth
from smlt.testing import PlannerContract
from tests.support.scenes import REQUEST, request


class TestBoPlanner(PlannerContract):
    @pytest.fixture
    def planner(self) -> Planner:
        return BoPlanner()


def test_improvement_is_expected_near_what_was_best_and_where_nobody_looked() -> None:
    known, values = np.array([[0.0, 0.0], [1.0, 0.0]]), np.array([3.0, 1.0])
    at_worst, at_best, beside_best, far = expected_improvement(
        known, values, np.array([[0.0, 0.0], [1.0, 0.0], [0.9, 0.1], [0.5, 1.0]])
    )
    assert at_worst == pytest.approx(0, abs=1e-6)
    assert at_best < beside_best
    assert at_best < far


def test_it_finds_the_fastest_fleet_by_looking() -> None:
    """Where a step takes least with 16 workers, whatever their memory."""
    planner, asked = BoPlanner(), request(objective="fastest", memory_mib=3538)
    tried = []
    for _ in range(20):
        fleet = planner.propose(asked).allocation
        if fleet.workers in tried:
            break
        tried.append(fleet.workers)
        planner.observe(Observation(fleet, 1.0 + abs(math.log(fleet.workers / 16)), 512))
    assert planner.propose(asked).allocation.workers in (15, 16, 18)
    assert len(tried) < 12


def test_a_broken_limit_counts_as_worse_than_any_that_is_kept() -> None:
    fleet = BoPlanner().propose(REQUEST).allocation
    asked = request(objective="fastest", deadline_s=2000.0)
    kept, broken = (worth(Observation(fleet, seconds, 512), asked) for seconds in (0.99, 1.01))
    assert broken > 3 * kept
    assert worth(Observation(fleet, 0.0, 512, out_of_memory=True), asked) > broken

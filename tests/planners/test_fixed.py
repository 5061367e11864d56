"""The planner that takes the user's word, and what every planner's answer is held to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from smlt.core.errors import ConfigError
from smlt.core.planner import Allocation, Plan, Planner, PlanRequest, Sync
from smlt.planners.fixed import FixedPlanner
from smlt.testing import PlannerContract

REQUEST = PlannerContract.request


class TestFixedPlanner(PlannerContract):
    @pytest.fixture
    def planner(self) -> Planner:
        return FixedPlanner()


@pytest.mark.parametrize(
    ("vcpus_at_hand", "max_workers", "workers"),
    [(4, 8, 4), (16, 8, 8), (1, 8, 1), (None, 8, 2), (None, 1, 1)],
)
def test_one_worker_a_core_here_and_two_on_a_cloud(vcpus_at_hand: int | None, max_workers: int, workers: int) -> None:
    plan = FixedPlanner().propose(replace(REQUEST, vcpus_at_hand=vcpus_at_hand, max_workers=max_workers))
    assert plan.allocation == Allocation(workers, 1024, REQUEST.sync)


@pytest.mark.parametrize(("period", "fragments"), [(1, 2), (7, 2), (0, 1), (4, 0), (-2, -1)])
def test_ranks_cannot_be_planned_to_exchange_more_often_than_they_step(period: int, fragments: int) -> None:
    assert Sync("local_sgd", period=6, fragments=3).exchange_every == 2
    with pytest.raises(ConfigError, match=f"period of {period} steps cannot be shared by {fragments} fragments"):
        Sync("local_sgd", period=period, fragments=fragments)


def test_a_planner_that_leaves_what_is_possible_is_named() -> None:
    class Greedy(Planner):
        def _do_propose(self, request: PlanRequest) -> Plan:
            return Plan(Allocation(100, 1024), "more is more")

    with pytest.raises(ConfigError, match="Greedy proposed 100 workers, outside 1 to 8"):
        Greedy().propose(REQUEST)

"""The contract of `smlt.core.planner.Planner` as tests: subclass, give the fixture `planner`, inherit.

class TestMyPlanner(PlannerContract):
    @pytest.fixture
    def planner(self):
        return MyPlanner()
"""

# ruff: noqa: D102  a test's name says what it shows

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import pytest

from smlt.core.errors import ConfigError
from smlt.core.planner import Observation, Planner, PlanRequest, Sync


class PlannerContract:
    """What holds of every planner.

    Attributes:
        request: with nothing fixed; replace it where this planner can plan for other backends only.
    """

    request: ClassVar[PlanRequest] = PlanRequest(
        workers=None,
        max_workers=8,
        memory_mib=None,
        memory_choices_mib=(1024, 2048, 4096),
        vcpus_at_hand=4,
        global_batch=64,
        sync=Sync(),
    )

    @pytest.fixture
    def planner(self, request: pytest.FixtureRequest) -> Planner:
        """Give this: a planner that has observed nothing."""
        pytest.fail(f"{request.cls.__name__} lacks the fixture planner")

    @pytest.mark.parametrize("max_workers", [1, 2, 8])
    def test_it_chooses_within_what_is_possible(self, planner: Planner, max_workers: int) -> None:
        plan = planner.propose(replace(self.request, max_workers=max_workers))
        assert 1 <= plan.allocation.workers <= max_workers
        assert plan.allocation.memory_mib in self.request.memory_choices_mib

    @pytest.mark.parametrize("vcpus_at_hand", [None, 1, 64])
    def test_it_plans_for_clouds_and_for_small_and_large_machines(
        self, planner: Planner, vcpus_at_hand: int | None
    ) -> None:
        plan = planner.propose(replace(self.request, vcpus_at_hand=vcpus_at_hand))
        assert 1 <= plan.allocation.workers <= self.request.max_workers

    def test_a_plan_says_why_in_one_line(self, planner: Planner) -> None:
        reason = planner.propose(self.request).reason
        assert reason.strip()
        assert "\n" not in reason

    @pytest.mark.parametrize("workers", [1, 3, 8])
    def test_a_number_of_workers_that_was_fixed_comes_back(self, planner: Planner, workers: int) -> None:
        assert planner.propose(replace(self.request, workers=workers)).allocation.workers == workers

    def test_a_memory_that_was_fixed_comes_back(self, planner: Planner) -> None:
        for memory_mib in self.request.memory_choices_mib:
            plan = planner.propose(replace(self.request, memory_mib=memory_mib))
            assert plan.allocation.memory_mib == memory_mib

    def test_the_same_question_has_the_same_answer(self, planner: Planner) -> None:
        assert planner.propose(self.request) == planner.propose(self.request)

    def test_more_workers_than_possible_are_refused_with_what_to_change(self, planner: Planner) -> None:
        with pytest.raises(ConfigError, match="9 workers were asked for") as caught:
            planner.propose(replace(self.request, workers=9))
        assert "[workers].count" in caught.value.hint

    def test_it_goes_on_planning_after_an_observation(self, planner: Planner) -> None:
        plan = planner.propose(self.request)
        planner.observe(Observation(plan.allocation, step_seconds=0.5, global_batch=self.request.global_batch))
        assert 1 <= planner.propose(self.request).allocation.workers <= self.request.max_workers

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

from smlt.core.catalog import parse_catalog
from smlt.core.errors import ConfigError
from smlt.core.planner import Observation, Planner, PlanRequest, Sync
from smlt.core.profile import Profile, Speed
from smlt.core.scene import ChannelOffer, Scene
from smlt.core.storage import ChannelCapabilities
from smlt.core.task import Region

PRICES = """
provider = "a cloud for tests"
source = "made up"
as_of = "2026-11-24"

[functions.small]
usd_per_gib_s = 1e-5
usd_per_request = 2e-7
vcpus = { mib_per_vcpu = 2048, most = 6 }
memory_mib = { least = 1024, most = 4096, step = 1024 }
max_workers = 1000
start_s = [2.0, 4.0]
bandwidth_mb_s = 100.0
source = "made up"
as_of = "2026-11-24"
confidence = "high"

[stores.objects]
usd_per_put = 5e-6
usd_per_get = 4e-7
usd_per_gb_month = 0.02
put_latency_s = 0.03
get_latency_s = 0.02
connection_mb_s = 80.0
source = "made up"
as_of = "2026-11-24"
confidence = "high"
"""

SCENE = Scene(
    profile=Profile(
        schema_version=1,
        task="task.py:Net",
        settings={},
        taken_on="2026-11-24",
        machine="made up",
        examples=10_000,
        parameters=1_000_000,
        regions=(Region("float32", 1_000_000, True),),
        state_bytes=12_000_000,
        build_s=2.0,
        built_mib=300.0,
        stepped_mib=400.0,
        example_bytes=1e6,
        speed=Speed(20.0, 0.01, vcpu_exponent=0.9, vcpus=2, steps=20),
    ),
    is_profiled_here=False,
    steps=1000,
    catalog=parse_catalog(PRICES, "PRICES"),
    functions="small",
    channels=(ChannelOffer("object", ChannelCapabilities(True, False, None, 0.03), "stores", "objects"),),
)
"""Of a job of a million parameters, 3.2 s of one vCPU a step, on a cloud that takes requests as S3 does."""


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
        sync=Sync(channel="object"),
        scene=SCENE,
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

    def test_what_is_chosen_is_one_of_what_was_considered(self, planner: Planner) -> None:
        survey = planner.survey(self.request)
        assert survey.chosen == planner.propose(self.request)
        assert survey.chosen in survey.plans

    def test_a_size_that_ran_out_of_memory_is_not_predicted_to_suffice(self, planner: Planner) -> None:
        small = replace(planner.propose(self.request).allocation, memory_mib=self.request.memory_choices_mib[0])
        planner.observe(Observation(small, step_seconds=0.0, global_batch=64, out_of_memory=True))
        assert planner.propose(self.request).allocation != small or not planner.needs_scene

"""Planners that predict: their contract, objectives, limits, what guesses may not do, and what observations change."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from smlt.core.errors import ConfigError
from smlt.core.forecast import Forecast
from smlt.core.planner import Allocation, Observation, Plan, Planner, PlanRequest, Survey
from smlt.planners.forecasts import Forecaster
from smlt.planners.modelled import AnalyticPlanner, ExhaustivePlanner, ModelPlanner
from smlt.planners.optuna import OptunaPlanner
from smlt.testing import PlannerContract
from tests.support.scenes import REQUEST, guessed, request


class TestAnalyticPlanner(PlannerContract):
    @pytest.fixture
    def planner(self) -> Planner:
        return AnalyticPlanner()


class TestExhaustivePlanner(PlannerContract):
    @pytest.fixture
    def planner(self) -> Planner:
        return ExhaustivePlanner()


class TestOptunaPlanner(PlannerContract):
    @pytest.fixture
    def planner(self) -> Planner:
        return OptunaPlanner()


def forecast(plan: Plan | None) -> Forecast:
    assert plan is not None
    assert plan.forecast is not None
    return plan.forecast


def survey(asked: PlanRequest, planner: ModelPlanner | None = None) -> Survey:
    return (planner or AnalyticPlanner()).survey(asked)


FASTEST = forecast(survey(request(objective="fastest")).chosen)
CHEAPEST = forecast(survey(request(objective="cheapest")).chosen)


def test_the_knee_lies_between_the_fastest_and_the_cheapest() -> None:
    knee = forecast(survey(REQUEST).chosen)
    assert FASTEST.finish_s.likely < knee.finish_s.likely < CHEAPEST.finish_s.likely
    assert FASTEST.cost_usd.likely > knee.cost_usd.likely > CHEAPEST.cost_usd.likely


def test_a_deadline_is_kept_by_the_cheapest_that_keeps_it_even_in_its_high_case() -> None:
    asked = request(objective="cheapest", deadline_s=(FASTEST.finish_s.high + CHEAPEST.finish_s.low) / 2)
    found = survey(asked)
    chosen = forecast(found.chosen)
    assert asked.deadline_s is not None
    assert chosen.finish_s.high <= asked.deadline_s
    assert found.binding_limit == "deadline"
    within = [forecast(plan) for plan in found.plans if forecast(plan).standing == "met"]
    assert chosen.cost_usd.likely == min(each.cost_usd.likely for each in within)


def test_a_budget_is_kept_by_the_fastest_that_keeps_it() -> None:
    asked = request(objective="fastest", budget_usd=(FASTEST.cost_usd.likely + CHEAPEST.cost_usd.likely) / 2)
    found = survey(asked)
    chosen = forecast(found.chosen)
    assert asked.budget_usd is not None
    assert chosen.cost_usd.high <= asked.budget_usd
    assert found.binding_limit == "budget"
    within = [forecast(plan) for plan in found.plans if forecast(plan).standing == "met"]
    assert chosen.finish_s.likely == min(each.finish_s.likely for each in within)


def test_the_most_workers_are_a_limit_that_may_bind() -> None:
    assert survey(request(objective="fastest", max_workers=4)).binding_limit == "max_workers"


def test_infeasible_limits_are_said_with_the_nearest_that_can_be_kept() -> None:
    asked = request(objective="cheapest", deadline_s=60.0, budget_usd=0.01)
    found = survey(asked)
    assert found.chosen is None
    assert found.binding_limit in ("deadline", "budget")
    near = found.nearest
    assert near is not None
    relaxed = replace(asked, deadline_s=near.deadline_s, budget_usd=near.budget_usd)
    assert forecast(survey(relaxed).chosen).standing == "met"
    with pytest.raises(ConfigError, match="no fleet keeps the limits") as caught:
        AnalyticPlanner().propose(asked)
    assert near.flags in caught.value.hint


def test_a_guess_is_not_sure_to_keep_a_deadline_that_its_likely_case_keeps() -> None:
    fixed = guessed(workers=8, memory_mib=3538, deadline_s=None)
    likely = forecast(survey(fixed).plans[0]).finish_s.likely
    plan = survey(replace(fixed, deadline_s=2 * likely)).plans[0]
    assert forecast(plan).speed == "guessed"
    assert forecast(plan).limits["deadline"] == "uncertain"
    assert "not sure to keep: deadline by a guessed compute speed" in plan.reason


def test_a_profile_makes_a_prediction_surer_than_a_guess() -> None:
    fixed = {"workers": 8, "memory_mib": 3538}
    guess, measured = (forecast(survey(asked).plans[0]).finish_s for asked in (guessed(**fixed), request(**fixed)))
    assert guess.high / guess.low > 2 * measured.high / measured.low


def over(channel: str, found: Survey) -> Plan:
    return next(plan for plan in found.plans if plan.allocation.sync.channel == channel)


def test_what_was_seen_corrects_what_was_believed() -> None:
    planner = AnalyticPlanner()
    fixed = request(workers=8, memory_mib=3538)
    plan = over("object", planner.survey(fixed))
    before = forecast(plan)
    planner.observe(Observation(plan.allocation, 3 * before.step.total_s, 512))
    after = forecast(over("object", planner.survey(fixed)))
    assert after.speed == "observed"
    assert after.step.total_s == pytest.approx(3 * before.step.total_s, rel=0.1)
    assert after.finish_s.high / after.finish_s.low < before.finish_s.high / before.finish_s.low


def test_what_was_seen_over_one_channel_tells_of_computing_over_another() -> None:
    planner = AnalyticPlanner()
    fixed = request(workers=8, memory_mib=3538)
    seen = over("object", planner.survey(fixed))
    before = forecast(over("redis", planner.survey(fixed)))
    planner.observe(Observation(seen.allocation, 3 * forecast(seen).step.total_s, 512))
    after = forecast(over("redis", planner.survey(fixed)))
    assert after.step.compute_s > 2 * before.step.compute_s


def test_out_of_memory_is_said_before_a_launch() -> None:
    plan = survey(request(workers=1, memory_mib=1769)).plans[0]  # 700 MiB, and 511 examples more of 4 MB
    assert forecast(plan).memory_mib.likely == pytest.approx(700 + 511 * 4e6 / 2**20)
    assert forecast(plan).limits["memory"] == "missed"
    assert "misses: memory" in plan.reason


def test_smaller_forward_passes_need_less_memory() -> None:
    assert REQUEST.scene is not None
    small = Forecaster(request(scene=replace(REQUEST.scene, micro_batch=8)))
    fleet = Allocation(1, 1769, REQUEST.sync)
    assert small.forecast(fleet).limits["memory"] == "met"


@pytest.mark.parametrize("kind", [AnalyticPlanner, ExhaustivePlanner, OptunaPlanner])
def test_a_fleet_that_ran_out_of_memory_is_not_chosen_again(kind: type[ModelPlanner]) -> None:
    planner = kind()
    asked = request(objective="cheapest", max_workers=24)
    before = planner.propose(asked).allocation
    planner.observe(Observation(before, 0.0, 512, out_of_memory=True))
    after = planner.propose(asked).allocation
    assert after.memory_mib > before.memory_mib or after.workers > before.workers
    assert forecast(planner.propose(asked)).speed == "profiled"


@pytest.mark.parametrize("objective", ["cheapest", "fastest"])
def test_the_search_is_as_good_as_looking_at_every_fleet(objective: str) -> None:
    asked = request(objective=objective, max_workers=40, deadline_s=1.5 * FASTEST.finish_s.high)
    truth, searched = (forecast(kind().propose(asked)) for kind in (ExhaustivePlanner, OptunaPlanner))
    figure = "cost_usd" if objective == "cheapest" else "finish_s"
    assert getattr(searched, figure).likely <= 1.02 * getattr(truth, figure).likely


def test_a_function_that_ends_before_a_step_is_no_choice() -> None:
    assert REQUEST.scene is not None
    asked = request(workers=1, memory_mib=10240, scene=replace(REQUEST.scene, time_limit_s=10.0))
    assert forecast(survey(asked).plans[0]).limits["time_limit"] == "missed"


def test_every_constant_names_its_source() -> None:
    assumptions = survey(REQUEST).assumptions
    assert {"examples_per_vcpu_s", "start_base_s", "put_latency_s"} <= {each.name for each in assumptions}
    assert all(each.source for each in assumptions)


def test_optuna_is_imported_when_it_plans_and_not_before() -> None:
    code = "import sys, smlt.planners.optuna, smlt.cli.main; print('optuna' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"

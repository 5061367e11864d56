"""Single runs: without faults, with each kind of fault, and the same seed twice."""

from __future__ import annotations

from dataclasses import replace

import pytest

from smlt.simulator.scenario import KINDS, POINTS, Fault, Scenario, Timing
from smlt.simulator.simulation import Outcome, simulate
from smlt.simulator.trace import Trace

ENDED = {"cancel": ("cancelled",)}
"""How a run ends where it does not succeed."""


def run(scenario: Scenario) -> Outcome:
    outcome = simulate(scenario)
    assert outcome.broken == "", f"{scenario}: {outcome.broken}"
    return outcome


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 7, 50, 300])
def test_an_undisturbed_run_commits_every_step_on_every_rank_once(workers: int) -> None:
    outcome = run(Scenario(seed=1, workers=workers, steps=20, timing=Timing.of(workers)))
    assert (outcome.status, outcome.steps, outcome.commits) == ("succeeded", 20, 20 * workers)
    assert (outcome.generations, outcome.controllers) == (1, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_of_each_kind(kind: str) -> None:
    for workers in (1, 2, 5):
        for seed in range(3):
            fault = Fault(kind, at_s=6.0 + 5.0 * seed, rank=seed, seconds=4.0 + 5.0 * seed, factor=8.0)
            scenario = Scenario(seed, workers, 25, max_workers=2 * workers, faults=(fault,), save_every=5)
            assert run(scenario).status in ENDED.get(kind, ("succeeded",))


@pytest.mark.parametrize("kind", ["kill", "hang", "freeze"])
@pytest.mark.parametrize("point", POINTS)
def test_a_rank_that_fails_at_each_point(point: str, kind: str) -> None:
    for workers in (1, 3):
        for rank in range(min(workers, 2)):
            fault = Fault(kind, rank=rank, point=point, step=7 if point in ("compute", "commit") else 0, seconds=9.0)
            scenario = Scenario(3, workers, 15, max_workers=2 * workers, faults=(fault,), save_every=5, eval_every=4)
            assert run(scenario).status == "succeeded"


@pytest.mark.parametrize("workers", [1, 4, 30])
def test_a_time_limit_is_handed_over(workers: int) -> None:
    scenario = Scenario(2, workers, 60, max_workers=2 * workers, time_limit_s=40.0)
    outcome = run(scenario)
    assert outcome.status == "succeeded"
    assert outcome.generations >= 2
    alone = run(replace(scenario, max_workers=workers))  # there is no room for two generations
    assert alone.status == "succeeded"


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_budget_stops_a_run_before_it_is_passed(share: float) -> None:
    scenario = Scenario(4, 8, 60)
    cost_usd = run(scenario).spent_usd
    outcome = run(replace(scenario, budget_usd=share * cost_usd))
    assert (outcome.status, outcome.stop_reason) == ("stopped", "budget")
    assert outcome.spent_usd <= share * cost_usd


def test_private_state_comes_back_from_the_checkpoint() -> None:
    fault = Fault("kill", at_s=14.0, rank=1)
    scenario = Scenario(5, 3, 24, faults=(fault,), has_private=True, exchange_every=3, save_every=6)
    outcome = run(scenario)
    assert outcome.status == "succeeded"
    assert outcome.commits > 24 * 3  # some steps were made again


@pytest.mark.parametrize("exchange_every", [1, 4])
@pytest.mark.parametrize("lost", [0, 1])
def test_private_state_is_done_without(lost: int, exchange_every: int) -> None:
    fault = Fault("kill", at_s=14.0, rank=lost)
    rules = {"has_private": True, "exchange_every": exchange_every, "save_every": 20}
    scenario = Scenario(5, 3, 24, faults=(fault,), **rules)
    exact, fast = run(scenario), run(replace(scenario, recovers_fast=True))
    assert (exact.status, fast.status) == ("succeeded", "succeeded")
    assert fast.commits - 24 * 3 <= 3 * exchange_every  # those since the last exchange, by each rank
    assert fast.commits < exact.commits


def test_the_same_seed_gives_the_same_run() -> None:
    for seed in range(12):
        scenario = Scenario.random(seed, workers=1 + 3 * seed)
        first, second = (simulate(scenario, trace=lambda timeline: Trace(timeline, None)) for _ in range(2))
        assert first == second
        assert len(first.trace) > 20


def test_seeds_differ() -> None:
    outcomes = {simulate(Scenario.random(seed, workers=4, steps=10, kinds=())).virtual_s for seed in range(5)}
    assert len(outcomes) > 1

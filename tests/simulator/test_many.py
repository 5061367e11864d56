"""Five thousand runs of 1 to 1000 workers, with whatever can go wrong: every invariant holds in each."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from smlt.simulator.scenario import PERIODS, Scenario, parse_kinds
from smlt.simulator.simulation import simulate

BATCHES, RUNS = 50, 100


@pytest.mark.parametrize("batch", range(BATCHES))
def test_every_invariant_holds(batch: int) -> None:
    kinds = parse_kinds("all")
    broken = {}
    succeeded = impossible = 0
    for seed in range(batch * RUNS, (batch + 1) * RUNS):
        outcome = simulate(Scenario.random(seed, kinds=kinds))
        succeeded += outcome.status == "succeeded"
        impossible += outcome.stop_reason == "out of memory"  # it needs more than the platform's largest function has
        if outcome.broken:
            broken[seed] = outcome.broken
    assert broken == {}, "replay with: smlt simulate --seed SEED"
    assert succeeded > (RUNS - impossible) / 2


@pytest.mark.parametrize("batch", range(5))
def test_every_invariant_holds_where_private_state_is_done_without(batch: int) -> None:
    kinds = parse_kinds("all")
    broken = {}
    for seed in range(200_000 + batch * 100, 200_000 + (batch + 1) * 100):
        rules = {"has_private": True, "recovers_fast": True, "exchange_every": PERIODS[seed % len(PERIODS)]}
        outcome = simulate(replace(Scenario.random(seed, kinds=kinds), **rules))
        if outcome.broken:
            broken[seed] = outcome.broken
    assert broken == {}


@pytest.mark.parametrize("batch", range(10))
def test_ranks_hand_over_one_after_another_where_there_is_room_for_one_more(batch: int) -> None:
    """Five hundred runs under a time limit, with room for less than two generations."""
    kinds = parse_kinds("all")
    broken = {}
    succeeded = 0
    for seed in range(300_000 + batch * 50, 300_000 + (batch + 1) * 50):
        drawn = Scenario.random(seed, workers=2 + seed % 7, kinds=kinds)
        scenario = replace(drawn, has_private=False, exchange_every=1).with_little_room(Random(seed))
        outcome = simulate(scenario)
        succeeded += outcome.status == "succeeded"
        if outcome.broken:
            broken[seed] = outcome.broken
    assert broken == {}
    assert succeeded > 20


@pytest.mark.parametrize("batch", range(5))
def test_committed_money_never_passes_the_budget(batch: int) -> None:
    """A thousand runs that have one, at any price, with steps, starts and saves that take as long as they like."""
    kinds = parse_kinds("all")
    broken = {}
    stopped = 0
    for seed in range(100_000 + batch * 200, 100_000 + (batch + 1) * 200):
        scenario = Scenario.random(seed, workers=1 + seed % 20, kinds=kinds)
        likely_usd = scenario.workers * scenario.least_s * scenario.usd_per_function_s
        outcome = simulate(replace(scenario, budget_usd=likely_usd * (0.1 + seed % 17 / 10)))
        stopped += outcome.stop_reason == "budget"
        if outcome.broken:
            broken[seed] = outcome.broken
    assert broken == {}
    assert 20 < stopped < 180

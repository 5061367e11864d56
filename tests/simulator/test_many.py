"""Five thousand runs of 1 to 1000 workers, with whatever can go wrong: every invariant holds in each."""

from __future__ import annotations

import pytest

from smlt.simulator.scenario import Scenario, parse_kinds
from smlt.simulator.simulation import simulate

BATCHES, RUNS = 50, 100


@pytest.mark.parametrize("batch", range(BATCHES))
def test_every_invariant_holds(batch: int) -> None:
    kinds = parse_kinds("all")
    broken = {}
    succeeded = 0
    for seed in range(batch * RUNS, (batch + 1) * RUNS):
        outcome = simulate(Scenario.random(seed, kinds=kinds))
        succeeded += outcome.status == "succeeded"
        if outcome.broken:
            broken[seed] = outcome.broken
    assert broken == {}, "replay with: smlt simulate --seed SEED"
    assert succeeded > RUNS / 2

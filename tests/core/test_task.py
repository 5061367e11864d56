"""What tasks and their adapters are given: metrics over ranks, seeds, and the time of a step."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smlt.core.messages import StepRecord
from smlt.core.steptimer import StepTimer
from smlt.core.task import EvalPart, StepLoss, mean_metrics, seed_of
from tests.support.clocks import FakeClock

SUMS = st.lists(st.tuples(st.integers(-1000, 1000), st.integers(1, 50)), min_size=1, max_size=8)


@given(SUMS, st.integers(1, 4))
def test_metrics_are_the_weighted_mean_however_they_are_split_over_ranks(
    sums: list[tuple[int, int]], world_size: int
) -> None:
    parts = [
        EvalPart({"mse": (float(sum(total for total, _ in mine)), float(sum(weight for _, weight in mine)))})
        for mine in (sums[rank::world_size] for rank in range(world_size))
    ]
    expected = sum(total for total, _ in sums) / sum(weight for _, weight in sums)
    assert mean_metrics(parts) == {"mse": pytest.approx(expected)}


def test_a_metric_that_only_some_ranks_have_is_a_metric() -> None:
    assert mean_metrics([EvalPart({"a": (2.0, 4.0)}), EvalPart({"b": (3.0, 1.0)}), EvalPart()]) == {"a": 0.5, "b": 3.0}
    assert math.isnan(mean_metrics([EvalPart({"a": (0.0, 0.0)})])["a"])


def test_a_loss_is_a_mean() -> None:
    assert StepLoss(6.0, 4.0).mean == 1.5
    assert math.isnan(StepLoss(0.0, 0.0).mean)


def test_seeds_are_the_same_on_every_machine() -> None:
    """Figures of the first release: another seed is another course of every run there is."""
    assert (seed_of(0), seed_of(1, 2, 3)) == (7960286522194355700, 15205877802699428709)


@given(st.lists(st.integers(0, 2**63), min_size=1, max_size=4), st.lists(st.integers(0, 2**63), min_size=1, max_size=4))
def test_seeds_of_different_places_differ(one: list[int], other: list[int]) -> None:
    assert 0 <= seed_of(*one) < 2**64
    assert (seed_of(*one) == seed_of(*other)) == (one == other)


def test_the_laps_of_a_step_add_up() -> None:
    clock = FakeClock(50.0)
    timer = StepTimer(clock)
    clock.advance(9.0)
    timer.restart()
    for name, seconds in (("compute", 1.0), ("sync", 0.5), ("commit", 0.25)):
        clock.advance(seconds)
        timer.lap(name)
    assert timer.record(3, 1, 0.5, 16) == StepRecord(3, 1, 0.5, 16, 1.75, 1.0, 0.5, 0.25)
    for name in ("compute", "sync", "commit"):
        clock.advance(1.0)
        timer.lap(name)
    assert timer.record(4, 1, 0.5, 16).seconds == 3.0

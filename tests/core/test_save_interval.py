"""How often to save: what a checkpoint costs against what is lost without one."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smlt.core.save_interval import LEAST_S, MOST_S, PRIOR_MTBF_S, UPLOAD_SHARE, save_interval_s

SECONDS = st.floats(0.0, 1e7)


def lost_share(interval_s: float, cost_s: float, mtbf_s: float) -> float:
    """Of the time: checkpoints, and on the average half an interval for every set-back (Young 1974)."""
    return cost_s / interval_s + interval_s / 2 / mtbf_s


@given(st.floats(0.01, 2.0), st.floats(0.0, 10.0), st.integers(0, 50), st.floats(0.0, 1e5))
def test_no_other_interval_within_the_bounds_loses_less(
    stall_s: float, upload_s: float, setbacks: int, observed_s: float
) -> None:
    chosen = save_interval_s(stall_s, upload_s, setbacks, observed_s)
    cost_s, mtbf_s = stall_s + UPLOAD_SHARE * upload_s, (PRIOR_MTBF_S + observed_s) / (1 + setbacks)
    least = lost_share(chosen, cost_s, mtbf_s)
    for other in (LEAST_S, 0.5 * chosen, 0.9 * chosen, 1.1 * chosen, 2 * chosen, MOST_S):
        if LEAST_S <= other <= MOST_S:
            assert lost_share(other, cost_s, mtbf_s) >= least * (1 - 1e-9)


@given(SECONDS, SECONDS, st.integers(0, 10**6), SECONDS)
def test_the_interval_keeps_its_bounds(stall_s: float, upload_s: float, setbacks: int, observed_s: float) -> None:
    assert LEAST_S <= save_interval_s(stall_s, upload_s, setbacks, observed_s) <= MOST_S


def test_before_anything_is_known_a_run_saves_early() -> None:
    assert save_interval_s(0.0, 0.0, 0, 0.0) == LEAST_S


def test_a_run_that_is_set_back_often_saves_often_and_one_that_is_not_seldom() -> None:
    calm = save_interval_s(0.05, 0.0, 0, 0.0)
    assert calm == pytest.approx(math.sqrt(2 * 0.05 * 6 * 3600))
    assert save_interval_s(0.05, 0.0, 20, 600.0) < calm / 4
    assert save_interval_s(0.05, 0.0, 0, 7 * 86400.0) > 2 * calm

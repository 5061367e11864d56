"""Bootstrap intervals of medians."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smlt.report.intervals import median_interval


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5))
def test_few_values_give_their_range(values) -> None:
    found = median_interval(values)
    assert (found.low, found.high) == (min(values), max(values))
    assert found.likely == np.median(values)


def test_the_interval_covers_the_true_median_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    found = [median_interval(list(random.lognormal(size=15))) for _ in range(200)]
    covered = sum(each.low <= 1.0 <= each.high for each in found)
    assert 0.90 <= covered / 200 <= 0.99


def test_the_same_values_give_the_same_interval() -> None:
    assert median_interval([1.0, 2.0, 5.0] * 5) == median_interval([1.0, 2.0, 5.0] * 5)


@pytest.mark.parametrize("values", [[], [1.0, float("nan")]])
def test_nothing_and_no_numbers_have_no_median(values) -> None:
    with pytest.raises(ValueError, match="a median of"):
        median_interval(values)

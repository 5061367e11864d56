"""How sure a median of few measurements is: bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from smlt.core.forecast import Range

RESAMPLES = 10_000
CONFIDENCE = 0.95


def median_interval(values: Sequence[float], seed: int = 0) -> Range:
    """The median, and its percentile interval of 95 % (Efron, "Bootstrap methods", 1979).

    Of fewer than six values it is no narrower than from the least to the most; of one it is that one. The same values
    give the same interval.

    Raises:
        ValueError: there are no values, or one is no number.
    """
    if not values or not all(map(math.isfinite, values)):
        raise ValueError(f"a median of {list(values)}")
    found = np.asarray(values, dtype=np.float64)
    drawn = np.random.default_rng(seed).choice(found, size=(RESAMPLES, len(found)))
    medians = np.median(drawn, axis=1)
    outside = (1 - CONFIDENCE) / 2
    low, high = np.quantile(medians, [outside, 1 - outside])
    return Range(float(low), float(np.median(found)), float(high))

"""Numbers that are not finite: seen in one pass that allocates nothing."""

from __future__ import annotations

import numpy as np

from smlt.core.task import Array


def is_finite(array: Array) -> bool:
    """Whether all numbers are certainly finite, as their sum is; False also where finite numbers overflow in it."""
    with np.errstate(all="ignore"):
        return bool(np.isfinite(array.sum()))

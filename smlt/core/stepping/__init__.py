"""How one rank's steps become one computation of all: by sums at every step, or by an outer step now and then."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from smlt.core.stepping.every_step import EveryStep
from smlt.core.stepping.local_sgd import LocalSgd
from smlt.core.stepping.stepping import Stepping
from smlt.core.sync.names import EVERY_STEP, LOCAL_SGD

__all__ = ["STEPPINGS", "EveryStep", "LocalSgd", "Stepping"]

STEPPINGS: Mapping[str, type[Stepping]] = MappingProxyType({EVERY_STEP: EveryStep, LOCAL_SGD: LocalSgd})
"""By `[sync].mode`."""

"""Constants of a model: a value, how sure it is, and who says so. Predictions use no other figures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from smlt.core.catalog import Provenance
from smlt.core.errors import ConfigError

Values = Mapping[str, float]
"""A model's constants by name; units are in the names."""

SPREADS = MappingProxyType({"high": 1.25, "medium": 1.6, "low": 2.5})
"""How far, as a factor, a speed of a catalog may be off at one standard deviation, by the catalog's confidence: speeds
from memory differ from one publication to the next by 1.2 to 3 times."""


@dataclass(frozen=True)
class Constant:
    """One constant of a model, which is more than 0.

    Attributes:
        value: in the unit that its name says.
        spread: one standard deviation as a factor: at 2 it lies between half and twice the value in two cases of three;
            1 where it is not to be learned.
        source: who says so.

    Raises:
        ConfigError: value or spread cannot be.
    """

    value: float
    spread: float
    source: str

    def __post_init__(self) -> None:
        if not (math.isfinite(self.value) and self.value > 0 and self.spread >= 1):
            raise ConfigError(f"not a constant of a model: {self.value} within {self.spread} times ({self.source})")

    @classmethod
    def of(cls, value: float, said: Provenance) -> Constant:
        """A catalog's figure, as sure as the catalog is."""
        return cls(value, SPREADS[said.confidence], f"{said.source} ({said.as_of or 'the user'})")

    @property
    def is_fixed(self) -> bool:
        """Whether observations leave it as it is."""
        return self.spread == 1.0


def values_of(constants: Mapping[str, Constant]) -> dict[str, float]:
    """The values alone."""
    return {name: constant.value for name, constant in constants.items()}

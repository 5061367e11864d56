"""In-store reduction: the store itself adds up, and every rank sends and receives each number once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from smlt.core.sync.collectives import Collective, Seat
from smlt.core.sync.header import Header, merge
from smlt.core.task import Array, Region


class InStoreReduction(Collective):
    """Sums over all ranks by a store that adds contributions up in rank order: ((x0 + x1) + x2) + ….

    For N ranks and S bytes in R regions: R requests a rank, S bytes up and S down, 1 phase.

    Args:
        seat: whose side this is.
        regions: what a contribution consists of.
    """

    def __init__(self, seat: Seat, regions: tuple[Region, ...]) -> None:
        self._seat = seat
        self._arrays = [np.zeros(region.elements, region.dtype) for region in regions]

    def contribution(self, step: int) -> list[Array]:
        """The arrays in which the sums of the step before stood, zeroed."""
        for array in self._arrays:
            array.fill(0)
        return self._arrays

    def reduce(self, header: Header) -> tuple[Header, Sequence[Array]]:
        """Region after region through the store; all carry the same headers."""
        packed = header.packed()
        heard: list[bytes] = []
        for number, array in enumerate(self._arrays):
            key = self._seat.key(header.step, f"sum{number}", self._seat.rank)
            heard = self._seat.channel.reduce_into(key, packed, array, ranks=self._seat.world_size, patience=self._wait)
        return merge([Header.unpack(each) for each in heard]), self._arrays

    def _wait(self) -> None:
        self._seat.patience("sum", -1)

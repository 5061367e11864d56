"""In-store reduction: the store itself adds up, and every rank sends and receives each number once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from smlt.core.storage import Channel, ChannelKey
from smlt.core.sync.collectives import Collective, Patience
from smlt.core.sync.header import Header, merge
from smlt.core.task import Array, Region


class InStoreReduction(Collective):
    """Sums over all ranks by a store that adds contributions up in rank order: ((x0 + x1) + x2) + ….

    For N ranks and S bytes in R regions: R requests a rank, S bytes up and S down, 1 phase.

    Args:
        channel: this rank's client in this round; its store reduces.
        regions: what a contribution consists of.
        address: (generation, round) of all keys.
        rank, world_size: who this is, of at least two.
        patience: asked while others are waited for.
    """

    def __init__(
        self,
        channel: Channel,
        regions: tuple[Region, ...],
        address: tuple[int, int],
        rank: int,
        world_size: int,
        patience: Patience,
    ) -> None:
        self._channel, self._address, self._patience = channel, address, patience
        self._rank, self._world_size = rank, world_size
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
            key = ChannelKey(*self._address, header.step, f"sum{number}", self._rank)
            heard = self._channel.reduce_into(key, packed, array, ranks=self._world_size, patience=self._wait)
        return merge([Header.unpack(each) for each in heard]), self._arrays

    def _wait(self) -> None:
        self._patience("sum", -1)

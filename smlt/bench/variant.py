"""One way to add a vector up over all ranks: a channel of ours with its collective, or a peer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smlt.core.storage import Channel, ChannelStats
from smlt.core.sync.choice import collective_for
from smlt.core.sync.collectives import Seat
from smlt.core.sync.header import Header
from smlt.core.task import Region

Vector = NDArray[np.float32]


class Variant(ABC):
    """One rank's side. Steps count from 0, each is prepared and then reduced, and all ranks end one before the next."""

    @abstractmethod
    def prepare(self, step: int) -> Vector:
        """The memory that this rank's contribution is computed into; not timed."""

    @abstractmethod
    def reduce(self, step: int) -> Vector:
        """The sum of all ranks' contributions, 1-D, float32, valid until the next `prepare`; this is timed.

        Raises:
            Whatever went wrong: the measurement ends.
        """

    def stats(self) -> ChannelStats | None:
        """Requests and payload bytes so far; None where nobody counts them."""
        return None

    def close(self) -> None:
        """Release connections and memory."""
        return


class ChannelVariant(Variant):
    """A channel of ours, with the collective that a job would use over it."""

    def __init__(self, channel: Channel, rank: int, world_size: int, elements: int) -> None:
        self._channel = channel
        seat = Seat(channel, (1, 0), rank, world_size, lambda piece, peer: None)
        self._collective = collective_for(seat, (Region("float32", elements),), overlap=False)

    def prepare(self, step: int) -> Vector:
        """Where a backward pass would compute its gradients."""
        array: Any = self._collective.contribution(step)[0]
        return array  # type: ignore[no-any-return]

    def reduce(self, step: int) -> Vector:
        """As a step of a job does it."""
        array: Any = self._collective.reduce(Header(step))[1][0]
        return array  # type: ignore[no-any-return]

    def stats(self) -> ChannelStats:
        """The channel's own."""
        return self._channel.stats()

    def close(self) -> None:
        """The channel's client."""
        self._channel.close()

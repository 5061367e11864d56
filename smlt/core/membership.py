"""One rank's part in one round: its channel, the sums it shares in, and the small values it gathers from all."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from smlt.core import wire
from smlt.core.errors import ProtocolError
from smlt.core.storage import Channel, ChannelKey
from smlt.core.sync.choice import collective_for
from smlt.core.sync.collectives import Patience, all_gather
from smlt.core.sync.header import Header
from smlt.core.task import Array, TaskShape


class Membership:
    """Made when a round opens, closed when this rank leaves it.

    Args:
        channel: this rank's client in this round; None for a single rank.
        address: (generation, round).
        rank, world_size: who this is.
        shape: of the task; all ranks must have built the same.
        patience: asked while a peer is waited for.
    """

    def __init__(
        self,
        channel: Channel | None,
        address: tuple[int, int],
        rank: int,
        world_size: int,
        shape: TaskShape,
        patience: Patience,
    ) -> None:
        self._channel, self._address, self._rank, self._world_size = channel, address, rank, world_size
        self._shape, self._patience = shape, patience
        self._sums = collective_for(channel, shape.regions, address, rank, world_size, patience)
        self._gathered: deque[ChannelKey] = deque()

    @property
    def is_alone(self) -> bool:
        """Whether this is the only rank."""
        return self._channel is None

    def contribution(self, step: int) -> list[Array]:
        """Zeroed arrays for this rank's contribution to `step`, which it computes next.

        Whoever computes `step` has committed step - 1; so all have committed step - 2, and have gathered what was
        before that.
        """
        while self._gathered and self._gathered[0].step < step - 1:
            key = self._gathered.popleft()
            if self._channel is not None:
                self._channel.discard(key)
        return self._sums.contribution(step)

    def reduce(self, header: Header) -> tuple[Header, Sequence[Array]]:
        """All ranks' headers merged and contributions summed; see `Collective.reduce`."""
        return self._sums.reduce(header)

    def gather(self, own: bytes, piece: str, step: int) -> list[bytes]:
        """Every rank's value, in rank order."""
        key = ChannelKey(*self._address, step, piece, self._rank)
        self._gathered.append(key)
        return all_gather(self._channel, own, key, self._world_size, self._patience)

    def meet(self, occasion: str, step: int) -> None:
        """Wait until all ranks have come here, and check that they are one computation.

        At the beginning of a round it makes every channel known to every rank; at the end, once all have come, nobody
        needs anything more of anybody.

        Raises:
            ProtocolError: another rank has built another task.
        """
        own = wire.pack(self._shape)
        for rank, other in enumerate(self.gather(own, occasion, step)):
            if other != own:
                raise ProtocolError(
                    f"ranks {self._rank} and {rank} built different tasks: {_difference(own, other)}",
                    "build_model and train_data must give the same on every rank, in functions of the same image",
                )

    def close(self) -> None:
        """Release the channel."""
        if self._channel is not None:
            self._channel.close()


def _difference(own: bytes, other: bytes) -> str:
    mine, theirs = (wire.unpack(shape, TaskShape) for shape in (own, other))
    for name in TaskShape.__dataclass_fields__:
        if getattr(mine, name) != getattr(theirs, name):
            return f"{name} {getattr(mine, name)} and {getattr(theirs, name)}"
    return "they differ"

"""Collectives: patterns in which ranks that can only reach a store add up what each of them has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from smlt.core.errors import PeerLost, ProtocolError
from smlt.core.storage import Channel, ChannelKey
from smlt.core.sync.cost import SyncCost
from smlt.core.sync.header import Header, merge
from smlt.core.task import Array, Region

Patience = Callable[[str, int], None]
"""Called with what is waited for and whose it is, whenever waiting has taken another while; raises to give up."""

WAIT_SLICE_S = 0.2


@dataclass(frozen=True)
class Seat:
    """One rank's place among the ranks of a round.

    Attributes:
        channel: this rank's client in this round.
        address: (generation, round) of all keys.
        rank, world_size: who this is, of at least two.
        patience: asked while a peer is waited for.
        prefix: of the names of pieces, where several patterns share a round.
    """

    channel: Channel
    address: tuple[int, int]
    rank: int
    world_size: int
    patience: Patience
    prefix: str = ""

    def key(self, step: int, piece: str, rank: int) -> ChannelKey:
        """The key of a value that `rank` writes."""
        return ChannelKey(*self.address, step, self.prefix + piece, rank)

    def own_key(self, step: int, piece: str) -> ChannelKey:
        """The key of a value that this rank writes."""
        return self.key(step, piece, self.rank)


class Collective(ABC):
    """A pattern in which ranks add up their contributions, step by step; one rank's side of it, in one round.

    The sum has one canonical bracketing, stated by the pattern, so that it is the same on every rank, bit for bit.
    """

    @abstractmethod
    def contribution(self, step: int) -> list[Array]:
        """Zeroed arrays, one a region, for this rank's contribution to `step`.

        May be called once step - 1 is committed: then every rank has committed step - 2, whose memory this may be.
        """

    def reached(self, elements: int) -> None:  # noqa: B027  only who sends ahead wants to know
        """So many elements of the first region of the contribution in hand are final; called by any thread."""

    @abstractmethod
    def reduce(self, header: Header) -> tuple[Header, Sequence[Array]]:
        """Sum what `contribution(header.step)` was filled with over all ranks.

        Returns:
            The ranks' headers merged, and the sums, one array a region; valid until the next call.

        Raises:
            ProtocolError: ranks disagree on the step or on the state.
            Whatever the patience raises.
        """

    def commit(self) -> None:  # noqa: B027  only who feeds an error back keeps anything
        """The step that was reduced last is committed; until then it may be given up, and contributed to again."""

    def forget(self) -> None:  # noqa: B027  most patterns do nothing between two calls
        """The step in hand is given up; afterwards nothing of it goes on."""

    def private(self) -> dict[str, Array]:
        """What this rank carries from commit to commit and no other has, by name; live arrays."""
        return {}

    def close(self) -> None:  # noqa: B027  most patterns hold nothing
        """Stop whatever goes on; the channel is still open."""


class Alone(Collective):
    """The sum over a single rank: its contribution."""

    def __init__(self, regions: tuple[Region, ...]) -> None:
        self._arrays = [region.zeros() for region in regions]

    @staticmethod
    def cost(regions: Sequence[Region], rank: int = 0, world_size: int = 1) -> SyncCost:
        """Nothing travels."""
        return SyncCost({}, 0, 0, phases=0)

    def contribution(self, step: int) -> list[Array]:
        """The arrays, zeroed."""
        for array in self._arrays:
            array.fill(0)
        return self._arrays

    def reduce(self, header: Header) -> tuple[Header, Sequence[Array]]:
        """The arrays as they are."""
        return merge([header]), self._arrays


def wait_for(channel: Channel, key: ChannelKey, patience: Patience) -> memoryview:
    """A peer's value, seen in place where the channel can, asking `patience` while it is not there."""
    while True:
        try:
            seen = channel.view(key, timeout_s=WAIT_SLICE_S)
            return seen if seen is not None else memoryview(channel.get(key, timeout_s=WAIT_SLICE_S))
        except PeerLost:
            patience(key.piece, key.rank)


def read(channel: Channel, key: ChannelKey, room: memoryview, patience: Patience, offset: int = 0) -> memoryview:
    """A peer's value from `offset` on, as much as `room` holds; where it lies if the channel shows it, else in `room`.

    Asks `patience` while it is not there. To see that a value is no longer than it should be, give room for one more.
    """
    while True:
        try:
            seen = channel.view(key, timeout_s=WAIT_SLICE_S, offset=offset, length=room.nbytes)
            if seen is not None:
                return seen
            return room[: channel.get_into(key, room, timeout_s=WAIT_SLICE_S, offset=offset)]
        except PeerLost:
            patience(key.piece, key.rank)


def check_size(key: ChannelKey, found: int, expected: int) -> None:
    """Raise ProtocolError if a peer's value is of another size."""
    if found != expected:
        sent = f"{found} bytes" if found < expected else f"{found} bytes or more"
        raise ProtocolError(
            f"rank {key.rank} sent {sent} at step {key.step}, {expected} were expected",
            "do all ranks build the same model?",
        )


def all_gather_cost(sizes_bytes: Sequence[int], rank: int) -> SyncCost:
    """What `all_gather` costs a rank, where each rank's value is of such a size."""
    own = sizes_bytes[rank]
    return SyncCost({"put": 1, "get": len(sizes_bytes) - 1}, own, sum(sizes_bytes) - own, phases=1)


def all_gather(seat: Seat, own: bytes, step: int, piece: str) -> list[bytes]:
    """Every rank's small value, in rank order.

    N ranks, S bytes each: 1 put and N - 1 get a rank, S bytes up, (N - 1) S bytes down, 1 phase.
    """
    seat.channel.put(seat.own_key(step, piece), [own])
    return [
        own if peer == seat.rank else bytes(wait_for(seat.channel, seat.key(step, piece, peer), seat.patience))
        for peer in range(seat.world_size)
    ]

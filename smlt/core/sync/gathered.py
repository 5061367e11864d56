"""All-gather as a sum: for contributions so small that waiting twice costs more than the bytes that it would save."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from smlt.core.storage import ChannelKey
from smlt.core.sync.buckets import whole
from smlt.core.sync.collectives import Collective, Seat, check_size, read
from smlt.core.sync.cost import SyncCost
from smlt.core.sync.header import Header
from smlt.core.sync.payload import Packing, Payload
from smlt.core.task import Array, Region

ALL = "all"


class GatheredSum(Collective):
    """Sums over all ranks: each rank writes its whole contribution, reads those of all others, and adds up itself.

    The sum of an element is ((x0 + x1) + x2) + … over the ranks, computed by every rank.

    For N ranks and S bytes: 1 put and N - 1 get a rank, S bytes up and (N - 1) S down, and 64 bytes a request for its
    header; 1 phase.

    Args:
        seat: whose side this is.
        regions: what a contribution consists of.
    """

    def __init__(self, seat: Seat, regions: tuple[Region, ...]) -> None:
        self._seat = seat
        self._payload = Payload(regions)
        self._whole = whole(regions)
        self._size = self._payload.packing.size_bytes(self._whole)
        self._room = memoryview(bytearray(self._size + 1))

    @staticmethod
    def cost(regions: Sequence[Region], rank: int, world_size: int) -> SyncCost:
        """What a step costs a rank, whichever it is."""
        size, peers = Packing(regions).size_bytes(whole(regions)), world_size - 1
        return SyncCost({"put": 1, "get": peers}, size, peers * size, phases=1)

    def contribution(self, step: int) -> list[Array]:
        """Zeroed arrays, one a region; what was published two steps before is discarded."""
        self._seat.channel.discard(self._seat.own_key(step - 2, ALL))
        return self._payload.clear()

    def reduce(self, header: Header) -> tuple[Header, Sequence[Array]]:
        """Write the contribution, and add up all ranks' in their order."""
        parts = self._payload.outgoing(header, self._whole)
        self._seat.channel.put(self._seat.own_key(header.step, ALL), parts, readers=self._seat.world_size - 1)
        keys = [self._seat.key(header.step, ALL, peer) for peer in range(self._seat.world_size)]
        others = [key for key in keys if key.rank != self._seat.rank]
        is_ranged = self._seat.channel.capabilities.ranged
        self._seat.channel.expect(others, [(0, self._room.nbytes)] * len(others) if is_ranged else None)
        merged, _ = self._payload.add_up(self._whole, self._contributions(header, keys))
        return merged, self._payload.sums

    def _contributions(self, header: Header, keys: Sequence[ChannelKey]) -> Iterator[tuple[Header, memoryview | None]]:
        """All ranks' contributions, in rank order, each valid until the next is asked for."""
        for key in keys:
            if key.rank == self._seat.rank:
                yield header, None
            else:
                value = read(self._seat.channel, key, self._room, self._seat.patience)
                check_size(key, value.nbytes, self._size)
                yield Header.unpack(value), value

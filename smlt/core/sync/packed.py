"""ScatterReduce with one write a phase, for stores where a write is dear and a read by range is cheap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from smlt.core.errors import ProtocolError
from smlt.core.storage import ChannelKey
from smlt.core.sync.buckets import shard_of, whole
from smlt.core.sync.codecs import Codec
from smlt.core.sync.collectives import Collective, Seat, check_size, read
from smlt.core.sync.cost import SyncCost
from smlt.core.sync.header import Header
from smlt.core.sync.payload import Packing, Payload
from smlt.core.task import Array, Region


class PackedScatterReduce(Collective):
    """Sums over all ranks: each rank writes all shards of the others as one value, and they read theirs by range.

    The sum of an element is ((x0 + x1) + x2) + … over the ranks.

    For N ranks and S bytes: 2 put and 2 (N - 1) get a rank, S bytes up and 2 S (N - 1)/N down, and 64 bytes more for
    every shard's header; 2 phases. At list prices of S3 a PUT costs 12 GETs: hence few of those.

    Args:
        seat: whose side this is.
        regions: what a contribution consists of.
        codec: None for numbers as they are.
    """

    def __init__(self, seat: Seat, regions: tuple[Region, ...], codec: Codec | None = None) -> None:
        self._seat = seat
        self._payload = Payload(regions, codec)
        self._shards = [shard_of(whole(regions), regions, owner, seat.world_size) for owner in range(seat.world_size)]
        self._sizes = [self._payload.packing.size_bytes(shard) for shard in self._shards]
        self._scratch = memoryview(bytearray(max(self._sizes)))

    @staticmethod
    def cost(regions: Sequence[Region], rank: int, world_size: int, codec: Codec | None = None) -> SyncCost:
        """What a step costs a rank."""
        packing = Packing(regions, codec)
        sizes = [
            packing.size_bytes(shard_of(whole(regions), regions, owner, world_size)) for owner in range(world_size)
        ]
        peers, others = world_size - 1, sum(sizes) - sizes[rank]
        return SyncCost({"put": 2, "get": 2 * peers}, sum(sizes), peers * sizes[rank] + others, phases=2)

    def contribution(self, step: int) -> list[Array]:
        """Zeroed arrays, one a region; what was published two steps before is discarded."""
        for piece in ("grad", "sum"):
            self._seat.channel.discard(self._seat.own_key(step - 2, piece))
        return self._payload.clear()

    def reduce(self, header: Header) -> tuple[Header, Sequence[Array]]:
        """Write the others' shards, add up the own one, write it, and collect the others'."""
        step, own = header.step, self._shards[self._seat.rank]
        others = list(self._others(self._seat.rank))
        packed = self._payload.outgoing(header, *(self._shards[owner] for owner in others))
        self._seat.channel.put(self._seat.own_key(step, "grad"), packed)
        self._expect(step, "grad", [(peer, self._offset_in(peer), self._sizes[self._seat.rank]) for peer in others])
        merged, total = self._payload.add_up(own, self._contributions(header))
        self._seat.channel.put(self._seat.own_key(step, "sum"), total)
        self._expect(step, "sum", [(owner, 0, self._sizes[owner]) for owner in others])
        for owner in others:
            value = self._see(self._seat.key(step, "sum", owner), 0, self._sizes[owner])
            if value[: Header.SIZE] != merged.packed():
                raise ProtocolError(f"rank {owner} merged other headers at step {step}")
            self._payload.collect(self._shards[owner], value)
        return merged, self._payload.sums

    def commit(self) -> None:
        """What a codec lost is made up for in the next step."""
        self._payload.commit()

    def private(self) -> dict[str, Array]:
        """What a codec lost."""
        return self._payload.private()

    def _contributions(self, header: Header) -> Iterator[tuple[Header, memoryview | None]]:
        for peer in range(self._seat.world_size):
            if peer == self._seat.rank:
                yield header, None
            else:
                key = self._seat.key(header.step, "grad", peer)
                value = self._see(key, self._offset_in(peer), self._sizes[self._seat.rank])
                yield Header.unpack(value), value

    def _others(self, rank: int) -> Iterator[int]:
        return (owner for owner in range(self._seat.world_size) if owner != rank)

    def _offset_in(self, peer: int) -> int:
        """Where this rank's shard begins in what a peer writes for the others."""
        return sum(self._sizes[owner] for owner in self._others(peer) if owner < self._seat.rank)

    def _expect(self, step: int, piece: str, parts: Sequence[tuple[int, int, int]]) -> None:
        keys = [self._seat.key(step, piece, peer) for peer, _, _ in parts]
        self._seat.channel.expect(keys, [(offset, size) for _, offset, size in parts])

    def _see(self, key: ChannelKey, offset: int, size: int) -> memoryview:
        """A part of a peer's value, where it lies if the channel shows it, else copied out; valid until the next."""
        seen = read(self._seat.channel, key, self._scratch[:size], self._seat.patience, offset)
        check_size(key, seen.nbytes, size)
        return seen

"""ScatterReduce in memory that all ranks see, or whole values of a store: one value a rank and phase."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from smlt.core.errors import ProtocolError
from smlt.core.sync.buckets import ContributionLayout
from smlt.core.sync.collectives import Collective, Seat, check_size, wait_for
from smlt.core.sync.cost import SyncCost
from smlt.core.sync.header import Header, merge
from smlt.core.task import Array, Region

CACHED_BYTES = 256 << 10
"""Of each operand; sums of such pieces stay in a core's cache until they are copied."""


class ScatterReduce(Collective):
    """Sums over all ranks: each rank adds up one shard of all contributions, in rank order, and all collect the shards.

    The paper's hierarchical aggregation, packed: one value a rank and phase. The sum of an element is
    ((x0 + x1) + x2) + … over the ranks, whoever computes it, so the result is the same on every rank, bit for bit.

    For N ranks and S bytes: 2 put and 2 (N - 1) get a rank, S + S/N bytes up, 2 phases. Down, where values are seen in
    place, nothing: 2 S (N - 1)/N bytes are looked at. Elsewhere contributions are fetched whole, not by range:
    (N - 1) (S + S/N) bytes. (Facts of the pattern: LambdaML, arXiv 2105.07806, "ScatterReduce".)

    Args:
        seat: whose side this is.
        regions: what a contribution consists of.
    """

    def __init__(self, seat: Seat, regions: tuple[Region, ...]) -> None:
        self._seat = seat
        self._layout = ContributionLayout(regions, seat.world_size)
        self._shards = [self._layout.shard(owner) for owner in range(seat.world_size)]
        shard_bytes = self._layout.shard_bytes(self._shards[seat.rank])
        seat.channel.reserve(2 * (self._layout.size_bytes + shard_bytes))
        # Two of each, by parity: a peer may still read those of step t while step t + 1 is computed, but not t + 2.
        self._contributions = [seat.channel.allocate(self._layout.size_bytes) for _ in range(2)]
        self._reduced = [seat.channel.allocate(shard_bytes) for _ in range(2)]
        self._sums = [region.zeros() for region in regions]

    @staticmethod
    def cost(regions: Sequence[Region], rank: int, world_size: int) -> SyncCost:
        """What a step costs a rank; bytes that are only looked at, in place, count as down."""
        layout, peers = ContributionLayout(tuple(regions), world_size), world_size - 1
        shards = [layout.shard_bytes(layout.shard(owner)) for owner in range(world_size)]
        down = peers * layout.size_bytes + sum(shards) - shards[rank]
        return SyncCost({"put": 2, "get": 2 * peers}, layout.size_bytes + shards[rank], down, phases=2)

    def contribution(self, step: int) -> list[Array]:
        """Zeroed arrays over memory that the peers will read; that of step - 2, of which nobody needs anything now."""
        memory = self._contributions[step % 2]
        for piece in ("grad", "sum"):
            self._seat.channel.discard(self._seat.own_key(step - 2, piece))
        arrays = self._layout.arrays(memory)
        for array in arrays:
            array.fill(0)
        return arrays

    def reduce(self, header: Header) -> tuple[Header, Sequence[Array]]:
        """Publish the contribution, add up the own shard of all, publish it, and collect the others'."""
        step = header.step
        memory = self._contributions[step % 2]
        header.pack_into(memory)
        self._seat.channel.put(self._seat.own_key(step, "grad"), [memory])
        merged = self._reduce_own_shard(step, memory)
        self._collect(step)
        return merged, self._sums

    def _reduce_own_shard(self, step: int, own: memoryview) -> Header:
        spans = self._shards[self._seat.rank]
        shard = self._reduced[step % 2]
        values = [
            own if peer == self._seat.rank else self._read(step, "grad", peer, self._layout.size_bytes)
            for peer in range(self._seat.world_size)
        ]
        for span, total in zip(spans, self._layout.shard_arrays(shard, spans), strict=True):
            offset = self._layout.offset_bytes(span)
            parts = [np.frombuffer(value, total.dtype, span.elements, offset) for value in values]
            self._add_up(parts, total, span.of(self._sums))
        merged = merge([Header.unpack(value) for value in values])
        merged.pack_into(shard)
        self._seat.channel.put(self._seat.own_key(step, "sum"), [shard])
        return merged

    @staticmethod
    def _add_up(parts: Sequence[Array], total: Array, copy: Array) -> None:
        """Sum parts in their order, into `total` and into `copy`, so much at a time as a core's cache holds."""
        stride = max(1, CACHED_BYTES // total.itemsize)
        for start in range(0, len(total), stride):
            piece = slice(start, start + stride)
            np.add(parts[0][piece], parts[1][piece], out=total[piece])
            for part in parts[2:]:
                np.add(total[piece], part[piece], out=total[piece])
            copy[piece] = total[piece]

    def _collect(self, step: int) -> None:
        own = self._reduced[step % 2][: Header.SIZE]
        for owner, spans in enumerate(self._shards):
            if owner == self._seat.rank:
                continue
            value = self._read(step, "sum", owner, self._layout.shard_bytes(spans))
            if value[: Header.SIZE] != own:  # by bytes: a NaN equals itself
                raise ProtocolError(f"rank {owner} merged other headers at step {step}")
            for span, piece in zip(spans, self._layout.shard_arrays(value, spans), strict=True):
                np.copyto(span.of(self._sums), piece)

    def _read(self, step: int, piece: str, peer: int, size: int) -> memoryview:
        key = self._seat.key(step, piece, peer)
        value = wait_for(self._seat.channel, key, self._seat.patience)
        check_size(key, value.nbytes, size)
        return value

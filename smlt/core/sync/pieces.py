"""ScatterReduce in small pieces, for channels over a wire: values die young in the store, and nothing waits in turn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from smlt.core.errors import ProtocolError
from smlt.core.storage import ChannelKey
from smlt.core.sync.buckets import ContributionLayout
from smlt.core.sync.collectives import Collective, Seat, fetch_into
from smlt.core.sync.header import Header
from smlt.core.sync.values import Piece, add_up, arrays_of, cut, pieces_of, size_of, value_of
from smlt.core.task import Array, Region

PIECE_BYTES = 1 << 20
"""Larger values cost a store twice its processor time, in fresh memory; smaller ones cost requests."""

WINDOW = 2
"""Pieces of each peer on their way at once: enough to hide the round trip, few enough to die young."""


class PiecewiseScatterReduce(Collective):
    """Sums over all ranks: each rank adds up the pieces of its shard, in rank order, and all collect them.

    The sum of an element is ((x0 + x1) + x2) + … over the ranks. Piece c of every peer is written while piece c - 2 of
    the own shard is added up and piece c - 4 of the sums is collected, so that a round trip is waited for only once.

    For N ranks, S bytes, and P = ceil(S / N / 1 MiB) pieces a shard: P N put and 2 P (N - 1) get a rank, S bytes up and
    2 S (N - 1)/N down, and 64 bytes a request for its header; 2 phases.

    Args:
        seat: whose side this is.
        regions: what a contribution consists of.
        piece_bytes: the largest piece.
    """

    def __init__(self, seat: Seat, regions: tuple[Region, ...], piece_bytes: int = PIECE_BYTES) -> None:
        self._seat = seat
        layout = ContributionLayout(regions, seat.world_size)
        self._pieces = [pieces_of(layout, owner, piece_bytes) for owner in range(seat.world_size)]
        self._rounds = max(len(pieces) for pieces in self._pieces)
        self._peers = [(seat.rank + distance) % seat.world_size for distance in range(1, seat.world_size)]
        self._own = [np.zeros(region.elements, region.dtype) for region in regions]
        self._sums = [np.zeros(region.elements, region.dtype) for region in regions]
        largest = max(size_of(piece) for pieces in self._pieces for piece in pieces)
        self._scratch = memoryview(bytearray(largest))

    def contribution(self, step: int) -> list[Array]:
        """Zeroed arrays, one a region, for this rank's contribution to `step`."""
        for number in range(len(self._pieces[self._seat.rank])):
            self._seat.channel.discard(self._sum_key(step - 2, number, self._seat.rank))
        for array in self._own:
            array.fill(0)
        return self._own

    def reduce(self, header: Header) -> tuple[Header, Sequence[Array]]:
        """Sum what `contribution(header.step)` was filled with over all ranks; as `ScatterReduce.reduce`."""
        step = header.step
        self._seat.channel.expect(list(self._reads(step)))
        merged: Header | None = None
        for turn in range(self._rounds + 2 * WINDOW):
            self._write(header, turn)
            merged = self._add_up(header, turn - WINDOW, merged)
            self._collect(step, turn - 2 * WINDOW, merged)
        if merged is None:
            raise ProtocolError("no rank was heard")
        return merged, self._sums

    def _reads(self, step: int) -> Iterator[ChannelKey]:
        """The keys that `reduce` reads, in its order."""
        for turn in range(self._rounds + 2 * WINDOW):
            number = turn - WINDOW
            if 0 <= number < len(self._pieces[self._seat.rank]):
                for peer in range(self._seat.world_size):
                    if peer != self._seat.rank:
                        yield self._piece_key(step, self._seat.rank, number, peer)
            number = turn - 2 * WINDOW
            for owner in self._peers:
                if 0 <= number < len(self._pieces[owner]):
                    yield self._sum_key(step, number, owner)

    def _write(self, header: Header, number: int) -> None:
        for owner in self._peers:
            if number < len(self._pieces[owner]):
                piece = self._pieces[owner][number]
                key = self._piece_key(header.step, owner, number, self._seat.rank)
                self._seat.channel.put(key, value_of(header, piece, self._own), readers=1)

    def _add_up(self, header: Header, number: int, merged: Header | None) -> Header | None:
        if not 0 <= number < len(self._pieces[self._seat.rank]):
            return merged
        piece = self._pieces[self._seat.rank][number]
        totals = arrays_of(piece, self._sums)
        now = add_up(totals, self._contributions(header, number, piece, totals))
        if merged is not None and now.packed() != merged.packed():
            raise ProtocolError(f"a rank said one thing and then another at step {header.step}")
        key = self._sum_key(header.step, number, self._seat.rank)
        self._seat.channel.put(key, value_of(now, piece, self._sums), readers=self._seat.world_size - 1)
        return now

    def _contributions(
        self, header: Header, number: int, piece: Piece, totals: Sequence[Array]
    ) -> Iterator[tuple[Header, Iterable[Array]]]:
        """All ranks' contributions to a piece of the own shard, in rank order, each in the same memory."""
        for peer in range(self._seat.world_size):
            if peer == self._seat.rank:
                yield header, arrays_of(piece, self._own)
            else:
                value = self._fetch(self._piece_key(header.step, self._seat.rank, number, peer), piece)
                yield Header.unpack(value), cut(value, piece, totals)

    def _collect(self, step: int, number: int, merged: Header | None) -> None:
        for owner in self._peers:
            if not 0 <= number < len(self._pieces[owner]):
                continue
            piece = self._pieces[owner][number]
            value = self._fetch(self._sum_key(step, number, owner), piece)
            if merged is None or value[: Header.SIZE] != merged.packed():
                raise ProtocolError(f"rank {owner} merged other headers at step {step}")
            totals = arrays_of(piece, self._sums)
            for total, part in zip(totals, cut(value, piece, totals), strict=True):
                np.copyto(total, part)

    def _fetch(self, key: ChannelKey, piece: Piece) -> memoryview:
        value = self._scratch[: size_of(piece)]
        fetch_into(self._seat.channel, key, value, self._seat.patience)
        return value

    def _piece_key(self, step: int, owner: int, number: int, rank: int) -> ChannelKey:
        return self._seat.key(step, f"grad{owner}.{number}", rank)

    def _sum_key(self, step: int, number: int, owner: int) -> ChannelKey:
        return self._seat.key(step, f"sum{number}", owner)

"""ScatterReduce in small pieces, for channels over a wire: values die young in the store, and nothing waits in turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from smlt.core.errors import ProtocolError
from smlt.core.storage import ChannelKey
from smlt.core.sync.buckets import Bucket, buckets_of, shard_of
from smlt.core.sync.codecs import Codec
from smlt.core.sync.collectives import Seat, check_size, read
from smlt.core.sync.cost import SyncCost
from smlt.core.sync.header import Header
from smlt.core.sync.overlap import StreamingCollective
from smlt.core.sync.payload import Packing, Payload
from smlt.core.sync.progress import Progress
from smlt.core.task import Array, Region

PIECE_BYTES = 1 << 20
"""Of numbers as they are. Larger values cost a store twice its processor time, in fresh memory; smaller ones cost
requests."""

FIRST_BUCKET_BYTES = 1 << 20
"""Small, so that sending begins early."""

WINDOW = 2
"""Pieces of each peer on their way at once: enough to hide the round trip, few enough to die young."""


class Turns:
    """Which piece of whose shard travels in which turn: a bucket a turn, in which each rank owns a piece.

    Args:
        regions: of the contribution.
        world_size: ranks.
        piece_bytes: the largest piece.
    """

    def __init__(self, regions: Sequence[Region], world_size: int, piece_bytes: int = PIECE_BYTES) -> None:
        buckets = buckets_of(regions, world_size * piece_bytes, FIRST_BUCKET_BYTES)
        self._pieces = [
            [shard_of(bucket, regions, owner, world_size) for owner in range(world_size)] for bucket in buckets
        ]
        self._final = [
            bucket[-1].stop if bucket and bucket[-1].region == 0 and number < len(buckets) - 1 else None
            for number, bucket in enumerate(buckets)
        ]

    def __len__(self) -> int:
        return len(self._pieces)

    def piece(self, turn: int, owner: int) -> Bucket:
        """What `owner` adds up in this turn; may be empty."""
        return self._pieces[turn][owner]

    def await_numbers(self, turn: int, progress: Progress) -> Header:
        """Wait until the numbers of a turn are final; returns what travels with them: all that is said, in the last."""
        elements = self._final[turn]
        if turn == len(self) - 1:
            return progress.await_header()
        if elements is None:
            progress.await_header()
        else:
            progress.await_elements(elements)
        return Header(progress.step)


class PiecewiseScatterReduce(StreamingCollective):
    """Sums over all ranks: in each turn each rank adds up one piece, in rank order, and all collect them.

    The sum of an element is ((x0 + x1) + x2) + … over the ranks. The pieces of a turn are written while those of two
    turns before are added up and the sums of four turns before are collected, so that a round trip is waited for once.
    The pieces of a turn leave as soon as they are final.

    For N ranks, S bytes, and T = ceil((S - 1 MiB) / (N MiB)) + 1 turns: T N put and 2 T (N - 1) get a rank, S bytes up
    and 2 S (N - 1)/N down, and 64 bytes a request for its header; 2 phases.

    Args:
        seat: whose side this is.
        regions: what a contribution consists of.
        codec: None for numbers as they are.
        piece_bytes: the largest piece, before a codec.
    """

    def __init__(
        self, seat: Seat, regions: tuple[Region, ...], codec: Codec | None = None, piece_bytes: int = PIECE_BYTES
    ) -> None:
        self._seat = seat
        self._turns = Turns(regions, seat.world_size, piece_bytes)
        self._payload = Payload(regions, codec)
        self._peers = [(seat.rank + distance) % seat.world_size for distance in range(1, seat.world_size)]
        largest = max(
            self._payload.packing.size_bytes(self._turns.piece(turn, owner))
            for turn in range(len(self._turns))
            for owner in range(seat.world_size)
        )
        self._scratch = memoryview(bytearray(largest))

    @staticmethod
    def cost(
        regions: Sequence[Region],
        rank: int,
        world_size: int,
        codec: Codec | None = None,
        piece_bytes: int = PIECE_BYTES,
    ) -> SyncCost:
        """What a step costs a rank."""
        turns, packing = Turns(regions, world_size, piece_bytes), Packing(regions, codec)
        own = [packing.size_bytes(turns.piece(turn, rank)) for turn in range(len(turns))]
        others = sum(
            packing.size_bytes(turns.piece(turn, owner))
            for turn in range(len(turns))
            for owner in range(world_size)
            if owner != rank
        )
        peers = world_size - 1
        requests = {"put": len(turns) * world_size, "get": 2 * len(turns) * peers}
        return SyncCost(requests, others + sum(own), peers * sum(own) + others, phases=2)

    def contribution(self, step: int) -> list[Array]:
        """Zeroed arrays, one a region; what was published two steps before is discarded, if it is still there."""
        channel, rank = self._seat.channel, self._seat.rank
        for turn in range(len(self._turns)):
            channel.discard(self._sum_key(step - 2, turn, rank))
            for owner in self._peers:
                channel.discard(self._piece_key(step - 2, owner, turn, rank))
        return self._payload.clear()

    def stream(self, progress: Progress) -> tuple[Header, Sequence[Array]]:
        """Send what is final, turn by turn, add up, and collect."""
        self._seat.channel.expect(list(self._reads(progress.step)))
        said: deque[Header] = deque()
        merged: deque[Header] = deque()
        for turn in range(len(self._turns) + 2 * WINDOW):
            if turn < len(self._turns):
                said.append(self._write(progress, turn))
            if 0 <= turn - WINDOW < len(self._turns):
                merged.append(self._add_up(said.popleft(), turn - WINDOW))
            if turn - 2 * WINDOW >= 0:
                heard = merged.popleft()
                self._collect(heard, turn - 2 * WINDOW)
        return heard, self._payload.sums

    def commit(self) -> None:
        """What a codec lost is made up for in the next step."""
        self._payload.commit()

    def private(self) -> dict[str, Array]:
        """What a codec lost."""
        return self._payload.private()

    def _reads(self, step: int) -> Iterator[ChannelKey]:
        """The keys that `stream` reads, in its order."""
        for turn in range(len(self._turns) + 2 * WINDOW):
            if 0 <= turn - WINDOW < len(self._turns):
                for peer in range(self._seat.world_size):
                    if peer != self._seat.rank:
                        yield self._piece_key(step, self._seat.rank, turn - WINDOW, peer)
            if turn - 2 * WINDOW >= 0:
                for owner in self._peers:
                    yield self._sum_key(step, turn - 2 * WINDOW, owner)

    def _write(self, progress: Progress, turn: int) -> Header:
        header = self._turns.await_numbers(turn, progress)
        for owner in self._peers:
            parts = self._payload.outgoing(header, self._turns.piece(turn, owner))
            self._seat.channel.put(self._piece_key(header.step, owner, turn, self._seat.rank), parts, readers=1)
        return header

    def _add_up(self, header: Header, turn: int) -> Header:
        piece = self._turns.piece(turn, self._seat.rank)
        merged, parts = self._payload.add_up(piece, self._contributions(header, turn, piece))
        key = self._sum_key(header.step, turn, self._seat.rank)
        self._seat.channel.put(key, parts, readers=self._seat.world_size - 1)
        return merged

    def _contributions(self, header: Header, turn: int, piece: Bucket) -> Iterator[tuple[Header, memoryview | None]]:
        """All ranks' contributions to a piece of the own shard, in rank order, each in the same memory."""
        for peer in range(self._seat.world_size):
            if peer == self._seat.rank:
                yield header, None
            else:
                value = self._fetch(self._piece_key(header.step, self._seat.rank, turn, peer), piece)
                yield Header.unpack(value), value

    def _collect(self, merged: Header, turn: int) -> None:
        for owner in self._peers:
            piece = self._turns.piece(turn, owner)
            value = self._fetch(self._sum_key(merged.step, turn, owner), piece)
            if value[: Header.SIZE] != merged.packed():  # by bytes: a NaN equals itself
                raise ProtocolError(f"rank {owner} merged other headers at step {merged.step}")
            self._payload.collect(piece, value)

    def _fetch(self, key: ChannelKey, piece: Bucket) -> memoryview:
        room = self._scratch[: self._payload.packing.size_bytes(piece)]
        value = read(self._seat.channel, key, room, self._seat.patience)
        check_size(key, value.nbytes, room.nbytes)
        return value

    def _piece_key(self, step: int, owner: int, turn: int, rank: int) -> ChannelKey:
        return self._seat.key(step, f"grad{owner}.{turn}", rank)

    def _sum_key(self, step: int, turn: int, owner: int) -> ChannelKey:
        return self._seat.key(step, f"sum{turn}", owner)

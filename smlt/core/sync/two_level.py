"""ScatterReduce on two levels, for many ranks: within groups, then across them, and requests grow with the root."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from smlt.core.errors import ProtocolError
from smlt.core.storage import Buffer, ChannelKey
from smlt.core.sync.buckets import Span
from smlt.core.sync.collectives import Seat, check_size, read
from smlt.core.sync.cost import SyncCost
from smlt.core.sync.header import Header, merge
from smlt.core.sync.overlap import StreamingCollective
from smlt.core.sync.payload import Payload
from smlt.core.sync.pieces import WINDOW
from smlt.core.sync.progress import Progress
from smlt.core.sync.refusal import header_of, refusal
from smlt.core.sync.routes import STAGES, Read, Routes
from smlt.core.task import Array, Region

PIECE_BYTES = 4 << 20
"""Of what is read as one within a group; across groups it is by the number of groups less. Smaller pieces would take
back what groups save in requests."""


class TwoLevelScatterReduce(StreamingCollective):
    """Sums over all ranks: each group adds up its own, then the groups' sums are added, and all collect them.

    The sum of an element is (S0 + S1) + S2 + … over the groups, where S is ((x0 + x1) + x2) + … over a group's ranks;
    groups are as `routes.Groups` makes them. Contributions travel turn by turn, as in `PiecewiseScatterReduce`. Where
    they do not fit together, whoever sees it says so in place of a header, and goes on: at the end of the step all
    ranks have heard of it.

    For N = g² ranks, S bytes, and T = ceil((S - 1 MiB) / (4 g MiB)) + 1 turns: 2 T g put, 4 T where they are read by
    range, and 4 T (g - 1) get a rank, S (1 + 1/g) bytes up and 2 S (N - 1)/N down, and 64 bytes for each header; 4
    phases. Between squares a little more or less; of two groups of unlike size the larger one has a member that owns
    nothing, with S bytes up and S down.

    Args:
        seat: whose side this is, of at least 4 ranks.
        regions: what a contribution consists of.
        piece_bytes: the largest piece that is read.

    Raises:
        ConfigError: there are too few ranks.
    """

    def __init__(self, seat: Seat, regions: tuple[Region, ...], piece_bytes: int = PIECE_BYTES) -> None:
        self._seat = seat
        self._is_ranged = seat.channel.capabilities.ranged
        self._routes = Routes(regions, seat.rank, seat.world_size, piece_bytes, packed=self._is_ranged)
        self._payload = Payload(regions)
        # Where values are read whole, room for one byte more tells a value that is too long.
        self._room = memoryview(bytearray(max(read.size_bytes for read in self._routes.all_reads()) + 1))
        self._trouble: ProtocolError | None = None

    @staticmethod
    def cost(
        regions: Sequence[Region],
        rank: int,
        world_size: int,
        piece_bytes: int = PIECE_BYTES,
        *,
        packed: bool = False,
    ) -> SyncCost:
        """What a step costs a rank; `packed` where the channel reads by range."""
        routes = Routes(regions, rank, world_size, piece_bytes, packed=packed)
        writes, reads = list(routes.all_writes()), list(routes.all_reads())
        up, down = sum(map(routes.size_bytes, writes)), sum(each.size_bytes for each in reads)
        return SyncCost({"put": len(writes), "get": len(reads)}, up, down, phases=STAGES - 1)

    def contribution(self, step: int) -> list[Array]:
        """Zeroed arrays, one a region; what was published two steps before is discarded."""
        for write in self._routes.all_writes():
            self._seat.channel.discard(self._seat.own_key(step - 2, write.piece))
        return self._payload.clear()

    def stream(self, progress: Progress) -> tuple[Header, Sequence[Array]]:
        """Send what is final, turn by turn, add up on two levels, and collect."""
        step, self._trouble = progress.step, None
        self._expect(step)
        heads = [b""] * len(self._routes.turns)
        for stage, turn in self._schedule():
            if stage == 0:
                heads[turn] = self._routes.turns.await_numbers(turn, progress).packed()
            elif stage <= 2:
                if self._routes.is_owner:
                    heads[turn] = self._add_up(step, stage, turn, heads[turn])
            else:
                heads[turn] = self._collect(step, stage, turn, heads[turn])
            self._write(step, stage, turn, heads[turn])
        if self._trouble:
            raise self._trouble
        return [header_of(head) for head in heads][-1], self._payload.sums

    def _schedule(self) -> Iterator[tuple[int, int]]:
        """Stages and turns in their order: a value is read `WINDOW` rounds after it was written."""
        turns = len(self._routes.turns)
        for number in range(turns + (STAGES - 1) * WINDOW):
            for stage in range(STAGES):
                if 0 <= number - stage * WINDOW < turns:
                    yield stage, number - stage * WINDOW

    def _expect(self, step: int) -> None:
        reads = [each for stage, turn in self._schedule() for each in self._routes.reads(stage, turn)]
        ranges = [(each.offset, each.size_bytes) for each in reads]
        self._seat.channel.expect([self._key(step, each) for each in reads], ranges if self._is_ranged else None)

    def _write(self, step: int, stage: int, turn: int, head: bytes) -> None:
        source = self._payload.own if stage <= 1 else self._payload.sums
        for write in self._routes.writes(stage, turn):
            parts: list[Buffer] = []
            for bucket in write.buckets:
                parts += [head, *(span.of(source).data.cast("B") for span in bucket)]
            self._seat.channel.put(self._seat.own_key(step, write.piece), parts, readers=write.readers)

    def _add_up(self, step: int, stage: int, turn: int, own_head: bytes) -> bytes:
        """Put the sum of what is read, and of the own numbers, in rank order into `sums`; returns what all say."""
        bucket = self._routes.added_up(stage, turn)
        reads = {each.rank: each for each in self._routes.reads(stage, turn)}
        own_numbers, heads = self._payload.own_numbers(bucket), []
        for number, rank in enumerate(sorted([*reads, self._seat.rank])):
            head, parts = self._fetch(step, reads[rank]) if rank in reads else (own_head, own_numbers)
            heads.append(head)
            self._payload.accumulate(parts, first=not number)
        if stage == 1:  # the group's sum is what this rank contributes to the next stage
            for span in bucket:
                np.copyto(span.of(self._payload.own), span.of(self._payload.sums))
        try:
            return merge([header_of(head) for head in heads]).packed()
        except ProtocolError as error:
            return self._refuse(error)

    def _collect(self, step: int, stage: int, turn: int, head: bytes) -> bytes:
        """Take over sums, which must all come with the same header; returns it."""
        agreed = head if self._routes.is_owner else None
        for each in self._routes.reads(stage, turn):
            found, parts = self._fetch(step, each)
            self._payload.accumulate(parts, first=True)
            if agreed is None:
                agreed = found
            elif found != agreed:  # by bytes: a NaN equals itself
                agreed = self._differing(agreed, found, each.rank, step)
        return head if agreed is None else agreed

    def _differing(self, mine: bytes, found: bytes, rank: int, step: int) -> bytes:
        try:
            header_of(mine)
            header_of(found)
            raise ProtocolError(f"rank {rank} merged other headers at step {step}")
        except ProtocolError as error:
            return self._refuse(error)

    def _fetch(self, step: int, each: Read) -> tuple[bytes, Iterator[tuple[Span, Array]]]:
        """How a peer's value begins, and its numbers, valid until the next call; none if it is of another size."""
        key = self._key(step, each)
        room = self._room[: each.size_bytes + (not self._is_ranged)]
        value = read(self._seat.channel, key, room, self._seat.patience, each.offset)
        try:
            check_size(key, value.nbytes, each.size_bytes)
        except ProtocolError as error:
            return self._refuse(error), iter(())
        return bytes(value[: Header.SIZE]), self._payload.numbers_of(value, each.bucket)

    def _refuse(self, error: ProtocolError) -> bytes:
        """Remember for the end of the step what is wrong, and say it to others instead of a header."""
        self._trouble = self._trouble or error
        return refusal(error)

    def _key(self, step: int, each: Read) -> ChannelKey:
        return self._seat.key(step, each.piece, each.rank)

"""Who sends which part of a contribution to whom, where ranks add up in groups: a plan as data; nothing acts here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isqrt

from smlt.core.errors import ConfigError
from smlt.core.sync.buckets import Bucket, shard_of
from smlt.core.sync.payload import Packing
from smlt.core.sync.pieces import Turns
from smlt.core.task import Region

SMALLEST_WORLD = 4
"""Ranks: fewer make no two groups of two."""

PIECES = ("grad", "part", "mean", "sum")
"""What the values are called that each stage writes, and the next one reads."""

STAGES = 5


@dataclass(frozen=True)
class Groups:
    """Ranks one after the other in about as many groups as each has members; sizes differ by one at most.

    In every group the member at place j is responsible for shard j. There are as many shards as the smallest group has
    members: who comes after these owns nothing.
    """

    world_size: int

    def __post_init__(self) -> None:
        if self.world_size < SMALLEST_WORLD:
            raise ConfigError(
                f"{self.world_size} ranks make no two groups of two",
                f"two levels need {SMALLEST_WORLD} workers; choose another pattern",
            )

    @property
    def count(self) -> int:
        """How many groups there are."""
        return isqrt(self.world_size)

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return self.world_size // self.count

    def members(self, group: int) -> range:
        """Its ranks."""
        return range(self.world_size * group // self.count, self.world_size * (group + 1) // self.count)

    def of(self, rank: int) -> int:
        """The group of a rank."""
        return next(group for group in range(self.count) if rank in self.members(group))


@dataclass(frozen=True)
class Write:
    """A value that a rank writes: what `buckets` name, a header before each.

    Attributes:
        piece: of its key.
        buckets: one behind the other.
        readers: how many ranks read it, or a part of it.
    """

    piece: str
    buckets: tuple[Bucket, ...]
    readers: int


@dataclass(frozen=True)
class Read:
    """A header and a bucket that a rank reads, at an offset in a value that another one, `rank`, writes."""

    piece: str
    rank: int
    bucket: Bucket
    offset: int
    size_bytes: int


class Routes:
    """What one rank reads and writes in a step, by stage and turn.

    In stage 0 it writes its contribution for the owners in its group; in stage 1 an owner reads these, and writes the
    sum of its shard for the owners of the same shard in other groups, to each a part of it; in stage 2 it reads such
    parts and writes the sum of its own; in stage 3 it reads the sums of the other parts and writes the whole shard for
    its group; in stage 4 all read the shards.

    Args:
        regions: of the contribution.
        rank: whose.
        world_size: ranks.
        piece_bytes: the largest part that is read as one, without its header.
        packed: whether what a rank writes for several, to each another part, is one value, read by range.
    """

    def __init__(
        self, regions: Sequence[Region], rank: int, world_size: int, piece_bytes: int, *, packed: bool
    ) -> None:
        self._regions, self._rank, self._packed = regions, rank, packed
        self._packing = Packing(regions)
        groups = Groups(world_size)
        self._group = groups.of(rank)
        self._members = groups.members(self._group)
        self._place = rank - self._members.start
        self._owners = self._members[: groups.shards]
        self.is_owner = rank in self._owners
        """Whether the rank is responsible for a shard."""
        column = [groups.members(group).start + self._place for group in range(groups.count)]
        self._column = column if self.is_owner else []
        self.turns = Turns(regions, groups.shards, piece_bytes)
        self._writes = [[self._written(stage, turn) for turn in range(len(self.turns))] for stage in range(STAGES)]
        self._reads = [[list(self._read(stage, turn)) for turn in range(len(self.turns))] for stage in range(STAGES)]

    def writes(self, stage: int, turn: int) -> list[Write]:
        """What the rank writes at the end of a stage."""
        return self._writes[stage][turn]

    def reads(self, stage: int, turn: int) -> list[Read]:
        """What the rank reads in a stage, from others in the order of their ranks."""
        return self._reads[stage][turn]

    def added_up(self, stage: int, turn: int) -> Bucket:
        """What the rank adds up in stage 1 or 2."""
        return self.turns.piece(turn, self._place) if stage == 1 else self._part(turn, self._group)

    def all_writes(self) -> Iterator[Write]:
        """What the rank writes in a step."""
        return (write for stage in self._writes for turn in stage for write in turn)

    def all_reads(self) -> Iterator[Read]:
        """What the rank reads in a step."""
        return (read for stage in self._reads for turn in stage for read in turn)

    def size_bytes(self, write: Write) -> int:
        """Bytes of a value."""
        return sum(map(self._packing.size_bytes, write.buckets))

    def _part(self, turn: int, group: int) -> Bucket:
        """The part of the own shard that the owner in a group adds up over all groups."""
        return shard_of(self.turns.piece(turn, self._place), self._regions, group, len(self._column))

    def _shards(self, turn: int) -> dict[int, Bucket]:
        """The shards, by the rank of the group's that owns them."""
        return {owner: self.turns.piece(turn, place) for place, owner in enumerate(self._owners)}

    def _parts(self, turn: int) -> dict[int, Bucket]:
        """The parts of the own shard, by the rank that adds them up."""
        return {owner: self._part(turn, group) for group, owner in enumerate(self._column)}

    def _written(self, stage: int, turn: int) -> list[Write]:
        if stage == 0:
            return self._scattered(stage, turn, self._shards(turn))
        if stage == 1:
            return self._scattered(stage, turn, self._parts(turn))
        if stage == 2 and self.is_owner:
            part = self._part(turn, self._group)
            return [Write(f"{PIECES[stage]}{turn}", (part,), len(self._column) - 1)]
        if stage == 3 and self.is_owner:
            return [Write(f"{PIECES[stage]}{turn}", (self.turns.piece(turn, self._place),), len(self._members) - 1)]
        return []

    def _scattered(self, stage: int, turn: int, by_rank: Mapping[int, Bucket]) -> list[Write]:
        others = {rank: bucket for rank, bucket in by_rank.items() if rank != self._rank}
        if self._packed:
            return [Write(f"{PIECES[stage]}{turn}", tuple(others.values()), len(others))] if others else []
        return [Write(f"{PIECES[stage]}{turn}.{rank}", (bucket,), 1) for rank, bucket in others.items()]

    def _read(self, stage: int, turn: int) -> Iterator[Read]:
        if stage == 1 and self.is_owner:
            yield from self._gathered(stage, turn, self._members, self._shards(turn))
        elif stage == 2 and self.is_owner:
            yield from self._gathered(stage, turn, self._column, self._parts(turn))
        elif stage in (3, 4):
            for rank, bucket in (self._parts(turn) if stage == 3 else self._shards(turn)).items():
                if rank != self._rank:
                    size = self._packing.size_bytes(bucket)
                    yield Read(f"{PIECES[stage - 1]}{turn}", rank, bucket, 0, size)

    def _gathered(self, stage: int, turn: int, writers: Sequence[int], by_rank: Mapping[int, Bucket]) -> Iterator[Read]:
        """What `writers` have scattered for this rank, given what each of them writes for whom."""
        bucket = by_rank[self._rank]
        sizes = {rank: self._packing.size_bytes(each) for rank, each in by_rank.items()}
        for writer in writers:
            if writer != self._rank:
                before = sum(size for rank, size in sizes.items() if rank < self._rank and rank != writer)
                suffix, offset = ("", before) if self._packed else (f".{self._rank}", 0)
                yield Read(f"{PIECES[stage - 1]}{turn}{suffix}", writer, bucket, offset, sizes[self._rank])

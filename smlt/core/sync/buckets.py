"""How a contribution is cut: into buckets that travel one after the other, and each of these into a shard a rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from smlt.core.sync.header import Header
from smlt.core.task import Array, Region

ALIGNMENT = 64
"""Bytes; a cache line, and enough for every vector instruction set."""


@dataclass(frozen=True)
class Span:
    """A run of elements of one region."""

    region: int
    start: int
    elements: int

    @property
    def stop(self) -> int:
        """The element after the last one."""
        return self.start + self.elements

    def of(self, arrays: Sequence[Array] | Mapping[int, Array]) -> Array:
        """The span in place, in the arrays of its region's contribution; by the number of the region."""
        return arrays[self.region][self.start : self.stop]


Bucket = tuple[Span, ...]
"""Spans of regions, in their order."""


def whole(regions: Sequence[Region]) -> Bucket:
    """All of a contribution as one bucket."""
    return tuple(Span(number, 0, region.elements) for number, region in enumerate(regions) if region.elements)


def buckets_of(regions: Sequence[Region], bucket_bytes: int, first_bytes: int | None = None) -> list[Bucket]:
    """A contribution in buckets, in the order in which it becomes final; never none, so that all ranks are heard.

    Args:
        regions: of the contribution.
        bucket_bytes: the largest bucket, but for one element that is larger.
        first_bytes: the largest first bucket, which is small so that sending begins early.
    """
    buckets: list[Bucket] = []
    spans: list[Span] = []
    room = bucket_bytes if first_bytes is None else min(first_bytes, bucket_bytes)
    for number, region in enumerate(regions):
        start = 0
        while start < region.elements:
            if room < region.itemsize and spans:
                buckets.append(tuple(spans))
                spans, room = [], bucket_bytes
            count = min(max(1, room // region.itemsize), region.elements - start)
            spans.append(Span(number, start, count))
            start += count
            room -= count * region.itemsize
    return [*buckets, tuple(spans)] if spans or not buckets else buckets


def shard_of(bucket: Bucket, regions: Sequence[Region], owner: int, owners: int) -> Bucket:
    """The spans that one of so many owners reduces: of each span a contiguous piece, cut between cache lines."""
    spans = []
    for span in bucket:
        line = max(1, ALIGNMENT // regions[span.region].itemsize)
        lines = -(-span.elements // line)
        start = min(lines * owner // owners * line, span.elements)
        stop = min(lines * (owner + 1) // owners * line, span.elements)
        if stop > start:
            spans.append(Span(span.region, span.start + start, stop - start))
    return tuple(spans)


@dataclass(frozen=True)
class ContributionLayout:
    """A contribution as one value: a header, then every region from an aligned offset.

    Attributes:
        regions: as the task states them.
        world_size: ranks, hence shards.
    """

    regions: tuple[Region, ...]
    world_size: int

    @cached_property
    def offsets_bytes(self) -> tuple[int, ...]:
        """Where each region starts, and where the last one ends."""
        offsets, at = [], Header.SIZE
        for region in self.regions:
            offsets.append(at)
            at += _aligned(region.size_bytes)
        return (*offsets, at)

    @property
    def size_bytes(self) -> int:
        """Bytes of a whole contribution, header included."""
        return self.offsets_bytes[-1]

    def arrays(self, memory: memoryview) -> list[Array]:
        """The regions of a contribution as 1-D arrays over its memory."""
        return [
            np.frombuffer(memory, dtype=region.dtype, count=region.elements, offset=offset)
            for region, offset in zip(self.regions, self.offsets_bytes, strict=False)
        ]

    def shard(self, rank: int) -> Bucket:
        """The spans that `rank` reduces: of each region a contiguous piece that starts on a cache line."""
        return shard_of(whole(self.regions), self.regions, rank, self.world_size)

    def offset_bytes(self, span: Span) -> int:
        """Where a span starts in a contribution."""
        return self.offsets_bytes[span.region] + span.start * self.regions[span.region].itemsize

    def span_bytes(self, span: Span) -> int:
        """Bytes of a span."""
        return span.elements * self.regions[span.region].itemsize

    def shard_bytes(self, spans: Sequence[Span]) -> int:
        """Bytes of a reduced shard: a header, then its spans, each from an aligned offset."""
        return Header.SIZE + sum(_aligned(self.span_bytes(span)) for span in spans)

    def shard_arrays(self, memory: memoryview, spans: Sequence[Span]) -> list[Array]:
        """The spans of a reduced shard as 1-D arrays over its memory."""
        arrays, at = [], Header.SIZE
        for span in spans:
            arrays.append(np.frombuffer(memory, dtype=self.regions[span.region].dtype, count=span.elements, offset=at))
            at += _aligned(self.span_bytes(span))
        return arrays


def _aligned(size_bytes: int) -> int:
    return -(-size_bytes // ALIGNMENT) * ALIGNMENT

"""How a contribution lies in memory, and which part of it which rank reduces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from smlt.core.sync.header import Header
from smlt.core.task import Array, Region

ALIGNMENT = 64
"""Bytes; a cache line, and enough for every vector instruction set."""


@dataclass(frozen=True)
class Span:
    """A run of elements of one region: its place in the contribution in bytes, and in the region in elements."""

    region: int
    offset_bytes: int
    start: int
    elements: int


@dataclass(frozen=True)
class ContributionLayout:
    """A header, then every region from an aligned offset; each region is cut into one shard a rank.

    Attributes:
        regions: as the task states them.
        world_size: ranks, hence shards.
    """

    regions: tuple[Region, ...]
    world_size: int

    @cached_property
    def offsets_bytes(self) -> tuple[int, ...]:
        """Where each region starts."""
        offsets, at = [], Header.SIZE
        for region in self.regions:
            offsets.append(at)
            at += -(-region.size_bytes // ALIGNMENT) * ALIGNMENT
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

    def shard(self, rank: int) -> list[Span]:
        """The spans that `rank` reduces: of each region a contiguous piece that starts on a cache line."""
        spans = []
        for number, (region, offset) in enumerate(zip(self.regions, self.offsets_bytes, strict=False)):
            itemsize = np.dtype(region.dtype).itemsize
            line = ALIGNMENT // itemsize
            lines = -(-region.elements // line)
            start = min(lines * rank // self.world_size * line, region.elements)
            stop = min(lines * (rank + 1) // self.world_size * line, region.elements)
            if stop > start:
                spans.append(Span(number, offset + start * itemsize, start, stop - start))
        return spans

    def span_bytes(self, span: Span) -> int:
        """Bytes of a span."""
        return span.elements * int(np.dtype(self.regions[span.region].dtype).itemsize)

    def shard_bytes(self, spans: Sequence[Span]) -> int:
        """Bytes of a reduced shard: a header, then its spans, each from an aligned offset."""
        return Header.SIZE + sum(-(-self.span_bytes(span) // ALIGNMENT) * ALIGNMENT for span in spans)

    def shard_arrays(self, memory: memoryview, spans: Sequence[Span]) -> list[Array]:
        """The spans of a reduced shard as 1-D arrays over its memory."""
        arrays, at = [], Header.SIZE
        for span in spans:
            arrays.append(np.frombuffer(memory, dtype=self.regions[span.region].dtype, count=span.elements, offset=at))
            at += -(-self.span_bytes(span) // ALIGNMENT) * ALIGNMENT
        return arrays

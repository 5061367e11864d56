"""In-store reduction: the store itself adds up, and every rank sends and receives each number once."""

from __future__ import annotations

from collections.abc import Sequence

from smlt.core.sync.buckets import buckets_of
from smlt.core.sync.collectives import Seat
from smlt.core.sync.cost import SyncCost
from smlt.core.sync.header import Header, merge
from smlt.core.sync.overlap import StreamingCollective
from smlt.core.sync.progress import Progress
from smlt.core.task import Array, Region

FIRST_BUCKET_BYTES = 1 << 20
BUCKET_BYTES = 8 << 20
"""What is sent before all is computed goes in requests of so much; the sum of a request follows it by a chunk."""


class InStoreReduction(StreamingCollective):
    """Sums over all ranks by a store that adds contributions up in rank order: ((x0 + x1) + x2) + ….

    For N ranks and S bytes in R requests: R requests a rank, S bytes up and S down, with 64 bytes of header up and 64 N
    down each; 1 phase. R is the number of regions; where sending overlaps with computing, the first region is sent in
    buckets of 8 MiB, the first of 1 MiB.

    Args:
        seat: whose side this is.
        regions: what a contribution consists of.
        in_buckets: whether the first region is sent bucket by bucket.
    """

    def __init__(self, seat: Seat, regions: tuple[Region, ...], in_buckets: bool = False) -> None:
        self._seat = seat
        self._arrays = [region.zeros() for region in regions]
        self._parts = _parts(regions, in_buckets)

    @staticmethod
    def cost(regions: Sequence[Region], rank: int, world_size: int, in_buckets: bool = False) -> SyncCost:
        """What a step costs a rank, whichever it is."""
        size, requests = sum(region.size_bytes for region in regions), len(_parts(regions, in_buckets))
        down = size + requests * world_size * Header.SIZE
        return SyncCost({"reduce": requests}, size + requests * Header.SIZE, down, phases=1)

    def contribution(self, step: int) -> list[Array]:
        """The arrays in which the sums of the step before stood, zeroed."""
        for array in self._arrays:
            array.fill(0)
        return self._arrays

    def stream(self, progress: Progress) -> tuple[Header, Sequence[Array]]:
        """Part after part through the store; what the ranks have to say goes with the last."""
        heard: list[bytes] = []
        for number, (region, start, stop) in enumerate(self._parts):
            said = Header(progress.step)
            if number == len(self._parts) - 1:
                said = progress.await_header()
            elif region:
                progress.await_header()
            else:
                progress.await_elements(stop)
            key = self._seat.key(progress.step, f"sum{number}", self._seat.rank)
            heard = self._seat.channel.reduce_into(
                key, said.packed(), self._arrays[region][start:stop], ranks=self._seat.world_size, patience=self._wait
            )
        return merge([Header.unpack(each) for each in heard]), self._arrays

    def _wait(self) -> None:
        self._seat.patience("sum", -1)


def _parts(regions: Sequence[Region], in_buckets: bool) -> list[tuple[int, int, int]]:
    """Region, start and stop of what goes in one request."""
    first = [(0, 0, regions[0].elements)]
    if in_buckets:
        buckets = buckets_of(regions[:1], BUCKET_BYTES, FIRST_BUCKET_BYTES)
        first = [(0, span.start, span.stop) for bucket in buckets for span in bucket] or first
    return [*first, *((number, 0, region.elements) for number, region in enumerate(regions) if number)]

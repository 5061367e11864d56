"""Which pattern a channel is best served by."""

from __future__ import annotations

from functools import partial

from smlt.core.sync.codecs import Codec
from smlt.core.sync.collectives import Alone, Collective, ScatterReduce, Seat
from smlt.core.sync.in_store import InStoreReduction
from smlt.core.sync.overlap import Overlapped
from smlt.core.sync.packed import PackedScatterReduce
from smlt.core.sync.pieces import PiecewiseScatterReduce
from smlt.core.task import Region


def collective_for(
    seat: Seat | None, regions: tuple[Region, ...], codec: Codec | None = None, *, overlap: bool = True
) -> Collective:
    """A store that adds up is let do so; memory that all see is read in place; files by range; over a wire, pieces.

    Args:
        seat: this rank's; None for a single rank, who needs no channel.
        regions: what a contribution consists of.
        codec: how tolerant regions travel; None for as they are.
        overlap: whether what travels over a wire shall leave while the rest is still being computed.
    """
    if seat is None:
        return Alone(regions)
    can = seat.channel.capabilities
    if can.reduces and codec is None:
        in_store = partial(InStoreReduction, regions=regions, in_buckets=overlap)
        return Overlapped(seat, in_store) if overlap else in_store(seat)
    if can.in_place and codec is None:
        return ScatterReduce(seat, regions)
    if can.ranged and not can.reduces and not can.in_place:
        return PackedScatterReduce(seat, regions, codec)
    pieces = partial(PiecewiseScatterReduce, regions=regions, codec=codec)
    return Overlapped(seat, pieces) if overlap else pieces(seat)

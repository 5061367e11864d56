"""Which pattern a channel is best served by."""

from __future__ import annotations

from smlt.core.sync.collectives import Alone, Collective, ScatterReduce, Seat
from smlt.core.sync.in_store import InStoreReduction
from smlt.core.sync.packed import PackedScatterReduce
from smlt.core.sync.pieces import PiecewiseScatterReduce
from smlt.core.task import Region


def collective_for(seat: Seat | None, regions: tuple[Region, ...]) -> Collective:
    """A store that adds up is let do so; memory that all see is read in place; files by range; over a wire, pieces.

    Args:
        seat: this rank's; None for a single rank, who needs no channel.
        regions: what a contribution consists of.
    """
    if seat is None:
        return Alone(regions)
    can = seat.channel.capabilities
    if can.reduces:
        return InStoreReduction(seat, regions)
    if can.in_place:
        return ScatterReduce(seat, regions)
    return PackedScatterReduce(seat, regions) if can.ranged else PiecewiseScatterReduce(seat, regions)

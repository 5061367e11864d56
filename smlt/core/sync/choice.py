"""Which pattern a channel is best served by."""

from __future__ import annotations

from smlt.core.storage import Channel
from smlt.core.sync.collectives import Alone, Collective, Patience, ScatterReduce
from smlt.core.sync.in_store import InStoreReduction
from smlt.core.sync.packed import PackedScatterReduce
from smlt.core.sync.pieces import PiecewiseScatterReduce
from smlt.core.task import Region


def collective_for(
    channel: Channel | None,
    regions: tuple[Region, ...],
    address: tuple[int, int],
    rank: int,
    world_size: int,
    patience: Patience,
) -> Collective:
    """A store that adds up is let do so; memory that all see is read in place; files by range; over a wire, pieces.

    Args:
        channel: this rank's client in this round; None for a single rank, who needs none.
        regions: what a contribution consists of.
        address: (generation, round) of all keys.
        rank, world_size: who this is.
        patience: asked while a peer is waited for.
    """
    if channel is None:
        return Alone(regions)
    if channel.capabilities.reduces:
        return InStoreReduction(channel, regions, address, rank, world_size, patience)
    if channel.capabilities.in_place:
        return ScatterReduce(channel, regions, address, rank, world_size, patience)
    if channel.capabilities.ranged:
        return PackedScatterReduce(channel, regions, address, rank, world_size, patience)
    return PiecewiseScatterReduce(channel, regions, address, rank, world_size, patience)

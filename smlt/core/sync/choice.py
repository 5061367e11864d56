"""Which pattern a channel is best served by: by what the channel can do, by what a step would cost, or by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Any

from smlt.core.errors import ConfigError, nearest
from smlt.core.storage import ChannelCapabilities
from smlt.core.sync.codecs import Codec, codec_named
from smlt.core.sync.collectives import Alone, Collective, Seat
from smlt.core.sync.cost import SyncCost
from smlt.core.sync.gathered import GatheredSum
from smlt.core.sync.in_store import InStoreReduction
from smlt.core.sync.overlap import Overlapped, StreamingCollective
from smlt.core.sync.packed import PackedScatterReduce
from smlt.core.sync.payload import is_lossy
from smlt.core.sync.pieces import PIECE_BYTES, PiecewiseScatterReduce
from smlt.core.sync.routes import SMALLEST_WORLD
from smlt.core.sync.scatter_reduce import ScatterReduce
from smlt.core.sync.two_level import TwoLevelScatterReduce
from smlt.core.task import Region

BANDWIDTH_MB_S = 75.0
"""Of a function's link, nominal: measurements of AWS Lambda agree on 65 to 75 MB/s sustained (LambdaML, FuncPipe,
Skyrise)."""

TWO_LEVEL_RANKS = 16
"""From here on pieces cost more requests than two levels do: 30 get a turn against 12."""

TWO_LEVEL_RANGED_RANKS = 64
"""Where a put costs 12 get, as at S3, two levels' 4 put and 28 get a turn, in two turns, cost what 2 put and 126 get
do."""


@dataclass(frozen=True)
class Pattern:
    """A pattern that can be asked for by name.

    Attributes:
        kind: its class, made of a seat and regions.
        cost: of a step, from regions, rank and number of ranks.
        lossy: whether it takes a codec.
        needs: what it needs of a channel, in words; empty for nothing.
        suits: whether a channel has that.
        smallest_world: ranks.
        one_value: whether a contribution travels as one value.
    """

    kind: type[Collective]
    cost: Callable[[Sequence[Region], int, int], SyncCost]
    lossy: bool = False
    needs: str = ""
    suits: Callable[[ChannelCapabilities], bool] = lambda can: True
    smallest_world: int = 2
    one_value: bool = False


PATTERNS: Mapping[str, Pattern] = MappingProxyType(
    {
        "scatter_reduce": Pattern(ScatterReduce, ScatterReduce.cost, one_value=True),
        "packed": Pattern(
            PackedScatterReduce,
            PackedScatterReduce.cost,
            lossy=True,
            needs="can be read by range",
            suits=lambda can: can.ranged,
            one_value=True,
        ),
        "pieces": Pattern(PiecewiseScatterReduce, PiecewiseScatterReduce.cost, lossy=True),
        "in_store": Pattern(
            InStoreReduction, InStoreReduction.cost, needs="adds up by itself", suits=lambda can: can.reduces
        ),
        "gathered": Pattern(GatheredSum, GatheredSum.cost, one_value=True),
        "two_level": Pattern(TwoLevelScatterReduce, TwoLevelScatterReduce.cost, smallest_world=SMALLEST_WORLD),
    }
)
"""All patterns, by name."""


def codec_for(name: str, regions: Sequence[Region]) -> Codec | None:
    """The codec of that name, None for numbers as they are.

    Raises:
        ConfigError: no codec is called so, or this one would carry none of these regions.
    """
    codec = codec_named(name)
    if codec is not None and not any(region.elements and is_lossy(region) for region in regions):
        raise ConfigError(
            f"[sync].codec = {name!r} would do nothing: codecs carry float32 parameters, and this task trains none",
            "leave the codec out, or let build_model make float32 parameters",
        )
    return codec


def collective_for(
    seat: Seat | None,
    regions: tuple[Region, ...],
    codec: Codec | None = None,
    *,
    overlap: bool = True,
    pattern: str | None = None,
) -> Collective:
    """The pattern of that name, or the one that suits best.

    Args:
        seat: this rank's; None for a single rank, who needs no channel.
        regions: what a contribution consists of.
        codec: how tolerant regions travel; None for as they are.
        overlap: whether what travels over a wire shall leave while the rest is still being computed.
        pattern: of `PATTERNS`; None for `name_for` to choose.

    Raises:
        ConfigError: no pattern is called so, or this one is not possible here.
    """
    if pattern is not None and pattern not in PATTERNS:
        raise ConfigError(f"no pattern is called {pattern!r}", nearest(pattern, list(PATTERNS)))
    if seat is None:
        return Alone(regions)
    can = seat.channel.capabilities
    if pattern is None:
        pattern = name_for(can, regions, seat.world_size, codec)
    else:
        _check(pattern, can, regions, seat.world_size, codec)
    options: dict[str, Any] = {}
    if PATTERNS[pattern].lossy:
        options["codec"] = codec
    if pattern == "in_store":
        options["in_buckets"] = overlap
    kind: Callable[..., Any] = PATTERNS[pattern].kind
    if overlap and issubclass(PATTERNS[pattern].kind, StreamingCollective):
        return Overlapped(seat, partial(kind, regions=regions, **options))
    sums: Collective = kind(seat, regions, **options)
    return sums


def name_for(can: ChannelCapabilities, regions: Sequence[Region], world_size: int, codec: Codec | None = None) -> str:
    """A store that adds up is let do so; memory that all see is read in place; files by range; over a wire, pieces.

    Of a passive store that many ranks share, less is asked on two levels. What is small is gathered, if a phase that is
    waited for takes longer than the bytes that it saves.
    """
    if codec is not None:
        return "packed" if can.ranged and not can.reduces and not can.in_place else "pieces"
    if can.reduces:
        return "in_store"
    if can.in_place:
        return "scatter_reduce"
    many = TWO_LEVEL_RANGED_RANKS if can.ranged else TWO_LEVEL_RANKS
    name = "two_level" if world_size >= many else "packed" if can.ranged else "pieces"
    return "gathered" if _is_best_gathered(name, can, regions, world_size) else name


def _is_best_gathered(other: str, can: ChannelCapabilities, regions: Sequence[Region], world_size: int) -> bool:
    """Whether one phase is quicker; never for more than a piece, which leaves ahead of the rest, or in parts."""
    if sum(region.size_bytes for region in regions) > PIECE_BYTES:
        return False
    gathered, otherwise = (
        PATTERNS[name].cost(regions, 0, world_size).seconds(can.latency_s, BANDWIDTH_MB_S)
        for name in ("gathered", other)
    )
    return gathered < otherwise


def _check(
    name: str, can: ChannelCapabilities, regions: Sequence[Region], world_size: int, codec: Codec | None
) -> None:
    """Raise ConfigError if a pattern is not possible here."""
    pattern = PATTERNS[name]
    possible = [other for other in PATTERNS if PATTERNS[other].suits(can)]
    if not pattern.suits(can):
        raise ConfigError(
            f"pattern {name!r} needs a channel that {pattern.needs}", f"on this one: {', '.join(possible)}"
        )
    if codec is not None and not pattern.lossy:
        lossy = [other for other in possible if PATTERNS[other].lossy]
        raise ConfigError(f"pattern {name!r} takes no codec", f"with {codec.name}: {', '.join(lossy)}")
    if world_size < pattern.smallest_world:
        raise ConfigError(
            f"pattern {name!r} needs {pattern.smallest_world} workers or more, not {world_size}",
            "leave the pattern to smlt",
        )
    limit = can.max_value_bytes
    if pattern.one_value and limit is not None and pattern.cost(regions, 0, world_size).bytes_up > limit:
        raise ConfigError(
            f"pattern {name!r} sends a contribution as one value, and this channel takes {limit} bytes at most",
            "choose pieces",
        )


@lru_cache(maxsize=4096)
def cost_for(can: ChannelCapabilities, codec_name: str, regions: tuple[Region, ...], workers: int) -> SyncCost:
    """What the pattern that `collective_for` would choose asks of such a channel, for rank 0.

    Kept, since of 10,000 workers it takes 20 ms, and an uncertain prediction asks many times.
    """
    if workers == 1:
        return Alone.cost(regions)
    codec = codec_for(codec_name, regions)
    name = name_for(can, regions, workers, codec)
    options: dict[str, Any] = {"codec": codec} if codec is not None else {}
    if name == "two_level":
        options["packed"] = can.ranged
    kind: Any = PATTERNS[name].kind
    cost: SyncCost = kind.cost(regions, 0, workers, **options)
    return cost

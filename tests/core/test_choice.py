"""Which pattern is chosen for which channel, and what can be asked for by name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from smlt.core.errors import ConfigError
from smlt.core.storage import ChannelCapabilities
from smlt.core.sync.choice import BANDWIDTH_MB_S, PATTERNS, collective_for, name_for
from smlt.core.sync.codecs import CODECS
from smlt.core.sync.collectives import Alone, Collective, Seat
from smlt.core.sync.overlap import Overlapped, StreamingCollective
from smlt.core.task import Region
from tests.support.channels import MemoryChannel, Patient, Room, in_threads
from tests.support.sums import check, train

WIRE = ChannelCapabilities(ranged=False, reduces=False, max_value_bytes=None, latency_s=100e-6)
FILES = replace(WIRE, ranged=True, latency_s=1e-3)
SHARED_MEMORY = replace(FILES, in_place=True)
REDUCING = replace(FILES, reduces=True)

SMALL, LARGE = (Region("float32", 10),), (Region("float32", 10_000_000),)
BF16 = CODECS["bf16"]


@pytest.mark.parametrize(
    ("can", "world_size", "small", "large", "lossy"),
    [
        (WIRE, 2, "gathered", "pieces", "pieces"),
        (WIRE, 15, "gathered", "pieces", "pieces"),
        (WIRE, 16, "gathered", "two_level", "pieces"),
        (FILES, 2, "gathered", "packed", "packed"),
        (FILES, 16, "gathered", "packed", "packed"),
        (FILES, 64, "gathered", "two_level", "packed"),
        (SHARED_MEMORY, 64, "scatter_reduce", "scatter_reduce", "pieces"),
        (REDUCING, 64, "in_store", "in_store", "pieces"),
    ],
)
def test_the_pattern_is_chosen_by_what_the_channel_can(
    can: ChannelCapabilities, world_size: int, small: str, large: str, lossy: str
) -> None:
    assert name_for(can, SMALL, world_size) == small
    assert name_for(can, LARGE, world_size) == large
    assert name_for(can, SMALL, world_size, BF16) == lossy
    assert name_for(can, LARGE, world_size, BF16) == lossy


@pytest.mark.parametrize("world_size", [3, 4, 8, 15])
def test_gathering_ends_where_its_bytes_take_longer_than_a_phase(world_size: int) -> None:
    """(N - 1) S against 2 (N - 1) S / N down, headers apart, at the link's nominal bandwidth."""
    more = (world_size - 1) * (1 - 2 / world_size)
    limit = WIRE.latency_s * BANDWIDTH_MB_S * 1e6 / more
    assert name_for(WIRE, (Region("float32", int(limit / 4 * 0.8)),), world_size) == "gathered"
    assert name_for(WIRE, (Region("float32", int(limit / 4 * 1.3)),), world_size) == "pieces"


def test_of_two_ranks_nothing_larger_than_a_piece_is_gathered() -> None:
    """Though it were no more bytes: a large contribution leaves in pieces, the first of them ahead of the last."""
    assert name_for(WIRE, (Region("float32", 1 << 18),), 2) == "gathered"
    assert name_for(WIRE, (Region("float32", (1 << 18) + 1),), 2) == "pieces"


def seat(can: ChannelCapabilities, world_size: int = 4) -> Seat:
    channel = MemoryChannel(Room(), 0, shows=can.in_place)
    channel.capabilities = can
    return Seat(channel, (1, 0), 0, world_size, Patient())


@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_is_had_by_name_and_what_streams_does_so_while_the_rest_is_computed(name: str) -> None:
    pattern = PATTERNS[name]
    can = next(can for can in (WIRE, FILES, REDUCING) if pattern.suits(can))
    assert type(collective_for(seat(can), LARGE, overlap=False, pattern=name)) is pattern.kind
    sums = collective_for(seat(can), LARGE, pattern=name)
    assert type(sums) is (Overlapped if issubclass(pattern.kind, StreamingCollective) else pattern.kind)
    sums.close()


@pytest.mark.parametrize("name", sorted(PATTERNS.keys() - {"in_store", "two_level"}))
@pytest.mark.parametrize("shows", [True, False])
def test_a_pattern_asked_for_gives_the_sum(name: str, shows: bool) -> None:
    room, regions = Room(), (Region("float32", 100), Region("int64", 3))

    def pattern(seat: Seat | None, regions: tuple[Region, ...]) -> Collective:
        return collective_for(seat, regions, pattern=name)

    outcomes = in_threads(lambda rank: train(MemoryChannel(room, rank, shows=shows), regions, rank, 3, pattern), 3)
    check(outcomes, regions, 3)


@pytest.mark.parametrize(
    ("name", "can", "codec", "world_size", "message", "hint"),
    [
        ("peaces", WIRE, None, 4, "no pattern is called 'peaces'", "pieces"),
        ("in_store", WIRE, None, 4, "needs a channel that adds up by itself", "pieces"),
        ("packed", WIRE, None, 4, "needs a channel that can be read by range", "pieces"),
        ("two_level", WIRE, None, 3, "needs 4 workers or more, not 3", ""),
        ("gathered", WIRE, BF16, 4, "takes no codec", "with bf16: pieces"),
        ("in_store", REDUCING, BF16, 4, "takes no codec", "with bf16: packed, pieces"),
        ("gathered", replace(WIRE, max_value_bytes=1 << 20), None, 4, "takes 1048576 bytes at most", "pieces"),
    ],
)
def test_what_is_not_possible_is_refused(
    name: str, can: ChannelCapabilities, codec, world_size: int, message: str, hint: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        collective_for(seat(can, world_size), LARGE, codec, pattern=name)
    assert message in refused.value.message
    assert hint in refused.value.hint


def test_a_single_rank_needs_no_pattern_but_one_that_exists() -> None:
    assert type(collective_for(None, SMALL, pattern="pieces")) is Alone
    with pytest.raises(ConfigError, match="two_level"):
        collective_for(None, SMALL, pattern="twolevel")

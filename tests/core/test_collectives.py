"""Sums over ranks: bit for bit the sum in rank order, on every rank, however far one lags behind."""

from __future__ import annotations

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smlt.core.storage import ChannelKey
from smlt.core.sync.buckets import ContributionLayout
from smlt.core.sync.codecs import CODECS, codec_named
from smlt.core.sync.collectives import Collective, Seat, all_gather
from smlt.core.sync.packed import PackedScatterReduce
from smlt.core.sync.pieces import PiecewiseScatterReduce
from smlt.core.sync.scatter_reduce import ScatterReduce
from smlt.core.task import Region
from tests.support.channels import MemoryChannel, Patient, Room, in_threads
from tests.support.sums import REGIONS, STEPS, check, train


@settings(max_examples=40)
@given(REGIONS, st.integers(2, 9), st.booleans())
def test_the_sum_is_the_one_in_rank_order_bit_for_bit(
    regions: tuple[Region, ...], world_size: int, shows: bool
) -> None:
    room = Room()
    channels = [MemoryChannel(room, rank, shows=shows) for rank in range(world_size)]
    outcomes = in_threads(lambda rank: train(channels[rank], regions, rank, world_size, ScatterReduce), world_size)
    check(outcomes, regions, world_size)


@settings(max_examples=40)
@given(REGIONS, st.integers(2, 9), st.sampled_from([8, 100, 1 << 20]))
def test_in_pieces_the_sum_is_the_same(regions: tuple[Region, ...], world_size: int, piece_bytes: int) -> None:
    room = Room()
    channels = [MemoryChannel(room, rank, shows=False) for rank in range(world_size)]
    pattern = functools.partial(PiecewiseScatterReduce, piece_bytes=piece_bytes)
    outcomes = in_threads(lambda rank: train(channels[rank], regions, rank, world_size, pattern), world_size)
    check(outcomes, regions, world_size)
    assert not [key for key in room.published() if key.step < STEPS - 2]


@settings(max_examples=40)
@given(REGIONS, st.integers(2, 9), st.booleans())
def test_packed_the_sum_is_the_same(regions: tuple[Region, ...], world_size: int, shows: bool) -> None:
    room = Room()
    channels = [MemoryChannel(room, rank, shows=shows) for rank in range(world_size)]
    outcomes = in_threads(
        lambda rank: train(channels[rank], regions, rank, world_size, PackedScatterReduce), world_size
    )
    check(outcomes, regions, world_size)
    assert {key.step for key in room.published()} == {STEPS - 2, STEPS - 1}
    for channel in channels:
        assert channel.stats().requests == {"put": 2 * STEPS, "get": 2 * (world_size - 1) * STEPS}


@given(REGIONS)
def test_a_single_rank_needs_no_channel(regions: tuple[Region, ...]) -> None:
    check([train(None, regions, 0, 1)], regions, 1)


@pytest.mark.parametrize("shows", [True, False])
@pytest.mark.parametrize("slow", [0, 1, 3])
def test_what_a_slow_rank_still_reads_is_left_alone(slow: int, shows: bool) -> None:
    """It looks at the sums of a step only once all others wait for it in the next one, and can go no further."""
    world_size, regions, room = 4, (Region("float32", 100), Region("int64", 33)), Room()
    others = [rank for rank in range(world_size) if rank != slow]

    def linger(rank: int, key: ChannelKey) -> None:
        if rank == slow and key.piece == "sum" and key.step < STEPS - 1:
            room.until(lambda: all(rank in room.waiting and room.waiting[rank].step > key.step for rank in others))

    room.before_read = linger
    channels = [MemoryChannel(room, rank, shows=shows) for rank in range(world_size)]
    outcomes = in_threads(lambda rank: train(channels[rank], regions, rank, world_size), world_size)
    check(outcomes, regions, world_size)


def test_values_are_forgotten_two_steps_later() -> None:
    room, regions = Room(), (Region("float32", 10),)
    channels = [MemoryChannel(room, rank) for rank in range(3)]
    in_threads(lambda rank: train(channels[rank], regions, rank, 3), 3)
    assert {key.step for key in room.published()} == {STEPS - 2, STEPS - 1}


@pytest.mark.parametrize("shows", [True, False])
@pytest.mark.parametrize("world_size", [2, 3, 8])
def test_requests_and_bytes_are_those_of_the_docstring(world_size: int, shows: bool) -> None:
    room, regions = Room(), (Region("float32", 1000), Region("float64", 50))
    channels = [MemoryChannel(room, rank, shows=shows) for rank in range(world_size)]
    in_threads(lambda rank: train(channels[rank], regions, rank, world_size, ScatterReduce), world_size)
    layout = ContributionLayout(regions, world_size)
    shards = [layout.shard_bytes(layout.shard(rank)) for rank in range(world_size)]
    for rank, channel in enumerate(channels):
        stats = channel.stats()
        assert stats.requests == {"put": 2 * STEPS, "get": 2 * (world_size - 1) * STEPS}
        assert stats.bytes_up == STEPS * (layout.size_bytes + shards[rank])
        down = (world_size - 1) * layout.size_bytes + sum(shards) - shards[rank]
        assert stats.bytes_down == STEPS * down
        assert channel.reserved_bytes == 2 * (layout.size_bytes + shards[rank])


@pytest.mark.parametrize("shows", [True, False])
def test_all_gather_gives_every_value_in_rank_order(shows: bool) -> None:
    room, world_size = Room(), 5
    channels = [MemoryChannel(room, rank, shows=shows) for rank in range(world_size)]

    def gather(rank: int) -> list[bytes]:
        return all_gather(Seat(channels[rank], (1, 0), rank, world_size, Patient()), b"*" * rank, 3, "eval")

    assert in_threads(gather, world_size) == [[b"", b"*", b"**", b"***", b"****"]] * world_size
    for rank, channel in enumerate(channels):
        assert channel.stats().requests == {"put": 1, "get": world_size - 1}
        assert (channel.stats().bytes_up, channel.stats().bytes_down) == (rank, 10 - rank)


@settings(max_examples=40)
@given(REGIONS, st.integers(2, 5), st.sampled_from(["fp32", *CODECS]), st.sampled_from([64, 256, 1 << 20]))
def test_in_pieces_requests_and_bytes_are_what_the_pattern_says(
    regions: tuple[Region, ...], world_size: int, codec: str, piece_bytes: int
) -> None:
    room, options = Room(), (codec_named(codec), piece_bytes)
    channels = [MemoryChannel(room, rank, shows=False) for rank in range(world_size)]

    def pattern(seat: Seat, regions: tuple[Region, ...]) -> Collective:
        return PiecewiseScatterReduce(seat, regions, *options)

    in_threads(lambda rank: train(channels[rank], regions, rank, world_size, pattern), world_size)
    for rank, channel in enumerate(channels):
        cost, stats = PiecewiseScatterReduce.cost(regions, rank, world_size, *options), channel.stats()
        assert stats.requests == {verb: STEPS * count for verb, count in cost.requests.items()}
        assert (stats.bytes_up, stats.bytes_down) == (STEPS * cost.bytes_up, STEPS * cost.bytes_down)


def test_the_cost_in_pieces_is_that_of_the_docstring() -> None:
    elements, world_size = 46_000_000 // 4, 4
    size, turns = 4 * elements, 12
    cost = PiecewiseScatterReduce.cost((Region("float32", elements),), 0, world_size)
    assert cost.requests == {"put": turns * 4, "get": turns * 6}
    assert cost.bytes_up == pytest.approx(size, rel=1e-3)
    assert cost.bytes_down == pytest.approx(1.5 * size, rel=1e-3)
    halved = PiecewiseScatterReduce.cost((Region("float32", elements, tolerant=True),), 0, 4, codec_named("bf16"))
    assert halved.bytes_up == pytest.approx(size / 2, rel=1e-3)

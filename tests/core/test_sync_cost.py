"""What a step costs: what a pattern says beforehand is what its channel counts, to the byte."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smlt.core.sync.collectives import Alone, Seat, all_gather, all_gather_cost
from smlt.core.sync.cost import SyncCost
from smlt.core.sync.gathered import GatheredSum
from smlt.core.sync.packed import PackedScatterReduce
from smlt.core.sync.scatter_reduce import ScatterReduce
from smlt.core.sync.two_level import TwoLevelScatterReduce
from smlt.core.task import Region
from tests.support.channels import MemoryChannel, Patient, Room, in_threads
from tests.support.sums import REGIONS, STEPS, train

SIZE = 46_000_000
LARGE = (Region("float32", SIZE // 4),)


def check_cost(
    pattern: Any, cost: Any, regions: tuple[Region, ...], world_size: int, shows: bool = False, ranged: bool = True
) -> None:
    room = Room()
    channels = [MemoryChannel(room, rank, shows=shows, ranged=ranged) for rank in range(world_size)]
    in_threads(lambda rank: train(channels[rank], regions, rank, world_size, pattern), world_size)
    for rank, channel in enumerate(channels):
        expected, stats = cost(regions, rank, world_size), channel.stats()
        assert stats.requests == {verb: STEPS * count for verb, count in expected.requests.items() if count}
        assert (stats.bytes_up, stats.bytes_down) == (STEPS * expected.bytes_up, STEPS * expected.bytes_down)


@settings(max_examples=40)
@given(REGIONS, st.integers(2, 9), st.sampled_from([ScatterReduce, PackedScatterReduce, GatheredSum]), st.booleans())
def test_requests_and_bytes_are_what_the_pattern_says(
    regions: tuple[Region, ...], world_size: int, pattern: Any, shows: bool
) -> None:
    check_cost(pattern, pattern.cost, regions, world_size, shows)


@settings(max_examples=25)
@given(REGIONS, st.sampled_from([4, 5, 6, 7, 8, 9, 16]), st.sampled_from([64, 256, 1 << 20]), st.booleans())
def test_on_two_levels_requests_and_bytes_are_what_the_pattern_says(
    regions: tuple[Region, ...], world_size: int, piece_bytes: int, ranged: bool
) -> None:
    pattern = partial(TwoLevelScatterReduce, piece_bytes=piece_bytes)
    cost = partial(TwoLevelScatterReduce.cost, piece_bytes=piece_bytes, packed=ranged)
    check_cost(pattern, cost, regions, world_size, ranged=ranged)


@given(st.lists(st.integers(0, 90), min_size=2, max_size=9), st.booleans())
def test_all_gather_costs_what_it_says(sizes: list[int], shows: bool) -> None:
    room = Room()
    channels = [MemoryChannel(room, rank, shows=shows) for rank in range(len(sizes))]

    def gather(rank: int) -> None:
        all_gather(Seat(channels[rank], (1, 0), rank, len(sizes), Patient()), b"*" * sizes[rank], 3, "eval")

    in_threads(gather, len(sizes))
    for rank, channel in enumerate(channels):
        stats = channel.stats()
        assert all_gather_cost(sizes, rank) == SyncCost(stats.requests, stats.bytes_up, stats.bytes_down, phases=1)


def test_who_is_alone_sends_nothing() -> None:
    assert Alone.cost(LARGE) == SyncCost({}, 0, 0, phases=0)


@pytest.mark.parametrize("rank", [0, 3])
def test_of_46_mb_the_costs_are_those_of_the_docstrings(rank: int) -> None:
    scatter = ScatterReduce.cost(LARGE, rank, 4)
    assert (scatter.requests, scatter.phases) == ({"put": 2, "get": 6}, 2)
    assert scatter.bytes_up == pytest.approx(SIZE * (1 + 1 / 4), rel=1e-4)
    assert scatter.bytes_down == pytest.approx(3 * SIZE * (1 + 1 / 4), rel=1e-4)
    gathered = GatheredSum.cost(LARGE, rank, 4)
    assert gathered == SyncCost({"put": 1, "get": 3}, SIZE + 64, 3 * (SIZE + 64), phases=1)
    packed = PackedScatterReduce.cost(LARGE, rank, 4)
    assert (packed.requests, packed.phases) == ({"put": 2, "get": 6}, 2)
    assert packed.bytes_up == pytest.approx(SIZE, rel=1e-4)
    assert packed.bytes_down == pytest.approx(1.5 * SIZE, rel=1e-4)


@pytest.mark.parametrize(("root", "turns"), [(4, 4), (6, 3), (8, 3)])
def test_of_46_mb_on_two_levels_the_costs_are_those_of_the_docstring(root: int, turns: int) -> None:
    ranks = root * root
    assert turns == -(-(SIZE - (1 << 20)) // (4 * root << 20)) + 1
    for rank in (0, ranks - 1):
        cost = TwoLevelScatterReduce.cost(LARGE, rank, ranks)
        assert (cost.requests, cost.phases) == ({"put": 2 * turns * root, "get": 4 * turns * (root - 1)}, 4)
        assert cost.bytes_up == pytest.approx(SIZE * (1 + 1 / root), rel=1e-3)
        assert cost.bytes_down == pytest.approx(2 * SIZE * (ranks - 1) / ranks, rel=1e-3)
        by_range = TwoLevelScatterReduce.cost(LARGE, rank, ranks, packed=True)
        assert by_range.requests == {"put": 4 * turns, "get": 4 * turns * (root - 1)}
        assert (by_range.bytes_up, by_range.bytes_down) == (cost.bytes_up, cost.bytes_down)


def test_of_groups_of_unlike_size_the_last_of_the_larger_owns_nothing() -> None:
    owner, extra = (TwoLevelScatterReduce.cost(LARGE, rank, 17) for rank in (0, 16))
    assert owner.bytes_up == pytest.approx(SIZE * (1 + 1 / 4), rel=1e-3)
    assert extra.bytes_up == pytest.approx(SIZE, rel=1e-3)
    assert extra.bytes_down == pytest.approx(SIZE, rel=1e-3)

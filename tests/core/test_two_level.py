"""Sums on two levels: groups first, then over the groups, bit for bit on every rank, however unlike the groups are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from math import isqrt
from threading import Event
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from smlt.core.errors import ConfigError, ProtocolError
from smlt.core.storage import ChannelKey
from smlt.core.sync.collectives import Seat
from smlt.core.sync.header import Header
from smlt.core.sync.overlap import Overlapped
from smlt.core.sync.routes import Groups
from smlt.core.sync.two_level import TwoLevelScatterReduce
from smlt.core.task import Array, Region
from tests.support.channels import MemoryChannel, Patient, Room, in_threads
from tests.support.sums import REGIONS, STEPS, added, check, contribution_of, train

WORLDS = st.sampled_from([*range(4, 13), 15, 16, 17, 20])
PIECES = st.sampled_from([8, 100, 1 << 20])


def by_groups(regions: tuple[Region, ...], world_size: int, step: int) -> list[Array]:
    """(sum of group 0) + (sum of group 1) + …, where as many groups as the root share the ranks out evenly."""
    groups = isqrt(world_size)
    bounds = [world_size * group // groups for group in range(groups + 1)]
    return added(
        [
            added([contribution_of(regions, rank, step) for rank in range(start, stop)])
            for start, stop in pairwise(bounds)
        ]
    )


@settings(max_examples=30)
@given(REGIONS, WORLDS, PIECES, st.booleans())
@example((Region("float32", 500), Region("int64", 3)), 16, 100, True)
@example((Region("float32", 500), Region("int64", 3)), 16, 100, False)
@example((Region("float64", 0),), 5, 8, False)
def test_the_sum_is_the_one_by_groups_bit_for_bit(
    regions: tuple[Region, ...], world_size: int, piece_bytes: int, ranged: bool
) -> None:
    room = Room()
    channels = [MemoryChannel(room, rank, shows=False, ranged=ranged) for rank in range(world_size)]
    pattern = partial(TwoLevelScatterReduce, piece_bytes=piece_bytes)
    outcomes = in_threads(lambda rank: train(channels[rank], regions, rank, world_size, pattern), world_size)
    check(outcomes, regions, world_size, by_groups)
    assert not [key for key in room.published() if key.step < STEPS - 2]


@given(st.integers(4, 300))
def test_groups_share_the_ranks_out_evenly(world_size: int) -> None:
    groups = Groups(world_size)
    members = [groups.members(group) for group in range(groups.count)]
    assert [rank for group in members for rank in group] == list(range(world_size))
    assert {len(group) for group in members} <= {groups.shards, groups.shards + 1}
    assert groups.count <= groups.shards <= groups.count + 2
    assert all(rank in members[groups.of(rank)] for rank in range(world_size))


@pytest.mark.parametrize("world_size", [2, 3])
def test_too_few_ranks_are_refused(world_size: int) -> None:
    with pytest.raises(ConfigError, match="no two groups of two"):
        TwoLevelScatterReduce(Seat(MemoryChannel(Room(), 0), (1, 0), 0, world_size, Patient()), (Region("float32", 9),))


@pytest.mark.parametrize("ranged", [True, False])
@pytest.mark.parametrize("slow", [0, 4, 6])
def test_what_a_slow_rank_still_reads_is_left_alone(slow: int, ranged: bool) -> None:
    """It looks at the sums of a step only once all others wait for it in the next one; the last of 7 owns nothing."""
    world_size, regions, room = 7, (Region("float32", 100), Region("int64", 33)), Room()
    others = [rank for rank in range(world_size) if rank != slow]

    def linger(rank: int, key: ChannelKey) -> None:
        if rank == slow and key.piece.startswith("sum") and key.step < STEPS - 1:
            room.until(lambda: all(rank in room.waiting and room.waiting[rank].step > key.step for rank in others))

    room.before_read = linger
    channels = [MemoryChannel(room, rank, shows=False, ranged=ranged) for rank in range(world_size)]
    outcomes = in_threads(
        lambda rank: train(channels[rank], regions, rank, world_size, TwoLevelScatterReduce), world_size
    )
    check(outcomes, regions, world_size, by_groups)


@settings(max_examples=30)
@given(st.data(), st.sampled_from([4, 5, 9]))
def test_the_sum_does_not_depend_on_when_numbers_become_final(data: st.DataObject, world_size: int) -> None:
    regions, room = (Region("float32", 300),), Room()
    marks = [data.draw(st.lists(st.integers(0, 300), max_size=3).map(sorted)) for _ in range(world_size)]

    def step(rank: int) -> bytes:
        seat = Seat(MemoryChannel(room, rank, shows=False, ranged=False), (1, 0), rank, world_size, Patient())
        sums = Overlapped(seat, partial(TwoLevelScatterReduce, regions=regions, piece_bytes=64))
        (gradient,), (numbers,), at = sums.contribution(0), contribution_of(regions, rank, 0), 0
        for mark in [*marks[rank], 300]:
            gradient[at:mark] = numbers[at:mark]
            sums.reached(mark)
            at = mark
        _, (total,) = sums.reduce(Header(0))
        sums.close()
        return total.tobytes()

    expected = by_groups(regions, world_size, 0)[0].tobytes()
    assert in_threads(step, world_size) == [expected] * world_size


def reduced(
    room: Room,
    world_size: int,
    header: Callable[[int], Header] = lambda rank: Header(4),
    elements: Callable[[int], int] = lambda rank: 90,
    piece_bytes: int = 128,
    ranged: bool = False,
) -> list[Any]:
    """What one step, the fourth, came to on each rank."""

    def step(rank: int) -> tuple[Header, Sequence[Array]]:
        seat = Seat(MemoryChannel(room, rank, shows=False, ranged=ranged), (1, 0), rank, world_size, Patient())
        sums = TwoLevelScatterReduce(seat, (Region("float32", elements(rank)),), piece_bytes)
        sums.contribution(4)[0][:] = rank
        return sums.reduce(header(rank))

    return in_threads(step, world_size)


@settings(max_examples=30)
@given(st.data(), st.sampled_from([4, 5, 7, 9, 17]), st.booleans())
def test_states_that_differ_anywhere_stop_every_rank(data: st.DataObject, world_size: int, ranged: bool) -> None:
    odd = data.draw(st.integers(0, world_size - 1))
    outcomes = reduced(Room(), world_size, lambda rank: Header(4, digest=2 if rank == odd else 1), ranged=ranged)
    for outcome in outcomes:
        assert isinstance(outcome, ProtocolError)
        assert "states differ before step 4" in outcome.message


@settings(max_examples=30)
@given(st.data(), st.sampled_from([4, 5, 7, 9, 17]), st.sampled_from([65, 89, 91, 96]))
def test_who_contributes_more_or_less_stops_every_rank(data: st.DataObject, world_size: int, elements: int) -> None:
    """As long as there are as many turns; else whoever has more of them waits until its patience ends."""
    odd = data.draw(st.integers(0, world_size - 1))
    for outcome in reduced(Room(), world_size, elements=lambda rank: elements if rank == odd else 90, piece_bytes=4096):
        assert isinstance(outcome, ProtocolError)


@pytest.mark.parametrize(
    ("piece", "lie", "message", "stopped"),
    [
        ("grad0.2", Header(3).packed() + bytes(192), "different steps: [3, 4]", range(9)),
        ("grad0.2", Header(4).packed() + bytes(64), "rank 1 sent 128 bytes at step 4, 256 were expected", range(9)),
        ("grad0.2", b"", "rank 1 sent 0 bytes", range(9)),
        ("grad0.2", bytes(256), "does not start with smlt's header", range(9)),
        ("part0.4", Header(4).packed(), "rank 1 sent 64 bytes at step 4, 128 were expected", range(9)),
        ("part0.4", Header(5).packed() + bytes(64), "different steps: [4, 5]", range(9)),
        ("mean0", Header(4, end=9).packed() + bytes(64), "rank 1 merged other headers at step 4", range(3, 9)),
        ("sum0", Header(4, end=9).packed() + bytes(192), "merged other headers at step 4", [0, 2]),
        ("sum0", Header(4).packed() + bytes(900), "rank 1 sent 257 bytes or more", [0, 2]),
    ],
)
def test_what_does_not_belong_here_is_refused_by_all_who_can_hear_of_it(
    piece: str, lie: bytes, message: str, stopped: Sequence[int]
) -> None:
    """Of 9 ranks, rank 1 owns a shard with 4 and 7."""
    room = Room()
    room.lies = {ChannelKey(1, 0, 4, piece, 1): lie}
    outcomes = reduced(room, 9, elements=lambda rank: 144, piece_bytes=4096)
    for rank in stopped:
        assert isinstance(outcomes[rank], ProtocolError)
        assert message in outcomes[rank].message


def test_a_nan_in_the_loss_is_no_disagreement() -> None:
    for merged, (total,) in reduced(Room(), 5, lambda rank: Header(4, loss_sum=float("nan"), weight=1.0)):
        assert np.isnan(merged.loss_sum)
        assert total.tolist() == [10.0] * 90


class GaveUpError(Exception):
    """Raised by a rank that is told to leave."""


@pytest.mark.parametrize(("missing", "rank", "piece"), [(1, 0, "grad0.0"), (2, 0, "part0.0"), (2, 4, "sum0")])
def test_a_missing_peer_is_waited_for_until_patience_ends(missing: int, rank: int, piece: str) -> None:
    """Of 5 ranks, in groups of 2 and 3, the last owns nothing."""
    room, asked, ended = Room(patience_s=0.01), [], Event()

    def step(number: int) -> None:
        def patience(waited_for: str, peer: int) -> None:
            if (number, peer) == (rank, missing):
                asked.append(waited_for)
                if len(asked) == 3:
                    ended.set()
            if ended.is_set():
                raise GaveUpError

        if number != missing:
            seat = Seat(MemoryChannel(room, number, shows=False, ranged=False), (1, 0), number, 5, patience)
            sums = TwoLevelScatterReduce(seat, (Region("float32", 90),))
            sums.contribution(0)
            sums.reduce(Header(0))

    outcomes = in_threads(step, 5)
    assert isinstance(outcomes[rank], GaveUpError)
    assert asked == [piece] * 3

"""All-gather as a sum: the same sum, by one write and one phase; what does not fit stops every rank."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smlt.core.errors import ProtocolError
from smlt.core.storage import ChannelKey
from smlt.core.sync.collectives import Seat
from smlt.core.sync.gathered import GatheredSum
from smlt.core.sync.header import Header
from smlt.core.task import Region
from tests.support.channels import MemoryChannel, Patient, Room, in_threads
from tests.support.sums import REGIONS, STEPS, check, train


@settings(max_examples=40)
@given(REGIONS, st.integers(2, 9), st.booleans(), st.booleans())
def test_the_sum_is_the_one_in_rank_order_bit_for_bit(
    regions: tuple[Region, ...], world_size: int, shows: bool, ranged: bool
) -> None:
    room = Room()
    channels = [MemoryChannel(room, rank, shows=shows, ranged=ranged) for rank in range(world_size)]
    outcomes = in_threads(lambda rank: train(channels[rank], regions, rank, world_size, GatheredSum), world_size)
    check(outcomes, regions, world_size)
    assert not [key for key in room.published() if key.step < STEPS - 2]


@pytest.mark.parametrize("shows", [True, False])
@pytest.mark.parametrize("slow", [0, 2])
def test_what_a_slow_rank_still_reads_is_left_alone(slow: int, shows: bool) -> None:
    """It reads the contributions of a step only once all others wait for it in the next one."""
    regions, room = (Region("float32", 100), Region("int64", 33)), Room()
    others = [rank for rank in range(3) if rank != slow]

    def linger(rank: int, key: ChannelKey) -> None:
        if rank == slow and key.step < STEPS - 1:
            room.until(lambda: all(rank in room.waiting and room.waiting[rank].step > key.step for rank in others))

    room.before_read = linger
    outcomes = in_threads(lambda rank: train(MemoryChannel(room, rank, shows=shows), regions, rank, 3, GatheredSum), 3)
    check(outcomes, regions, 3)


class GaveUpError(Exception):
    """Raised by a rank that is told to leave."""


def test_a_missing_peer_is_waited_for_until_patience_ends() -> None:
    room, asked = Room(patience_s=0.0), []

    def patience(piece: str, peer: int) -> None:
        asked.append((piece, peer))
        if len(asked) == 3:
            raise GaveUpError

    sums = GatheredSum(Seat(MemoryChannel(room, 1, shows=False), (1, 0), 1, 2, patience), (Region("float32", 4),))
    sums.contribution(0)
    with pytest.raises(GaveUpError):
        sums.reduce(Header(0))
    assert asked == [("all", 0)] * 3


@pytest.mark.parametrize("shows", [True, False])
@pytest.mark.parametrize("elements", [0, 39, 41, 4000])
def test_who_contributes_more_or_less_stops_every_rank(elements: int, shows: bool) -> None:
    room = Room()

    def step(rank: int) -> None:
        regions = (Region("float32", elements if rank == 1 else 40),)
        sums = GatheredSum(Seat(MemoryChannel(room, rank, shows=shows), (1, 0), rank, 3, Patient()), regions)
        sums.contribution(0)
        sums.reduce(Header(0))

    for outcome in in_threads(step, 3):
        assert isinstance(outcome, ProtocolError)
        assert "bytes" in outcome.message


@pytest.mark.parametrize("lie", [b"", b"smlt", bytes(64 + 160), bytes(64 + 161)])
def test_what_is_no_contribution_is_refused(lie: bytes) -> None:
    room = Room()
    room.lies = {ChannelKey(1, 0, 0, "all", 1): lie}

    def step(rank: int) -> None:
        seat = Seat(MemoryChannel(room, rank, shows=False), (1, 0), rank, 3, Patient())
        sums = GatheredSum(seat, (Region("float32", 40),))
        sums.contribution(0)
        sums.reduce(Header(0))

    first, _, last = in_threads(step, 3)
    assert isinstance(first, ProtocolError)
    assert isinstance(last, ProtocolError)


def test_a_nan_in_the_loss_is_no_disagreement() -> None:
    room = Room()

    def step(rank: int) -> Header:
        sums = GatheredSum(Seat(MemoryChannel(room, rank), (1, 0), rank, 3, Patient()), (Region("float32", 4),))
        sums.contribution(0)
        return sums.reduce(Header(0, loss_sum=float("nan")))[0]

    assert all(np.isnan(merged.loss_sum) for merged in in_threads(step, 3))

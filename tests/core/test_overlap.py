"""Sending while computing: the same sums, whatever is final when, and no thread left behind."""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smlt.core.errors import ChannelError, ProtocolError, TaskError
from smlt.core.storage import Buffer, ChannelKey
from smlt.core.sync.collectives import Seat
from smlt.core.sync.header import Header
from smlt.core.sync.overlap import Overlapped
from smlt.core.sync.pieces import PiecewiseScatterReduce
from smlt.core.task import Array, Region
from tests.support.channels import MemoryChannel, Patient, Room, in_threads

STEPS = 3
REGIONS = (Region("float32", 300), Region("int64", 9))


def overlapped(channel: MemoryChannel, rank: int, world_size: int, patience=None) -> Overlapped:
    seat = Seat(channel, (1, 0), rank, world_size, patience or Patient())
    return Overlapped(seat, functools.partial(PiecewiseScatterReduce, regions=REGIONS, piece_bytes=128))


def numbers(rank: int, step: int) -> Array:
    return np.random.default_rng([rank, step]).standard_normal(300).astype(np.float32)


@settings(max_examples=40)
@given(st.integers(2, 5), st.data())
def test_the_sum_does_not_depend_on_when_numbers_become_final(world_size: int, data: st.DataObject) -> None:
    room = Room()
    marks = st.lists(st.integers(0, 300), max_size=4).map(sorted)
    reached = [[data.draw(marks) for _ in range(STEPS)] for _ in range(world_size)]

    def train(rank: int) -> list[tuple[Header, bytes, list[int]]]:
        sums, found = overlapped(MemoryChannel(room, rank, shows=False), rank, world_size), []
        for step in range(STEPS):
            gradient, counts = sums.contribution(step)
            at = 0
            for mark in [*reached[rank][step], 300]:
                gradient[at:mark] = numbers(rank, step)[at:mark]
                sums.reached(mark)
                at = mark
            counts[:] = rank
            merged, (total, counted) = sums.reduce(Header(step, end=rank, weight=1.0))
            sums.commit()
            found.append((merged, total.tobytes(), counted.tolist()))
        sums.close()
        return found

    outcomes = in_threads(train, world_size)
    for step in range(STEPS):
        total = numbers(0, step)
        for rank in range(1, world_size):
            total = total + numbers(rank, step)
        expected = (
            Header(step, end=world_size - 1, weight=world_size),
            total.tobytes(),
            [sum(range(world_size))] * 9,
        )
        assert [outcome[step] for outcome in outcomes] == [expected] * world_size


def test_what_is_final_leaves_before_the_rest_is_there() -> None:
    room = Room()
    sums = overlapped(MemoryChannel(room, 0, shows=False), 0, 2)
    gradient, _ = sums.contribution(0)
    gradient[:] = 1
    sums.reached(64)
    room.until(lambda: any(key.piece == "grad1.0" for key in room.values))
    assert not any(key.piece == "grad1.2" for key in room.published())
    sums.close()


def test_a_step_that_is_given_up_ends_the_thread_s_work_whatever_it_waits_for() -> None:
    room = Room(patience_s=0.0)
    sums = overlapped(MemoryChannel(room, 0, shows=False), 0, 2)
    before = threading.active_count()
    sums.contribution(0)
    sums.reached(300)  # its pieces leave; then it waits for a peer that never comes
    sums.contribution(1)
    sums.close()
    assert threading.active_count() <= before
    with pytest.raises(ProtocolError, match="nothing was contributed to step 7"):
        sums.reduce(Header(7))


class FullChannel(MemoryChannel):
    """Takes nothing, and tells when it was asked to."""

    def __init__(self) -> None:
        super().__init__(Room(), 0, shows=False)
        self.was_asked = threading.Event()

    def _do_put(self, key: ChannelKey, parts: Sequence[Buffer], readers: int | None) -> None:
        self.was_asked.set()
        raise ChannelError("the channel is full")


def failed_while_computing() -> Overlapped:
    """Half of a contribution is final, and sending it has failed."""
    channel = FullChannel()
    sums = overlapped(channel, 0, 2)
    sums.contribution(0)
    sums.reached(300)
    assert channel.was_asked.wait(60)
    return sums


def test_what_sending_found_wrong_is_told_whoever_asks_first() -> None:
    sums = failed_while_computing()
    with pytest.raises(ChannelError, match="full"):
        sums.reduce(Header(0))
    sums.close()
    with pytest.raises(ChannelError, match="full"):
        failed_while_computing().close()


def test_of_a_step_that_was_given_up_nothing_is_told() -> None:
    sums = failed_while_computing()
    sums.forget()
    with pytest.raises(ProtocolError, match="nothing was contributed"):
        sums.reduce(Header(0))
    sums.close()


def test_where_the_task_fails_first_what_sending_found_is_among_the_notes() -> None:
    sums = failed_while_computing()
    with pytest.raises(TaskError, match="raised") as caught, closing(sums):
        raise TaskError("training_step raised")
    assert caught.value.__notes__ == ["meanwhile, sending the step in hand failed: ChannelError: the channel is full"]


def test_the_rank_is_not_said_to_wait_while_it_computes() -> None:
    room, waited = Room(patience_s=0.0), threading.Event()

    class GaveUpError(Exception):
        pass

    def patience(piece: str, peer: int) -> None:
        waited.set()
        raise GaveUpError(piece, peer)

    sums = overlapped(MemoryChannel(room, 0, shows=False), 0, 2, patience)
    sums.contribution(0)
    sums.reached(300)
    room.until(lambda: any(key.piece == "grad1.1" for key in room.values))
    assert not waited.is_set()
    with pytest.raises(GaveUpError):
        sums.reduce(Header(0))
    sums.close()

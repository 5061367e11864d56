"""One rank's part in one round: meeting, gathering, and what it forgets when."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from smlt.core.errors import ChannelError, ProtocolError
from smlt.core.membership import Membership
from smlt.core.rank_events import Standing
from smlt.core.sampler import Cursor
from smlt.core.storage import ChannelKey
from smlt.core.sync.collectives import Seat
from smlt.core.sync.header import Header
from smlt.core.sync.scatter_reduce import ScatterReduce
from smlt.core.task import Region, TaskShape
from tests.support.channels import MemoryChannel, Patient, Room, in_threads

SHAPE = TaskShape(100, 20, 7, (Region("float32", 7),), {"numpy": "2.0"})


def on_all(work: Callable[[Membership], Any], shapes: list[TaskShape]) -> list[Any]:
    """What `work` returned or raised on each rank of one round."""
    room, world_size = Room(patience_s=20.0), len(shapes)

    def on_one(rank: int) -> Any:
        channel = MemoryChannel(room, rank) if world_size > 1 else None
        return work(Membership(channel and Seat(channel, (3, 1), rank, world_size, Patient()), shapes[rank]))

    return in_threads(on_one, world_size)


@pytest.mark.parametrize("world_size", [1, 2, 5])
def test_ranks_that_built_the_same_meet(world_size: int) -> None:
    outcomes = on_all(lambda membership: membership.meet(Standing()), [SHAPE] * world_size)
    assert outcomes == [[Standing()] * world_size] * world_size


def test_who_meets_knows_where_each_stands() -> None:
    standings = [Standing(Cursor(0, 1, 16, 7), 0.5, 9, 8), Standing(), Standing(Cursor(0, 1, 8, 6), None, 0, 6)]

    def work(membership: Membership) -> list[Standing]:
        assert membership.seat is not None
        return membership.meet(standings[membership.seat.rank])

    assert on_all(work, [SHAPE] * 3) == [standings] * 3


@pytest.mark.parametrize(
    ("field", "other"),
    [
        ("examples", 101),
        ("eval_examples", 0),
        ("parameters", 8),
        ("regions", (Region("float64", 7),)),
        ("fingerprint", {"numpy": "2.1"}),
    ],
)
def test_ranks_that_built_different_tasks_all_say_in_what(field: str, other: Any) -> None:
    shapes = [SHAPE, SHAPE, replace(SHAPE, **{field: other})]
    for outcome in on_all(lambda membership: membership.meet(Standing()), shapes):
        assert isinstance(outcome, ProtocolError)
        assert f"built different tasks: {field}" in outcome.message
        assert "2" in outcome.message.partition(":")[0]


def test_gathered_values_come_in_rank_order_and_occasions_do_not_mix() -> None:
    def work(membership: Membership) -> list[list[bytes]]:
        rank = membership.gather(b"", "who", 0)
        first = membership.gather(b"a" * len(rank), "eval", 3)
        return [first, membership.gather(b"b", "save", 3), membership.gather(b"c", "eval", 4)]

    assert on_all(work, [SHAPE] * 3) == [[[b"aaa"] * 3, [b"b"] * 3, [b"c"] * 3]] * 3


def test_is_alone() -> None:
    assert on_all(lambda membership: membership.is_alone, [SHAPE]) == [True]
    assert on_all(lambda membership: membership.is_alone, [SHAPE] * 2) == [False] * 2


def test_a_run_of_any_length_keeps_only_what_may_still_be_read() -> None:
    room, world_size, kept = Room(), 3, []

    def work(rank: int) -> None:
        seat = Seat(MemoryChannel(room, rank), (1, 0), rank, world_size, Patient())
        membership, sums = Membership(seat, SHAPE), ScatterReduce(seat, SHAPE.regions)
        membership.meet(Standing())
        for step in range(40):
            sums.contribution(step)[0][:] = rank
            _, totals = sums.reduce(Header(step))
            membership.exchanged()
            assert totals[0].tolist() == [3.0] * 7
            if step % 3 == 0:
                assert membership.gather(bytes([rank]), "eval", step + 1) == [b"\0", b"\1", b"\2"]
            if rank == 0:
                kept.append({key.step for key in room.published() if key.rank == 0})
        membership.part(40)

    assert in_threads(work, world_size) == [None] * world_size
    for step, steps in enumerate(kept):
        assert steps <= {step - 1, step, step + 1}


def test_a_value_is_kept_for_the_slowest_rank() -> None:
    """It reads what the others gave to an evaluation only when they wait for it in the next step."""
    room, world_size, slow = Room(patience_s=20.0), 3, 2
    steps = 6

    def linger(rank: int, key: ChannelKey) -> None:
        if rank == slow and key.piece == "eval" and key.step < steps:
            room.until(lambda: all(other in room.waiting and room.waiting[other].piece == "grad" for other in (0, 1)))

    def work(rank: int) -> list[list[bytes]]:
        seat = Seat(MemoryChannel(room, rank), (1, 0), rank, world_size, Patient())
        membership, sums = Membership(seat, SHAPE), ScatterReduce(seat, SHAPE.regions)
        gathered = []
        for step in range(steps):
            sums.contribution(step)[0][:] = rank
            sums.reduce(Header(step))
            membership.exchanged()
            gathered.append(membership.gather(bytes([rank, step]), "eval", step + 1))
        return gathered

    room.before_read = linger
    expected = [[bytes([rank, step]) for rank in range(world_size)] for step in range(steps)]
    assert in_threads(work, world_size) == [expected] * world_size


def test_the_last_words_of_who_has_gone_are_heard() -> None:
    room, world_size, slow = Room(patience_s=20.0), 3, 1

    def linger(rank: int, key: ChannelKey) -> None:
        if rank == slow and key.piece == "bye":
            room.until(lambda: room.closed == {0, 2})

    def work(rank: int) -> None:
        membership = Membership(Seat(MemoryChannel(room, rank), (1, 0), rank, world_size, Patient()), SHAPE)
        membership.meet(Standing())
        membership.part(7)
        membership.close()

    room.before_read = linger
    assert in_threads(work, world_size) == [None] * world_size


def test_close_releases_the_channel_and_is_harmless_alone() -> None:
    channel = MemoryChannel(Room(), 0)
    Membership(Seat(channel, (1, 0), 0, 2, Patient()), SHAPE).close()
    with pytest.raises(ChannelError, match="closed"):
        channel.allocate(1)
    Membership(None, SHAPE).close()

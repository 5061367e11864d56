"""Sums over ranks that go wrong: what is refused, and how waiting ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from smlt.core.errors import ProtocolError
from smlt.core.storage import ChannelKey
from smlt.core.sync.collectives import Collective, Seat, wait_for
from smlt.core.sync.gathered import GatheredSum
from smlt.core.sync.header import Header
from smlt.core.sync.packed import PackedScatterReduce
from smlt.core.sync.pieces import PiecewiseScatterReduce
from smlt.core.sync.scatter_reduce import ScatterReduce
from smlt.core.task import Region
from tests.support.channels import MemoryChannel, Room, in_threads

REGIONS = (Region("float32", 40),)
SIZE = Header.SIZE + 192


class GaveUpError(Exception):
    """Raised by a rank that is told to leave."""


def give_up(piece: str, peer: int) -> None:
    raise GaveUpError(piece, peer)


def reduced(
    room: Room, header_of: Callable[[int], Header], world_size: int = 3, pattern: type[Collective] = ScatterReduce
) -> list[Any]:
    """What one step came to on each rank."""

    def step(rank: int) -> Any:
        sums = pattern(Seat(MemoryChannel(room, rank), (1, 0), rank, world_size, give_up), REGIONS)
        sums.contribution(4)[0][:] = rank
        return sums.reduce(header_of(rank))

    room.patience_s = 1.0
    return in_threads(step, world_size)


def value(header: Header, size: int = SIZE) -> bytes:
    memory = bytearray(size)
    header.pack_into(memoryview(memory))
    return bytes(memory)


@pytest.mark.parametrize("pattern", [ScatterReduce, PackedScatterReduce, PiecewiseScatterReduce, GatheredSum])
def test_states_that_differ_stop_every_rank(pattern: type[Collective]) -> None:
    for outcome in reduced(Room(), lambda rank: Header(4, digest=1 + rank % 2), pattern=pattern):
        assert isinstance(outcome, ProtocolError)
        assert "states differ before step 4" in outcome.message


@pytest.mark.parametrize(
    ("piece", "lie", "message"),
    [
        ("grad", value(Header(3)), "different steps"),
        ("grad", value(Header(4), SIZE - 64), f"rank 1 sent {SIZE - 64} bytes at step 4, {SIZE} were expected"),
        ("grad", b"smlt", "rank 1 sent 4 bytes"),
        ("grad", b"", "rank 1 sent 0 bytes"),
        ("grad", bytes(SIZE), "header"),
        ("sum", value(Header(4, end=9), Header.SIZE + 64), "rank 1 merged other headers"),
        ("sum", value(Header(4), Header.SIZE), "rank 1 sent 64 bytes"),
    ],
)
def test_what_does_not_belong_here_is_refused(piece: str, lie: bytes, message: str) -> None:
    room = Room()
    room.lies = {ChannelKey(1, 0, 4, piece, 1): lie}
    for rank, outcome in enumerate(reduced(room, lambda rank: Header(4))):
        if rank == 1:
            continue  # reads what it wrote itself; the others leave it alone
        assert isinstance(outcome, ProtocolError)
        assert message in outcome.message


def test_a_nan_in_the_loss_is_no_disagreement() -> None:
    for merged, sums in reduced(Room(), lambda rank: Header(4, loss_sum=float("nan"), weight=1.0)):
        assert np.isnan(merged.loss_sum)
        assert sums[0].tolist() == [3.0] * 40


@pytest.mark.parametrize("shows", [True, False])
@pytest.mark.parametrize("missing", [0, 2])
def test_a_missing_peer_is_waited_for_until_patience_ends(missing: int, shows: bool) -> None:
    room, present = Room(patience_s=0.0), 2 - missing
    asked = []

    def patience(piece: str, peer: int) -> None:
        asked.append((piece, peer))
        if len(asked) == 3:
            raise GaveUpError

    MemoryChannel(room, present).put(ChannelKey(1, 0, 0, "grad", present), [value(Header(0))])
    sums = ScatterReduce(Seat(MemoryChannel(room, 1, shows=shows), (1, 0), 1, 3, patience), REGIONS)
    sums.contribution(0)
    with pytest.raises(GaveUpError):
        sums.reduce(Header(0))
    assert asked == [("grad", missing)] * 3


def test_a_peer_that_is_late_is_not_lost() -> None:
    room, key = Room(patience_s=0.0), ChannelKey(1, 0, 0, "grad", 1)
    asked = []

    def patience(piece: str, peer: int) -> None:
        asked.append((piece, peer))
        if len(asked) == 2:
            MemoryChannel(room, 1).put(key, [b"here"])

    assert bytes(wait_for(MemoryChannel(room, 0), key, patience)) == b"here"
    assert asked == [("grad", 1)] * 2

"""A state from a donor to the ranks that have none: through real channels, in pieces; what is told of a wrong one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smlt.backends.channels import object as object_channel
from smlt.backends.channels import shared_memory
from smlt.core import checkpoint, state_transfer, wire
from smlt.core.backend import RunPlace
from smlt.core.errors import ProtocolError
from smlt.core.membership import Membership
from smlt.core.rank_events import Standing
from smlt.core.storage import Channel, ChannelKey, StoreSpec
from smlt.core.sync.collectives import Seat
from smlt.core.sync.header import Header
from smlt.core.sync.scatter_reduce import ScatterReduce
from smlt.core.task import Region, State, TaskShape
from tests.support.channels import MemoryChannel, Patient, Room, in_threads
from tests.support.states import ARRAYS, EXTRA

STEP, DONOR = 7, 1
STATE = State(ARRAYS, EXTRA)

OpenRank = Callable[[int], Channel]


@pytest.fixture(params=["memory", "copied", "shared_memory", "file"])
def open_rank(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenRank]:
    """Opens a rank's client of one round's channel."""
    if request.param in ("memory", "copied"):
        room = Room(patience_s=20.0)
        yield lambda rank: MemoryChannel(room, rank, shows=request.param == "memory")
    elif request.param == "file":
        spec = object_channel.spec_for(StoreSpec("file", tmp_path.as_uri()))
        yield functools.partial(object_channel.ObjectChannel, spec, 1, 0)
    else:
        place = RunPlace("test", tmp_path / "runs")
        yield functools.partial(shared_memory.SharedMemoryChannel, shared_memory.spec_for(place), 1, 0)
        shared_memory.sweep(place)


def seat_of(channel: Channel, rank: int, world_size: int) -> Seat:
    return Seat(channel, (1, 0), rank, world_size, Patient())


def fetched(open_rank: OpenRank, state: State, world_size: int = 3) -> list[Any]:
    """What each rank but the donor has got; all stay until all have it, as in a round."""

    def work(rank: int) -> State | None:
        with closing(open_rank(rank)) as channel:
            membership = Membership(seat_of(channel, rank, world_size), TaskShape(10, 0, 3, ()))
            membership.meet(Standing())
            found = None
            if rank == DONOR:
                membership.serve(state, STEP, world_size - 1)
            else:
                found = membership.fetch(DONOR, STEP)
            membership.part(STEP)
            return found

    outcomes = in_threads(work, world_size)
    assert outcomes.pop(DONOR) is None
    return outcomes


def check(found: Any, state: State) -> None:
    assert isinstance(found, State), found
    assert found.extra == state.extra
    assert {name: (array.dtype, array.shape) for name, array in found.arrays.items()} == {
        name: (array.dtype, array.shape) for name, array in state.arrays.items()
    }
    assert checkpoint.xxh64_of(found) == checkpoint.xxh64_of(state)


@pytest.mark.parametrize("piece_bytes", [32 << 20, 100])
def test_every_reader_has_the_donor_s_state(
    open_rank: OpenRank, piece_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_transfer, "PIECE_BYTES", piece_bytes)
    for found in fetched(open_rank, STATE):
        check(found, STATE)


def test_a_state_may_be_empty(open_rank: OpenRank) -> None:
    for found in fetched(open_rank, State({})):
        check(found, State({}))


def test_a_large_state_travels_in_several_pieces() -> None:
    large = State({"weights": np.arange(9 << 20, dtype=np.int64)}, {"step": STEP})
    room = Room(patience_s=20.0)
    donor, reader = (seat_of(MemoryChannel(room, rank), rank, 2) for rank in (0, 1))
    keys = state_transfer.serve(donor, large, STEP, 2)
    assert [key.piece for key in keys] == ["state", "state.0", "state.1", "state.2"]
    assert room.published() == sorted(keys)
    check(state_transfer.fetch(reader, 0, STEP), large)


def test_the_state_is_the_one_that_was_served_whatever_becomes_of_it() -> None:
    """A donor need not wait: it goes on, and changes its state in place."""
    room, weights = Room(patience_s=20.0), np.ones(5)
    donor, reader = (seat_of(MemoryChannel(room, rank), rank, 2) for rank in (0, 1))
    state_transfer.serve(donor, State({"weights": weights}), STEP, 1)
    weights[:] = 2.0
    assert state_transfer.fetch(reader, 0, STEP).arrays["weights"].tolist() == [1.0] * 5


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> tuple[Room, Seat]:
    """Where rank 1 has served a state in pieces of 1,000 bytes, and another rank's seat there."""
    monkeypatch.setattr(state_transfer, "PIECE_BYTES", 1000)
    room = Room(patience_s=0.0)
    state_transfer.serve(seat_of(MemoryChannel(room, DONOR), DONOR, 3), State({"w": np.arange(300.0)}), STEP, 2)
    return room, seat_of(MemoryChannel(room, 2), 2, 3)


def piece(name: str) -> ChannelKey:
    return ChannelKey(1, 0, STEP, name, DONOR)


@pytest.mark.parametrize("size", [0, 1, 999])
def test_a_cut_piece_is_told(served: tuple[Room, Seat], size: int) -> None:
    room, seat = served
    room.lies = {piece("state.1"): bytes(room.values[piece("state.1")].memory)[:size]}
    with pytest.raises(ProtocolError, match=f"rank 1 sent {size} bytes at step 7, 1000 were expected"):
        state_transfer.fetch(seat, DONOR, STEP)


@pytest.mark.parametrize("wrong", ["state.0", "state.1", "state.2"])
def test_a_wrong_piece_is_told(served: tuple[Room, Seat], wrong: str) -> None:
    room, seat = served
    data = bytearray(room.values[piece(wrong)].memory)
    data[-1] ^= 1
    room.lies = {piece(wrong): bytes(data)}
    with pytest.raises(ProtocolError, match="the state that rank 1 served at step 7 did not arrive whole"):
        state_transfer.fetch(seat, DONOR, STEP)


def test_pieces_in_another_order_are_told(served: tuple[Room, Seat]) -> None:
    room, seat = served
    first, second = (bytes(room.values[piece(name)].memory) for name in ("state.0", "state.1"))
    room.lies = {piece("state.0"): second, piece("state.1"): first}
    with pytest.raises(ProtocolError, match="did not arrive whole"):
        state_transfer.fetch(seat, DONOR, STEP)


@pytest.mark.parametrize(
    ("cover", "says"),
    [(b"", "not a message"), (b"\x93a stranger's", "not a message"), (wire.pack(Standing()), "got Standing")],
)
def test_what_is_no_cover_is_told(served: tuple[Room, Seat], cover: bytes, says: str) -> None:
    room, seat = served
    room.lies = {piece("state"): cover}
    with pytest.raises(ProtocolError, match=says):
        state_transfer.fetch(seat, DONOR, STEP)


class LeftError(Exception):
    """Raised by a rank that is told to leave."""


@pytest.mark.parametrize("missing", ["state", "state.1"])
def test_a_donor_that_is_lost_is_waited_for_until_patience_ends(served: tuple[Room, Seat], missing: str) -> None:
    room, seat = served
    del room.values[piece(missing)]
    asked = []

    def patience(name: str, peer: int) -> None:
        asked.append((name, peer))
        if len(asked) == 2:
            raise LeftError

    with pytest.raises(LeftError):
        state_transfer.fetch(Seat(seat.channel, seat.address, seat.rank, seat.world_size, patience), DONOR, STEP)
    assert asked == [(missing, DONOR)] * 2


def test_a_state_is_forgotten_once_all_have_contributed_to_a_step() -> None:
    """Who contributes has fetched."""
    room, world_size, shape = Room(patience_s=20.0), 3, TaskShape(10, 0, 7, (Region("float32", 7),))

    def work(rank: int) -> None:
        seat = seat_of(MemoryChannel(room, rank), rank, world_size)
        membership, sums = Membership(seat, shape), ScatterReduce(seat, shape.regions)
        membership.meet(Standing())
        if rank == DONOR:
            membership.serve(STATE, STEP, 99)  # more than come, so that nothing vanishes by being read
        else:
            check(membership.fetch(DONOR, STEP), STATE)
        sums.contribution(STEP)
        sums.reduce(Header(STEP))
        membership.exchanged()

    assert in_threads(work, world_size) == [None] * world_size
    assert {key.piece for key in room.published()} == {"grad", "sum"}


def test_who_is_alone_has_no_donor() -> None:
    with pytest.raises(ProtocolError, match="a single rank has no donor"):
        Membership(None, TaskShape(10, 0, 3, ())).fetch(0, STEP)

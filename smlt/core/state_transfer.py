"""One rank's SHARED state for ranks that have none: in pieces through the round's channel, verified."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import xxhash

from smlt.core import wire
from smlt.core.errors import ProtocolError
from smlt.core.storage import ChannelKey
from smlt.core.sync.collectives import Seat, check_size, read, wait_for
from smlt.core.task import State
from smlt.core.tensor_file import Snapshot, views_of

PIECE_BYTES = 32 << 20
"""Small enough for any channel, large enough that requests do not count."""


@dataclass(frozen=True)
class _Cover:
    """What comes before the pieces.

    Attributes:
        size_bytes: of all pieces together.
        digest: xxh64 over them.
        extra: the plain part of the state.
    """

    size_bytes: int
    digest: int
    extra: dict[str, Any] = field(default_factory=dict)


def serve(seat: Seat, state: State, step: int, readers: int) -> list[ChannelKey]:
    """Publish a state for so many readers; returns the keys to discard once they have it."""
    data = Snapshot().take(state.arrays)
    cover = _Cover(data.nbytes, xxhash.xxh64_intdigest(data), state.extra)
    seat.channel.put(seat.own_key(step, "state"), [wire.pack(cover)], readers=readers)
    keys = [seat.own_key(step, "state")]
    for piece, start, stop in _pieces(data.nbytes):
        keys.append(seat.own_key(step, piece))
        seat.channel.put(keys[-1], [data[start:stop]], readers=readers)
    return keys


def fetch(seat: Seat, donor: int, step: int) -> State:
    """The state that `donor` serves.

    Raises:
        ProtocolError: what came is not what was sent.
        Whatever the seat's patience raises.
    """
    cover = wire.unpack(bytes(wait_for(seat.channel, seat.key(step, "state", donor), seat.patience)), _Cover)
    data = memoryview(bytearray(cover.size_bytes))
    for piece, start, stop in _pieces(cover.size_bytes):
        key = seat.key(step, piece, donor)
        room = data[start:stop]
        found = read(seat.channel, key, room, seat.patience)
        check_size(key, found.nbytes, room.nbytes)
        if found is not room:
            room[:] = found
    if xxhash.xxh64_intdigest(data) != cover.digest:
        raise ProtocolError(f"the state that rank {donor} served at step {step} did not arrive whole")
    return State(views_of(data), cover.extra)


def _pieces(size_bytes: int) -> Iterator[tuple[str, int, int]]:
    """Name, start and stop of each piece."""
    for number, start in enumerate(range(0, size_bytes, PIECE_BYTES)):
        yield f"state.{number}", start, min(start + PIECE_BYTES, size_bytes)

"""What the measuring process and its ranks say to each other: msgpack over a pipe each, never pickle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from smlt.bench.redis_peer import RedisMeeting
from smlt.core import wire
from smlt.core.storage import ChannelSpec

T = TypeVar("T")


@dataclass(frozen=True)
class Seating:
    """To a rank, first of all: who it is and what it opens.

    Attributes:
        rank, world_size, elements: of every variant.
        channels: by name.
        peers: names.
        gloo_meeting: a file.
        redis_meeting: for the peers over Redis; None where there is none.
    """

    rank: int
    world_size: int
    elements: int
    channels: Mapping[str, ChannelSpec]
    peers: tuple[str, ...]
    gloo_meeting: str
    redis_meeting: RedisMeeting | None


@dataclass(frozen=True)
class Turn:
    """To a rank: compute a contribution to this step of this variant, say `Ready`, and reduce it after `Go`.

    With `check`, the sum is compared with the exact one.
    """

    variant: str
    step: int
    check: bool


@dataclass(frozen=True)
class Go:
    """To a rank: start now."""


@dataclass(frozen=True)
class Leave:
    """To a rank: close everything and end."""


@dataclass(frozen=True)
class Ready:
    """From a rank: all is open, or the contribution is there."""


@dataclass(frozen=True)
class Timing:
    """From a rank, of one reduction.

    Attributes:
        start_s, end_s: by a clock that all processes share.
        cpu_s: processor time of the rank's process, all its threads.
        requests, bytes_up, bytes_down: as `ChannelStats` has them; `requests` is None where nobody counts.
    """

    start_s: float
    end_s: float
    cpu_s: float
    requests: Mapping[str, int] | None
    bytes_up: int
    bytes_down: int


@dataclass(frozen=True)
class Failure:
    """From a rank, its last word: what was raised."""

    kind: str
    message: str
    hint: str
    traceback: str


_KINDS: dict[str, type] = {kind.__name__: kind for kind in (Seating, Turn, Go, Leave, Ready, Timing, Failure)}


@dataclass
class Line:
    """One end of a pipe that carries messages."""

    connection: Connection[bytes, bytes] = field(repr=False)

    def send(self, message: Any) -> None:
        """Raises OSError where the other end is gone."""
        self.connection.send_bytes(type(message).__name__.encode() + b"\n" + wire.pack(message))

    def receive(self) -> Any:
        """The next message; raises EOFError where the other end is gone."""
        name, _, body = self.connection.recv_bytes().partition(b"\n")
        return wire.unpack(body, _KINDS[name.decode()])

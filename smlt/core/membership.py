"""One rank's part in one round: its channel, and the small values it gathers from all."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from smlt.core import wire
from smlt.core.errors import ProtocolError
from smlt.core.storage import ChannelKey
from smlt.core.sync.collectives import Seat, all_gather
from smlt.core.task import TaskShape


class Traffic(NamedTuple):
    """Payload bytes and requests."""

    sent_bytes: int = 0
    received_bytes: int = 0
    requests: int = 0


class Membership:
    """Made when a round opens, closed when this rank leaves it.

    Args:
        seat: this rank's; None for a single rank, who needs no channel.
        shape: of the task; all ranks must have built the same.
    """

    def __init__(self, seat: Seat | None, shape: TaskShape) -> None:
        self._seat, self._shape = seat, shape
        self._exchanges = 0
        self._counted = Traffic()
        self._gathered: deque[tuple[int, ChannelKey]] = deque()

    @property
    def is_alone(self) -> bool:
        """Whether this is the only rank."""
        return self._seat is None

    def traffic(self) -> Traffic:
        """What the channel has moved since this was last asked."""
        if self._seat is None:
            return Traffic()
        stats = self._seat.channel.stats()
        now = Traffic(stats.bytes_up, stats.bytes_down, sum(stats.requests.values()))
        before, self._counted = self._counted, now
        return Traffic(*(after - earlier for after, earlier in zip(now, before, strict=True)))

    def exchanged(self) -> None:
        """All ranks have contributed to one more sum; so all have gathered what was before it, which is forgotten."""
        self._exchanges += 1
        while self._gathered and self._gathered[0][0] < self._exchanges:
            _, key = self._gathered.popleft()
            if self._seat is not None:
                self._seat.channel.discard(key)

    def gather(self, own: bytes, piece: str, step: int) -> list[bytes]:
        """Every rank's value, in rank order."""
        if self._seat is None:
            return [own]
        self._gathered.append((self._exchanges, self._seat.own_key(step, piece)))
        return all_gather(self._seat, own, step, piece)

    def meet(self, occasion: str, step: int) -> None:
        """Wait until all ranks have come here, and check that they are one computation.

        At the beginning of a round it makes every channel known to every rank; at the end, once all have come, nobody
        needs anything more of anybody.

        Raises:
            ProtocolError: another rank has built another task.
        """
        own, own_rank = wire.pack(self._shape), self._seat.rank if self._seat else 0
        for rank, other in enumerate(self.gather(own, occasion, step)):
            if other != own:
                raise ProtocolError(
                    f"ranks {own_rank} and {rank} built different tasks: {_difference(own, other)}",
                    "build_model and train_data must give the same on every rank, in functions of the same image",
                )

    def close(self) -> None:
        """Release the channel."""
        if self._seat is not None:
            self._seat.channel.close()


def _difference(own: bytes, other: bytes) -> str:
    mine, theirs = (wire.unpack(shape, TaskShape) for shape in (own, other))
    for name in TaskShape.__dataclass_fields__:
        if getattr(mine, name) != getattr(theirs, name):
            return f"{name} {getattr(mine, name)} and {getattr(theirs, name)}"
    return "they differ"

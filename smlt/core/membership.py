"""One rank's part in one round: its channel, the small values it gathers from all, the state it gives or takes."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from smlt.core import state_transfer, wire
from smlt.core.errors import ProtocolError
from smlt.core.rank_events import Standing
from smlt.core.storage import ChannelKey
from smlt.core.sync.collectives import Seat, all_gather
from smlt.core.task import State, TaskShape


class Traffic(NamedTuple):
    """Payload bytes and requests; `puts` of them write."""

    sent_bytes: int = 0
    received_bytes: int = 0
    requests: int = 0
    puts: int = 0


@dataclass(frozen=True)
class _Hello:
    """What a rank says when it comes to a round."""

    shape: TaskShape
    standing: Standing


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

    @property
    def seat(self) -> Seat | None:
        """This rank's; None for a single rank."""
        return self._seat

    def traffic(self) -> Traffic:
        """What the channel has moved since this was last asked."""
        if self._seat is None:
            return Traffic()
        stats = self._seat.channel.stats()
        now = Traffic(stats.bytes_up, stats.bytes_down, sum(stats.requests.values()), stats.requests.get("put", 0))
        before, self._counted = self._counted, now
        return Traffic(*(after - earlier for after, earlier in zip(now, before, strict=True)))

    def exchanged(self) -> None:
        """All ranks have contributed to one more sum; so all have gathered what was before it, which is forgotten."""
        self._exchanges += 1
        while self._gathered and self._gathered[0][0] < self._exchanges:
            _, key = self._gathered.popleft()
            if self._seat is not None:
                self._seat.channel.discard(key)

    def gather(self, own: bytes, piece: str, step: int = 0) -> list[bytes]:
        """Every rank's value, in rank order."""
        if self._seat is None:
            return [own]
        self._gathered.append((self._exchanges, self._seat.own_key(step, piece)))
        return all_gather(self._seat, own, step, piece)

    def meet(self, standing: Standing) -> list[Standing]:
        """Wait until all ranks have come to the round; returns where each stands, in rank order.

        It makes every channel known to every rank.

        Raises:
            ProtocolError: another rank has built another task.
        """
        own_rank = self._seat.rank if self._seat else 0
        hellos = [wire.unpack(each, _Hello) for each in self.gather(wire.pack(_Hello(self._shape, standing)), "hello")]
        for rank, hello in enumerate(hellos):
            if hello.shape != self._shape:
                raise ProtocolError(
                    f"ranks {own_rank} and {rank} built different tasks: {_difference(self._shape, hello.shape)}",
                    "build_model and train_data must give the same on every rank, in functions of the same image",
                )
        return [hello.standing for hello in hellos]

    def part(self, step: int) -> None:
        """Wait until all ranks have come to the end: then nobody needs anything more of anybody."""
        self.gather(b"", "bye", step)

    def serve(self, state: State, step: int, readers: int) -> None:
        """Give a state to so many ranks."""
        if self._seat is not None:
            for key in state_transfer.serve(self._seat, state, step, readers):
                self._gathered.append((self._exchanges, key))

    def fetch(self, donor: int, step: int) -> State:
        """The state that `donor` gives."""
        if self._seat is None:
            raise ProtocolError("a single rank has no donor")
        return state_transfer.fetch(self._seat, donor, step)

    def close(self) -> None:
        """Release the channel."""
        if self._seat is not None:
            self._seat.channel.close()


def _difference(own: TaskShape, other: TaskShape) -> str:
    for name in TaskShape.__dataclass_fields__:
        if getattr(own, name) != getattr(other, name):
            return f"{name} {getattr(own, name)} and {getattr(other, name)}"
    return "they differ"

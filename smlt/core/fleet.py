"""What the controller knows of its functions: generations of ranks, and the newest incarnation of each."""

from __future__ import annotations

from dataclasses import dataclass, field

from smlt.core.messages import Left, Ready, Round
from smlt.core.run_events import Address, Beat


@dataclass
class Member:
    """One rank's newest incarnation.

    Attributes:
        address: whose.
        launched_at, heard_at: by the controller's clock; heard_at is None before the first beat.
        beat: the last one.
        ready, left: what it has said.
        is_gone: its function is over, or given up.
    """

    address: Address
    launched_at: float
    heard_at: float | None = None
    beat: Beat | None = None
    ready: Ready | None = None
    left: Left | None = None
    is_gone: bool = False

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for another rank."""
        return self.beat is not None and self.beat.phase.startswith("waiting")


@dataclass
class Generation:
    """The ranks of one allocation.

    Attributes:
        number: of the generation.
        members: by rank.
        round: number of the round that is open; -1 before the first.
        first_launch_at: when its first function was launched.
    """

    number: int
    first_launch_at: float
    members: list[Member] = field(default_factory=list)
    round: int = -1

    @classmethod
    def launched(cls, number: int, workers: int, now: float) -> Generation:
        """A generation whose functions are being launched now."""
        return cls(number, now, [Member(Address(number, rank, 0), now) for rank in range(workers)])

    @property
    def workers(self) -> int:
        """How many ranks."""
        return len(self.members)

    @property
    def is_ready(self) -> bool:
        """Whether every rank has built its task and is there."""
        return all(member.ready and not member.is_gone for member in self.members)

    @property
    def is_open(self) -> bool:
        """Whether a round was opened, so that ranks may have a state."""
        return self.round >= 0

    @property
    def is_leaving(self) -> bool:
        """Whether a rank has said its last word: then all have saved what there was to save."""
        return any(member.left for member in self.members)

    @property
    def is_over(self) -> bool:
        """Whether every rank has left or is gone."""
        return all(member.left or member.is_gone for member in self.members)

    @property
    def is_gone(self) -> bool:
        """Whether no function is left."""
        return all(member.is_gone for member in self.members)

    @property
    def launched_at(self) -> float:
        """When the oldest function that is there was launched."""
        return min((member.launched_at for member in self.members if not member.is_gone), default=self.first_launch_at)

    def relaunched(self, rank: int, now: float) -> Member:
        """The next incarnation of a rank, in the place of the one before."""
        address = self.members[rank].address
        member = Member(Address(address.generation, rank, address.incarnation + 1), now)
        self.members[rank] = member
        return member

    def opened(self, resume_from: str) -> Round:
        """The next round, of all who are there."""
        self.round += 1
        return Round(
            self.number, self.round, tuple(member.ready.uuid for member in self.members if member.ready), resume_from
        )

"""What the controller knows of its functions: generations of ranks, and the newest incarnation of each."""

from __future__ import annotations

from dataclasses import dataclass, field

from smlt.core.messages import Left, Ready, Round
from smlt.core.run_events import Address, Beat

FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 10.0
"""After a refusal a launch is tried again: doubled each time, up to the longest."""


@dataclass
class Member:
    """One rank's newest incarnation.

    Attributes:
        address: whose.
        launched_at, heard_at: by the controller's clock; heard_at is None before the first beat.
        refused_at, retry_at: when the platform first refused to start it, and when it is tried again; None where it
            was not refused, or is being tried.
        wait_s: before it was tried last.
        beat: the last one since the round was opened.
        ready, left: what it has said.
        round: the newest one that it is a member of; -1 for none.
        has_stepped: whether it has reported a step.
        is_gone: its function is over, or given up.
    """

    address: Address
    launched_at: float
    heard_at: float | None = None
    refused_at: float | None = None
    retry_at: float | None = None
    wait_s: float = 0.0
    beat: Beat | None = None
    ready: Ready | None = None
    left: Left | None = None
    round: int = -1
    has_stepped: bool = False
    is_gone: bool = False

    @property
    def is_here(self) -> bool:
        """Whether a function was started for it and may still be there."""
        return not self.is_gone and self.retry_at is None

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for another rank."""
        return self.beat is not None and self.beat.phase.startswith("waiting")

    def refuse(self, now: float) -> float:
        """The platform did not start it; returns after how many seconds it is tried again."""
        self.refused_at = now if self.refused_at is None else self.refused_at
        self.wait_s = min(2 * self.wait_s or FIRST_WAIT_S, LONGEST_WAIT_S)
        self.retry_at = now + self.wait_s
        return self.wait_s

    def retry(self, now: float) -> None:
        """It is tried again."""
        self.launched_at, self.retry_at = now, None


@dataclass
class Generation:
    """The ranks of one allocation.

    Attributes:
        number: of the generation.
        first_launch_at: when its first function was launched.
        members: by rank.
        round: number of the round that is open; -1 before the first.
        leaving_since: when the first rank said its last word; None before. All have saved what there was to save then.
    """

    number: int
    first_launch_at: float
    members: list[Member] = field(default_factory=list)
    round: int = -1
    leaving_since: float | None = None

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
        return all(member.ready and member.is_here for member in self.members)

    @property
    def is_open(self) -> bool:
        """Whether a round was opened, so that ranks may have a state."""
        return self.round >= 0

    @property
    def is_leaving(self) -> bool:
        """Whether a rank has come to the end and said its last word."""
        return self.leaving_since is not None

    @property
    def has_survivors(self) -> bool:
        """Whether a rank is there that takes part in the open round."""
        return self.is_open and any(member.is_here and member.round == self.round for member in self.members)

    @property
    def is_over(self) -> bool:
        """Whether every rank has left or is not there."""
        return all(member.left or not member.is_here for member in self.members)

    @property
    def is_gone(self) -> bool:
        """Whether no function is left."""
        return not any(member.is_here for member in self.members)

    @property
    def launched_at(self) -> float:
        """When the oldest function that is there was launched."""
        return min((member.launched_at for member in self.members if member.is_here), default=self.first_launch_at)

    def relaunched(self, rank: int, now: float) -> Member:
        """The next incarnation of a rank, in the place of the one before."""
        address = self.members[rank].address
        member = Member(Address(address.generation, rank, address.incarnation + 1), now)
        self.members[rank] = member
        return member

    def opened(self, resume_from: str) -> Round:
        """The next round, of all who are there."""
        self.round += 1
        for member in self.members:
            member.round = self.round
            member.beat = None  # what it was doing it does no more
        uuids = tuple(member.ready.uuid for member in self.members if member.ready)
        return Round(self.number, self.round, uuids, resume_from)

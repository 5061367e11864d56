"""What the controller knows of its functions: generations of ranks, and the newest incarnation of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from smlt.core.messages import Left, Ready, Round
from smlt.core.run_events import Address, Adopted, Beat
from smlt.core.stragglers import Stragglers
from smlt.core.task import TaskShape

FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 10.0
"""After a refusal a launch is tried again: doubled each time, up to the longest."""


@dataclass(eq=False)
class Member:
    """One rank's newest incarnation.

    Attributes:
        address: whose.
        launched_at, heard_at: by the controller's clock; heard_at is None before the first beat.
        memory_mib: with which its function is launched.
        refused_at, retry_at: when the platform first refused to start it, and when it is tried, or tried again; None
            where it was not refused, or is being tried.
        wait_s: before it was tried last.
        beat: the last one since the round was opened.
        ready, left: what it has said.
        round: the newest one that it is a member of; -1 for none.
        has_stepped: whether it has reported a step.
        stepped_in: the newest round of which it has reported a step; -1 for none.
        is_gone: its function is over, or given up.
    """

    address: Address
    launched_at: float
    memory_mib: int
    heard_at: float | None = None
    refused_at: float | None = None
    retry_at: float | None = None
    wait_s: float = 0.0
    beat: Beat | None = None
    ready: Ready | None = None
    left: Left | None = None
    round: int = -1
    has_stepped: bool = False
    stepped_in: int = -1
    is_gone: bool = False

    @property
    def is_here(self) -> bool:
        """Whether a function was started for it and may still be there."""
        return not self.is_gone and self.retry_at is None

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for another rank."""
        return self.beat is not None and self.beat.phase.startswith("waiting")


class Generation:
    """The ranks of one allocation. Its members change by its methods only, which keep count: ranks may be thousands.

    Args:
        number: of the generation.
        workers: how many ranks.
        now: when its functions are launched.
        memory_mib: with so much each.

    Attributes:
        members: by rank.
        memory_mib: what its functions are meant to have.
        round, opened_at: number of the round that is open, -1 before the first; and since when.
        stragglers: who holds the others up.
        heir: the next incarnation of a rank, which makes ready to take the place of the one that works; None for none.
        leaving_since: when the first rank came to the end and said its last word; None before. All have saved what
            there was to save then.
    """

    def __init__(self, number: int, workers: int, now: float, memory_mib: int) -> None:
        self.number, self.memory_mib = number, memory_mib
        self.members = [Member(Address(number, rank, 0), now, memory_mib) for rank in range(workers)]
        self.round = -1
        self.stragglers = Stragglers(workers)
        self.heir: Member | None = None
        self._newest = [0] * workers
        self.opened_at = now
        self.leaving_since: float | None = None
        self._launched_at = now
        self._unready = set(range(workers))
        self._staying = set(range(workers))
        self._here = set(range(workers))

    @classmethod
    def adopted(cls, adopted: Adopted, now: float) -> Generation:
        """A generation that another controller launched, in its open round."""
        opened, shape = adopted.round, TaskShape(0, adopted.eval_examples, 0, ())
        generation = cls(opened.generation, len(opened.members), now, 0)
        generation.round, generation._newest = opened.number, list(adopted.newest)
        for member, address in zip(generation.members, adopted.addresses, strict=True):
            member.address, member.launched_at, member.heard_at = address, adopted.launched_at[address.rank], now
            member.memory_mib = adopted.memory_mib[address.rank]
            if address.rank not in adopted.lost:
                member.round, member.has_stepped = opened.number, True
                generation.says_ready(member, Ready(opened.members[address.rank], shape, adopted.total_steps))
        return generation

    @property
    def workers(self) -> int:
        """How many ranks."""
        return len(self.members)

    @property
    def is_ready(self) -> bool:
        """Whether every rank has built its task and is there."""
        return not self._unready

    @property
    def has_ready(self) -> bool:
        """Whether any rank has built its task."""
        return any(member.ready for member in self.members)

    @property
    def is_open(self) -> bool:
        """Whether a round was opened, so that ranks may have a state."""
        return self.round >= 0

    @property
    def is_leaving(self) -> bool:
        """Whether a rank has come to the end."""
        return self.leaving_since is not None

    @property
    def is_over(self) -> bool:
        """Whether every rank has left or is not there."""
        return not self._staying

    @property
    def is_gone(self) -> bool:
        """Whether no function is left."""
        return not self._here

    @property
    def functions(self) -> int:
        """How many may be there."""
        return len(self._here) + (self.heir is not None and self.heir.is_here)

    @property
    def has_survivors(self) -> bool:
        """Whether a rank is there that takes part in the open round."""
        return self.is_open and any(self.members[rank].round == self.round for rank in self._here)

    @property
    def launched_at(self) -> float:
        """When the oldest function that is there was launched."""
        return min((self.members[rank].launched_at for rank in self._here), default=self._launched_at)

    @property
    def here(self) -> list[Member]:
        """Members whose function may be there, in rank order."""
        return [self.members[rank] for rank in sorted(self._here)]

    def says_ready(self, member: Member, ready: Ready) -> None:
        """It has built its task, or asks for another round."""
        member.ready = ready
        self._count(member)

    def says_left(self, member: Member, left: Left) -> None:
        """Its last word."""
        member.left = left
        self._count(member)

    def give_up(self, member: Member) -> None:
        """It is not there any more, or will not be waited for."""
        member.is_gone = True
        self._count(member)

    def refuse(self, member: Member, now: float) -> float:
        """The platform did not start it; returns after how many seconds it is tried again."""
        member.refused_at = now if member.refused_at is None else member.refused_at
        member.wait_s = min(2 * member.wait_s or FIRST_WAIT_S, LONGEST_WAIT_S)
        member.retry_at = now + member.wait_s
        self._count(member)
        return member.wait_s

    def postpone(self, room: int, now: float) -> None:
        """All but the first `room` ranks are launched later."""
        for member in self.members[max(0, room) :]:
            member.retry_at = now
            self._count(member)

    def hurry(self, now: float) -> None:
        """There may be room now for what was refused: it is tried at once, and has all the time for it."""
        for member in self.members:
            if member.retry_at is not None:
                member.refused_at, member.retry_at = now, now

    def due(self, now: float, room: int) -> list[Member]:
        """Those whose launch, or another try at it, is due, and no more than there is room for."""
        due = [each for each in self.members if not each.is_gone and each.retry_at is not None and now >= each.retry_at]
        return due[: max(0, room)]

    def retried(self, members: Sequence[Member], now: float) -> None:
        """They are launched now."""
        for member in members:
            member.launched_at, member.retry_at = now, None
            self._count(member)

    def relaunched(self, rank: int, now: float, memory_mib: int) -> Member:
        """The next incarnation of a rank, in the place of the one before."""
        member = self._incarnated(rank, now, memory_mib)
        self._put(member)
        return member

    def prepare_heir(self, rank: int, now: float, memory_mib: int) -> Member:
        """The next incarnation of a rank, beside the one that works."""
        self.heir = self._incarnated(rank, now, memory_mib)
        return self.heir

    def can_spare(self, rank: int) -> bool:
        """Whether all other ranks are known to have a state, so that the function of this one may go."""
        if not (self.is_open and self.is_ready) or self.is_leaving:
            return False
        others = (member for member in self.members if member.address.rank != rank)
        return all(member.stepped_in == self.round for member in others)

    def succeed(self) -> Member:
        """The heir takes its place; returns who had it."""
        heir, self.heir = self.heir, None
        assert heir is not None
        before = self.members[heir.address.rank]
        self._put(heir)
        return before

    def _incarnated(self, rank: int, now: float, memory_mib: int) -> Member:
        self._newest[rank] += 1
        return Member(Address(self.number, rank, self._newest[rank]), now, memory_mib)

    def _put(self, member: Member) -> None:
        self.members[member.address.rank] = member
        self._count(member)
        self.stragglers.forget(member.address.rank)

    def ends(self, left: Left, now: float) -> list[Member]:
        """A member has come to an end that those in its round have agreed on; returns who is in another, if it is the
        first: they wait for peers that will not come.
        """
        if self.leaving_since is not None:
            return []
        self.leaving_since = now
        last = self.round if left.round < 0 else left.round
        return [member for member in self.members if not member.left and member.round != last]

    def opened(self, resume_from: str, now: float) -> Round:
        """The next round, of all who are there."""
        self.round += 1
        self.opened_at = now
        for member in self.members:
            member.round = self.round
            member.beat = None  # what it was doing it does no more
        uuids = tuple(member.ready.uuid for member in self.members if member.ready)
        return Round(self.number, self.round, uuids, resume_from)

    def _count(self, member: Member) -> None:
        rank, is_here = member.address.rank, member.is_here
        if member is self.heir:
            return  # nobody waits for it
        for ranks, belongs in (
            (self._here, is_here),
            (self._staying, is_here and not member.left),
            (self._unready, not (is_here and member.ready)),
        ):
            (ranks.add if belongs else ranks.discard)(rank)


def introduction(ready: Ready) -> dict[str, Any]:
    """What a rank that is READY says of its task."""
    return {
        "examples": ready.shape.examples,
        "parameters": ready.shape.parameters,
        "eval_examples": ready.shape.eval_examples,
        "total_steps": ready.total_steps,
        "fingerprint": ready.shape.fingerprint,
    }

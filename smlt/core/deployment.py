"""The functions of a run: which there are, what starts and ends them. When, and why, is the controller's business."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from smlt.core.allowance import Allowance
from smlt.core.fleet import Generation, Member
from smlt.core.memory_size import MemorySize
from smlt.core.run_events import Address, Command, Kill, Launch, Record, Terms


class Deployment:
    """Keeps the generations of a run. Methods give the commands that make the world as they say.

    Args:
        terms: of the run.
        allowance: is told of every launch.

    Attributes:
        current, next: the generation that trains, and the one that makes ready to take over.
        old: who has had the last word or is not needed any more, and since when.
        newest: number of the newest generation.
        workers, memory: how many ranks the next generation has, and what is launched has of memory.
    """

    def __init__(self, terms: Terms, allowance: Allowance) -> None:
        self._terms, self._allowance = terms, allowance
        self.current = Generation(0, 0, 0.0, 0)
        self.next: Generation | None = None
        self.old: dict[Address, float] = {}
        self.newest = 0
        self.workers, self.memory = terms.workers, MemorySize(terms)

    def launch_current(self, now: float) -> Iterator[Command]:
        """A generation trains as soon as it is ready; it has the room that there is, and more of it as others go."""
        self.current = self._new(now)
        self.current.postpone(self._terms.max_workers - len(self.old), now)
        yield from self._launch(self.current.members, self.workers)

    def launch_next(self, now: float, reason: str) -> Iterator[Command]:
        """Let another generation make ready, while this one goes on."""
        self.next = self._new(now)
        yield Record("hand_over", {"generation": self.newest, "workers": self.workers, "reason": reason})
        yield from self._launch(self.next.members, self.workers)

    def launch_heir(self, rank: int, now: float) -> Iterator[Command]:
        """Let the next function of a rank make ready, while the one before goes on."""
        heir = self.current.prepare_heir(rank, now, self.memory.mib)
        yield from self._launch([heir], self.current.workers)

    def relaunch(self, generation: Generation, rank: int, now: float) -> Iterator[Command]:
        """Start the next function of a rank that is lost."""
        yield from self._launch([generation.relaunched(rank, now, self.memory.mib)], generation.workers)

    def take_next(self, now: float) -> bool:
        """Whether there is a next generation; it is the current one then, and those of the one before are old."""
        self.old |= {member.address: now for member in self.current.here}
        if self.next is None:
            return False
        self.current, self.next = self.next, None
        self.current.hurry(now)
        return True

    def _new(self, now: float) -> Generation:
        self.newest += 1
        return Generation(self.newest, self.workers, now, self.memory.mib)

    def _launch(self, members: Sequence[Member], workers: int) -> Iterator[Command]:
        """Start functions; that they may be running is on record before any of them is."""
        self._allowance.launched(len(members))
        yield from (self._intent(member) for member in members)
        yield from (Launch(member.address, workers, member.memory_mib) for member in members if member.is_here)

    def _intent(self, member: Member) -> Record:
        """What is on record before a function is launched."""
        is_heir = member is self.current.heir
        return Record("launched", {**vars(member.address), "memory_mib": member.memory_mib, "is_heir": is_heir})

    def drop_next(self) -> Iterator[Command]:
        """End what makes ready to take over."""
        if self.next:
            yield from (Kill(member.address) for member in self.next.here)
            self.next = None
        yield from self.drop_heir()

    def drop_heir(self) -> Iterator[Command]:
        """End what makes ready to take a rank's place."""
        heir, self.current.heir = self.current.heir, None
        if heir and heir.is_here:
            yield Kill(heir.address)

    def give_up(self, generation: Generation, member: Member) -> Iterator[Command]:
        """A function is waited for no more."""
        if member.is_here:
            yield Kill(member.address)
        generation.give_up(member)

    def due(self, generation: Generation, now: float) -> list[Member]:
        """Who is launched now, or once more, as far as there is room."""
        room = self._terms.max_workers - len(self.old) - sum(each.functions for each in self.living)
        return generation.due(now, room)

    def launch_again(self, generation: Generation, members: Sequence[Member], now: float) -> Iterator[Command]:
        """Launch what was refused or had to wait."""
        generation.retried(members, now)
        self._allowance.launched(len(members))
        for member in members:
            if member.memory_mib < self.memory.mib:  # what it was to have has not sufficed for another meanwhile
                member.memory_mib = self.memory.mib
                yield self._intent(member)
            yield Launch(member.address, generation.workers, member.memory_mib)

    def kill_old(self, now: float) -> Iterator[Command]:
        """Functions that are there long after their last word."""
        for address, since in list(self.old.items()):
            if now - since > self._terms.leave_s:
                del self.old[address]
                yield Kill(address)

    @property
    def living(self) -> list[Generation]:
        """The current generation, and the next if there is one."""
        return [self.current, self.next] if self.next else [self.current]

    def generation_of(self, address: Address) -> Generation:
        """Whose this is, if it is anybody's who lives."""
        return self.next if self.next and address.generation == self.next.number else self.current

    def member(self, address: Address) -> Member | None:
        """Who this is, if it is the newest incarnation of a rank of a living generation."""
        generation = self.generation_of(address)
        if generation.number != address.generation or address.rank >= generation.workers:
            return None
        named = (member for member in (generation.members[address.rank], generation.heir) if member)
        return next((member for member in named if member.address == address), None)

    @property
    def is_as_wanted(self) -> bool:
        """Whether the current generation has as many ranks, of the size, as it shall have."""
        return (self.current.workers, self.current.memory_mib) == (self.workers, self.memory.mib)

    @property
    def fits_twice(self) -> bool:
        """Whether there is room for two generations once nobody of one before is left."""
        return self.current.workers + self.workers <= self._terms.max_workers

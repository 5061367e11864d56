"""What a run in memory trains: states are chains of hashes over all that was committed, so that nothing goes unseen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b

import numpy as np

from smlt.core.job import Job
from smlt.core.sampler import Cursor, Schedule, share


@dataclass(frozen=True)
class State:
    """A rank's state at a commit: chains of hashes over all that was committed, each once and in order."""

    cursor: Cursor = field(default_factory=Cursor)
    shared: str = ""
    private: str = ""


@dataclass(frozen=True)
class Contribution:
    """What a rank gives to a sum: its examples, and where it has come by itself."""

    examples: tuple[int, ...]
    private: str


@dataclass(frozen=True)
class Checkpoint:
    """What is in the store."""

    cursor: Cursor
    shared: str
    private: tuple[str, ...]
    best: float | None
    goal: str


@dataclass(frozen=True)
class Plan:
    """What is trained, and by whom.

    Attributes:
        job: with "score" as its metric.
        scores: what an evaluation gives, by the step.
        sizes: ranks of each generation, in turn.
        recovers_fast: PRIVATE state may be lost; so what ranks sum does not depend on it.
    """

    job: Job
    examples: int
    scores: Sequence[float]
    sizes: Sequence[int]
    exchange_every: int = 1
    has_private: bool = False
    recovers_fast: bool = False
    save_interval_s: float = 30.0

    @property
    def schedule(self) -> Schedule:
        return Schedule.of(self.job, self.examples)

    def metrics(self, step: int) -> dict[str, float]:
        return {"score": self.scores[step % len(self.scores)]}

    def contribution(self, state: State, rank: int, world_size: int) -> Contribution:
        """What a rank computes in the step after `state`."""
        cursor = state.cursor
        batch = self.schedule.batch(np.arange(self.examples) + cursor.epoch * self.examples, cursor)
        mine = tuple(share(batch, rank, world_size).tolist())
        return Contribution(mine, hash_of(state.private, cursor.step, mine) if self.has_private else "")

    def committed(self, state: State, own: Contribution, summed: Sequence[Contribution] | None) -> State:
        """The state after a step; `summed` is what all ranks contributed, where they exchanged."""
        shared = state.shared
        if summed is not None:
            batch = [example for each in summed for example in each.examples]
            private = [each.private for each in summed if each.private and not self.recovers_fast]
            shared = hash_of(shared, state.cursor.step, batch, private)
        return State(self.schedule.after(state.cursor), shared, own.private)

    def without_private(self, state: State) -> State:
        """What of a state no loss changes."""
        return replace(state, private="") if self.recovers_fast else state

    def private_since(self, begun: State, cursor: Cursor, rank: int, world_size: int) -> str:
        """What a rank has of its own at the cursor, if it has lost nothing since it was at `begun`."""
        state = begun
        while state.cursor != cursor:
            own = self.contribution(state, rank, world_size)
            state = State(self.schedule.after(state.cursor), private=own.private)
        return state.private

    def course(self, world_size: int) -> list[list[State]]:
        """Each rank's states, by the step, where nothing goes wrong."""
        course = [[State()] * world_size]
        while not self.schedule.is_done(course[-1][0].cursor):
            given = [self.contribution(state, rank, world_size) for rank, state in enumerate(course[-1])]
            following = self.schedule.after(course[-1][0].cursor)
            exchanges = self.schedule.is_done(following) or following.step % self.exchange_every == 0
            summed = given if exchanges else None
            course.append([self.committed(state, own, summed) for state, own in zip(course[-1], given, strict=True)])
        return course


def hash_of(*parts: object) -> str:
    return blake2b(repr(parts).encode(), digest_size=8).hexdigest()

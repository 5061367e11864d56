"""The model of the run's object store: claims, the control record, mail and checkpoints, and its bad times."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from smlt.core.messages import Control, Evaluation, Failure, Left, Ready, StepRecord
from smlt.core.run_events import Address
from smlt.core.sampler import Cursor
from smlt.core.saving import KEEP
from smlt.simulator.timeline import Timeline

PATIENCE_S = 90.0
"""A request that has been tried for so long has failed."""


@dataclass(frozen=True)
class Extras:
    """What a mail brings beside its beat."""

    ready: Ready | None = None
    steps: tuple[StepRecord, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    checkpoints: tuple[tuple[int, float], ...] = ()
    failure: Failure | None = None
    left: Left | None = None


class Letter(NamedTuple):
    """One mail."""

    address: Address
    number: int
    phase: str
    step: int
    awaits: int
    phase_s: float
    extras: Extras | None


class Attempt(NamedTuple):
    """A round's try to save, as `smlt.core.checkpoint.Attempt`."""

    generation: int
    round: int
    step: int

    @property
    def by(self) -> tuple[int, int]:
        """Which round's."""
        return self.generation, self.round


class Kept(NamedTuple):
    """A complete checkpoint: where it is, the SHARED state, the best value so far, and why nothing is left to do."""

    cursor: Cursor
    state: int
    best: float | None
    goal: str
    attempt: Attempt


class ModelStore:
    """What all processes and controllers share.

    Args:
        timeline: virtual time.
        rng: source of chance.
        latency_s: of a request.
    """

    def __init__(self, timeline: Timeline, rng: Random, latency_s: float) -> None:
        self._timeline, self._rng, self._latency_s = timeline, rng, latency_s
        self.claims: dict[Address, str] = {}
        self.control = Control(epoch=0)
        self.inboxes: dict[int, list[tuple[float, Letter]]] = {}
        self.unlogged: dict[int, list[Letter]] = {}
        self.checkpoints: dict[int, Kept] = {}
        self.damaged: dict[int, int] = {}
        self._parts: dict[Attempt, set[int]] = {}
        self.down_until_s = -1.0
        self.errors_until_s = -1.0

    @property
    def now(self) -> float:
        """Virtual seconds."""
        return self._timeline.now

    @property
    def is_down(self) -> bool:
        """Whether no request is answered now."""
        return self._timeline.now < self.down_until_s

    @property
    def fails_now(self) -> bool:
        """Whether a single try of a request fails."""
        now = self._timeline.now
        return now < self.down_until_s or (now < self.errors_until_s and self._rng.random() < 0.3)

    def request_s(self) -> float:
        """How long a request takes that is tried again until it is answered; more than `PATIENCE_S` if it never is."""
        taken_s = self._latency_s * (0.5 + self._rng.random())
        now = self._timeline.now
        if now < self.down_until_s:
            taken_s += self.down_until_s - now
        elif now < self.errors_until_s:
            while self._rng.random() < 0.3:
                taken_s += 2 * self._latency_s
        return taken_s

    def claim(self, address: Address, uuid: str) -> bool:
        """Whether this process is the one incarnation."""
        return self.claims.setdefault(address, uuid) == uuid

    def post(self, letter: Letter, delay_s: float) -> None:
        """A mail to the controller of its sender's generation, to be seen in so many seconds."""
        self.inboxes.setdefault(letter.address.generation, []).append((self._timeline.now + delay_s, letter))

    def part_written(self, attempt: Attempt, rank: int) -> None:
        """A rank has written its part."""
        self._parts.setdefault(attempt, set()).add(rank)

    def parts_of(self, attempt: Attempt) -> int:
        """How many ranks have."""
        return len(self._parts.get(attempt, ()))

    def keep(self, kept: Kept) -> Kept:
        """Write a manifest, unless a later round has; returns the one that is there, or was."""
        step = kept.cursor.step
        there = self.checkpoints.get(step)
        if there is None or there.attempt.by < kept.attempt.by:
            self.checkpoints[step] = kept
            self.damaged.pop(step, None)
        return there or kept

    def read(self, step: int, rank: int) -> Kept | None:
        """A checkpoint as a rank finds it; None where it is gone, or damaged for that rank."""
        return None if self.damaged.get(step) == rank else self.checkpoints.get(step)

    def newest(self, before: float = float("inf")) -> str:
        """The key of the newest checkpoint that can be read whole; empty where there is none."""
        steps = [step for step in self.checkpoints if step < before and step not in self.damaged]
        return str(max(steps)) if steps else ""

    def prune(self, own: Attempt, passed_over: Set[int]) -> None:
        """As `smlt.core.checkpoint.prune`: all but the last ones up to the one that was just written."""
        valid = [step for step in sorted(self.checkpoints) if step <= own.step]
        if own.step not in valid:
            return
        kept = [step for step in valid if step not in passed_over or step == own.step][-KEEP:]
        for step in [step for step in self.checkpoints if step not in kept]:
            if not any(attempt.step == step and attempt.by > own.by for attempt in self._parts):
                del self.checkpoints[step]
        for attempt in [attempt for attempt in self._parts if attempt.step < own.step and attempt.by <= own.by]:
            del self._parts[attempt]

"""What a simulated run keeps: mail for a controller that reads it, and checkpoints that outlast the process."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Set
from random import Random

from smlt.core import checkpoint, layout
from smlt.core.control import Mailbox
from smlt.core.messages import CheckpointDone, Mail
from smlt.core.run_events import Address
from smlt.core.saving import KEEP
from smlt.core.storage import ObjectStore
from smlt.simulator.store import Attempt, Kept, Letter, ModelStore
from smlt.simulator.timeline import Timeline


class KeptStore(ModelStore):
    """The model of a store whose manifests are in the run's own too, so that a run can be gone on with.

    Args:
        timeline: virtual time.
        rng: source of chance.
        latency_s: of a request.
        objects: the run's store.
        state_bytes: of a checkpoint.
    """

    def __init__(
        self, timeline: Timeline, rng: Random, latency_s: float, objects: ObjectStore, state_bytes: int
    ) -> None:
        super().__init__(timeline, rng, latency_s)
        self._objects, self.state_bytes = objects, state_bytes
        self.mail: dict[Address, deque[tuple[float, Letter]]] = {}

    def recall(self, states: list[int]) -> None:
        """Find what earlier sessions have saved; `states` is what training comes to, by step."""
        for step in checkpoint.valid_steps(self._objects):
            found = checkpoint.read_manifest(self._objects, layout.manifest(step))
            if step < len(states):
                attempt = Attempt(found.generation, found.round, step)
                self.checkpoints[step] = Kept(found.cursor, states[step], found.best, found.goal, attempt)

    def post(self, letter: Letter, delay_s: float) -> None:
        """A mail, to be seen in so many seconds."""
        self.mail.setdefault(letter.address, deque()).append((self._timeline.now + delay_s, letter))

    def keep(self, kept: Kept) -> Kept:
        """Write a manifest, unless a later round has; returns the one that is there, or was."""
        there = super().keep(kept)
        generation, number = kept.attempt.by
        manifest = checkpoint.Manifest(
            kept.cursor, 0, (), best=kept.best, goal=kept.goal, generation=generation, round=number
        )
        checkpoint.write_manifest(self._objects, manifest)
        return there

    def prune(self, own: Attempt, passed_over: Set[int]) -> None:
        """All but the last ones up to the one that was just written."""
        super().prune(own, passed_over)
        checkpoint.prune(self._objects, checkpoint.Attempt(*own), KEEP, passed_over)


class ModelMailbox(Mailbox):
    """One simulated function's mail, each once and in order."""

    def __init__(self, store: KeptStore, address: Address) -> None:
        self._kept_store, self._box, self._expected = store, store.mail.setdefault(address, deque()), 0

    def read(self) -> Iterator[Mail]:
        """What has come since the last call."""
        box, now = self._box, self._kept_store.now
        while box and box[0][0] <= now:
            letter = box.popleft()[1]
            if letter.number >= self._expected:
                self._expected = letter.number + 1
                yield self._opened(letter)

    @property
    def is_clear(self) -> bool:
        """Always: nothing lies anywhere."""
        return True

    def clear(self, known: float) -> None:
        """Nothing has to be cleared away."""

    def _opened(self, letter: Letter) -> Mail:
        extras = letter.extras
        if extras is None:
            return Mail(letter.phase, letter.step, letter.awaits, letter.phase_s)
        size_bytes = self._kept_store.state_bytes
        return Mail(
            letter.phase,
            letter.step,
            letter.awaits,
            letter.phase_s,
            ready=extras.ready,
            steps=extras.steps,
            evaluations=extras.evaluations,
            checkpoints=tuple(CheckpointDone(step, size_bytes, seconds) for step, seconds in extras.checkpoints),
            failure=extras.failure,
            left=extras.left,
        )

"""What workers told a controller that did not live to note it, for the next one to note: no step may be missing."""

from __future__ import annotations

from dataclasses import dataclass

from smlt.core import layout, wire
from smlt.core.messages import Evaluation, Mail, StepRecord
from smlt.core.storage import ObjectStore


@dataclass(frozen=True)
class Leftover:
    """Steps that follow on those of the log, and evaluations among them.

    Attributes:
        generation: that made the last of the steps; 0 where there is none.
        steps: in order, each once.
        evaluations: in order.
        keys: of all mail; to be cleared away once the rest is in the log.
    """

    generation: int
    steps: tuple[StepRecord, ...]
    evaluations: tuple[Evaluation, ...]
    keys: tuple[str, ...]

    @classmethod
    def find(cls, store: ObjectStore, known: int, until: int) -> Leftover:
        """Read the mail of dead sessions.

        Args:
            store: of the run.
            known: the log has all steps before this one.
            until: the run goes on with this step: later ones are made again.

        Raises:
            ProtocolError: it is another version's.
        """
        keys = tuple(info.key for info in store.list(layout.MAIL))
        steps: dict[int, tuple[StepRecord, int]] = {}
        evaluations: dict[int, Evaluation] = {}
        for key in keys:
            mail, (generation, rank) = wire.unpack(store.get(key), Mail), map(int, key.split("/")[1:3])
            for record in mail.steps:
                if rank == 0 or record.step not in steps:
                    steps[record.step] = record, generation
            evaluations |= {each.step: each for each in mail.evaluations if known <= each.step <= until}
        told = []
        while known < until and known in steps:
            told.append(steps[known])
            known += 1
        kept = tuple(evaluations[step] for step in sorted(evaluations) if step <= known)
        return cls(told[-1][1] if told else 0, tuple(record for record, _ in told), kept, keys)

    def clear(self, store: ObjectStore) -> None:
        """Remove the mail."""
        for key in self.keys:
            store.delete(key)

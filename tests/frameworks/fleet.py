"""N ranks in one process: each computes, the regions are summed in rank order, each commits; the engine, bare."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from smlt.core.task import Array, EvalPart, State, StepLoss, StepWork, TaskContext, TaskShape, UserTask

HERE = Path(__file__).parent


class Fleet:
    """Ranks of one task, at one step."""

    def __init__(
        self, task: type[UserTask], ranks: int = 1, batch: int = 8, steps: int = 12, seed: int = 3, **context: Any
    ) -> None:
        self.batch, self.steps, self.step, self.epoch, self.position = batch, steps, 0, 0, 0
        self.losses: list[StepLoss] = []
        self.tasks: list[Any] = []
        self.ranks: list[Any] = []
        self.shapes: list[TaskShape] = []
        for rank in range(ranks):
            user = task()
            user.context = TaskContext(
                context.get("params", {}),
                seed,
                rank,
                ranks,
                HERE,
                **{k: v for k, v in context.items() if k != "params"},
            )
            training = user.adapt()
            prepared = training.prepare() or {}
            self.shapes.append(training.build(prepared, lambda _: steps))
            self.tasks.append(user)
            self.ranks.append(training)

    def next_work(self) -> list[StepWork]:
        """Each rank's part of the next step."""
        order = self.ranks[0].order(self.epoch)
        indices = order[self.position : self.position + self.batch]
        last = self.position + self.batch >= len(order)
        return [
            StepWork(self.step, self.epoch, share, len(indices), last)
            for share in np.array_split(indices, len(self.ranks))
        ]

    def contributions(self) -> list[list[Array]]:
        """Zeroed memory for each rank."""
        return [[region.zeros() for region in shape.regions] for shape in self.shapes]

    def compute(self) -> tuple[list[list[Array]], list[StepLoss]]:
        """Every rank's contribution and loss."""
        memory = self.contributions()
        losses = [
            rank.compute(work, mine) for rank, work, mine in zip(self.ranks, self.next_work(), memory, strict=True)
        ]
        return memory, losses

    def commit(self, memory: Sequence[Sequence[Array]], losses: Sequence[StepLoss]) -> None:
        """Sum in rank order and apply on every rank."""
        last = self.next_work()[0].last_of_epoch
        loss = StepLoss(sum(each.sum for each in losses), sum(each.weight for each in losses))
        for rank in self.ranks:
            sums = [pieces[0].copy() for pieces in zip(*memory, strict=True)]
            for total, pieces in zip(sums, zip(*memory, strict=True), strict=True):
                for piece in pieces[1:]:
                    total += piece
            rank.commit(sums, loss)
        self.losses.append(loss)
        self.step += 1
        self.position += self.batch
        if last:
            self.epoch, self.position = self.epoch + 1, 0

    def run(self, steps: int | None = None) -> Fleet:
        """So many steps, or all."""
        for _ in range(self.steps - self.step if steps is None else steps):
            self.commit(*self.compute())
        return self

    def evaluate(self) -> dict[str, float]:
        """The metrics of a sharded evaluation."""
        shares = np.array_split(np.arange(self.shapes[0].eval_examples, dtype=np.int64), len(self.ranks))
        parts: list[EvalPart] = [rank.evaluate(share) for rank, share in zip(self.ranks, shares, strict=True)]
        return self.ranks[-1].finish_evaluation(parts)

    def go_on_from(self, other: Fleet) -> Fleet:
        """Take over another fleet's state and place, through a copy as a store would make."""
        for rank in self.ranks:
            rank.load_shared_state(copied(other.ranks[0].shared_state()))
        self.step, self.epoch, self.position = other.step, other.epoch, other.position
        return self

    def close(self) -> None:
        """End loops."""
        for rank in self.ranks:
            rank.close()


def copied(state: State) -> State:
    """A state that shares no memory with the task; read-only, its scalars of shape (1,)."""
    import msgpack

    arrays = {name: np.ascontiguousarray(array).copy() for name, array in state.arrays.items()}
    for array in arrays.values():
        array.flags.writeable = False
    return State(arrays, msgpack.unpackb(msgpack.packb(state.extra)))


def raw(arrays: dict[str, Array]) -> dict[str, bytes]:
    """Bytes of arrays: what bit for bit means."""
    return {name: array.tobytes() for name, array in sorted(arrays.items())}


def whole(fleet: Fleet, rank: int = 0) -> tuple[dict[str, bytes], dict[str, Any]]:
    """A rank's state, to be compared."""
    state = fleet.ranks[rank].shared_state()
    return raw(state.arrays), state.extra

"""One rank's training step: ours over a channel, ours without any, and torch's DistributedDataParallel."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import default_collate

from benchmarks.step.models import BATCHES, TASKS, BenchTask
from smlt.core.storage import Channel
from smlt.core.sync.choice import collective_for
from smlt.core.sync.codecs import Codec
from smlt.core.sync.collectives import Seat
from smlt.core.sync.header import Header
from smlt.core.task import Indices, StepLoss, StepWork, TaskContext, TaskShape, TrainingTask

SEED = 3


class Place(NamedTuple):
    """Which of how many ranks trains what."""

    model: str
    rank: int
    world_size: int

    def task(self) -> BenchTask:
        """The user's task, with its context."""
        task = TASKS[self.model]()
        task.context = TaskContext({}, SEED, self.rank, self.world_size, Path(), threads=1)
        return task

    def indices(self, step: int) -> Indices:
        """This rank's examples in a step."""
        batch = TASKS[self.model]().batch
        start = (step % BATCHES * self.world_size + self.rank) * batch
        return np.arange(start, start + batch, dtype=np.int64)


class Step(ABC):
    """One rank's side of a step, computed by all ranks at once."""

    is_deterministic = True
    """Whether torch is asked for deterministic algorithms, as smlt does and DDP does not."""

    @abstractmethod
    def run(self, step: int) -> None:
        """Forward, backward, synchronisation, optimizer; this is timed."""

    @abstractmethod
    def parameters(self) -> dict[str, np.ndarray]:
        """By name."""

    def bytes_up_down(self) -> tuple[int, int]:
        """That this rank has sent and received so far, in values."""
        return 0, 0

    def close(self) -> None:
        """Leave the others."""
        return


class Trained(NamedTuple):
    """A task as the engine sees it, built."""

    place: Place
    training: TrainingTask
    shape: TaskShape

    @classmethod
    def build(cls, place: Place) -> Trained:
        training = place.task().adapt()
        return cls(place, training, training.build(training.prepare() or {}, lambda examples: 1))


class SmltStep(Step):
    """What a worker of smlt does in a step.

    Args:
        trained: what is trained; several steps may share it, where only time matters.
        channel: of this step alone; None for no synchronisation.
        codec, overlap: see `collective_for`.
        round_number: that the channel was opened in.
    """

    def __init__(
        self,
        trained: Trained,
        channel: Channel | None,
        codec: Codec | None = None,
        round_number: int = 0,
        *,
        overlap: bool = True,
    ) -> None:
        self._trained, self._channel = trained, channel
        place, seat = trained.place, None
        if channel is not None:
            seat = Seat(channel, (1, round_number), place.rank, place.world_size, lambda piece, peer: None)
        self._sums = collective_for(seat, trained.shape.regions, codec, overlap=overlap)

    def run(self, step: int) -> None:
        training, sums, alone = self._trained.training, self._sums, self._channel is None
        indices = self._trained.place.indices(step)
        ranks = 1 if alone else self._trained.place.world_size
        work = StepWork(step, 0, indices, len(indices) * ranks, alone=alone)
        loss = training.compute(work, sums.contribution(step), sums.reached)
        merged, totals = sums.reduce(Header(step, loss_sum=loss.sum, weight=loss.weight))
        training.commit(totals, StepLoss(merged.loss_sum, merged.weight))
        sums.commit()

    def parameters(self) -> dict[str, np.ndarray]:
        return self._trained.training.parameters()

    def bytes_up_down(self) -> tuple[int, int]:
        stats = self._channel.stats() if self._channel else None
        return (stats.bytes_up, stats.bytes_down) if stats else (0, 0)

    def close(self) -> None:
        self._sums.close()
        if self._channel is not None:
            self._channel.close()


class DdpStep(Step):
    """The step that torch's documentation has, over gloo, whose group is there.

    Args:
        place: whose.
        synced: false for the same step under `no_sync`: what computing alone takes.
    """

    is_deterministic = False

    def __init__(self, place: Place, synced: bool = True) -> None:
        self._place, self._synced, self._task = place, synced, place.task()
        torch.manual_seed(SEED)
        self._model: nn.Module = self._task.build_model()
        self._optimizer = self._task.build_optimizer(self._model)
        self._data = self._task.train_data()
        self._ddp = DistributedDataParallel(self._model, gradient_as_bucket_view=True)

    def run(self, step: int) -> None:
        batch = default_collate([self._data[index] for index in self._place.indices(step).tolist()])
        with nullcontext() if self._synced else self._ddp.no_sync():
            self._optimizer.zero_grad()
            self._task.training_step(self._ddp, batch).backward()
        self._optimizer.step()

    def parameters(self) -> dict[str, np.ndarray]:
        return {name: each.detach().numpy() for name, each in self._model.named_parameters()}

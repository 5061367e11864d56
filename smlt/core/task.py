"""What a worker trains: the wall between the engine and the frameworks.

A user's class derives from a framework's `UserTask` (TorchTask, KerasTask); that framework's adapter turns it into a
`TrainingTask`, which is all that the worker knows. Arrays are numpy; no framework enters this file.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from smlt.core.errors import TaskError

Indices = npt.NDArray[np.int64]
Array = npt.NDArray[Any]

Reached = Callable[[int], None]
"""Told, by any thread, how many elements of a contribution's first region are final by now."""


def unheard(elements: int) -> None:
    """Nobody wants to know what is final."""


class Loss(NamedTuple):
    """A loss that is not a plain mean over examples: `sum` over what counts, and the `weight` of what counts.

    The global loss is the sum of all ranks' sums over the sum of their weights, so padded or masked data average
    right however unequal the ranks are. `sum` is a scalar tensor, `weight` a number or a scalar tensor.
    """

    sum: Any
    weight: Any


class Metric(NamedTuple):
    """A metric as a sum and a weight; over all batches and ranks it becomes sum / weight."""

    sum: Any
    weight: Any


@dataclass(frozen=True)
class TaskContext:
    """What a worker gives a task when it builds it.

    Attributes:
        params: the job's free `[job].params`.
        seed: the job's seed; everything random derives from it.
        rank, world_size: which of how many workers this is.
        folder: where the files that travelled with the task are.
        micro_batch: most examples in one forward pass; None for all of a rank's share at once.
        clip_norm: largest global L2 norm of the gradient; None for no clipping.
        precision: "fp32", or "bf16" for mixed precision with fp32 parameters.
        threads: threads that one worker's mathematics may use.
        secrets: the names of `[job].secrets`; their values are read from the environment when asked for.
    """

    params: Mapping[str, Any]
    seed: int
    rank: int
    world_size: int
    folder: Path
    micro_batch: int | None = None
    clip_norm: float | None = None
    precision: str = "fp32"
    threads: int = 1
    secrets: tuple[str, ...] = ()


class UserTask(ABC):
    """Root of the classes that users derive from; gives what every framework's task has.

    Built inside the worker, so nothing in it needs to be picklable. A constructor of the user's own takes no arguments.
    """

    framework: ClassVar[str]
    """The module that the local backend's warm functions import ahead, for example "torch"."""

    context: TaskContext
    prepared: Mapping[str, Array]
    total_steps: int

    @property
    def params(self) -> Mapping[str, Any]:
        """The job's free parameters, `[job].params`."""
        return self.context.params

    @property
    def rank(self) -> int:
        """This worker's rank, 0 to world_size - 1."""
        return self.context.rank

    @property
    def world_size(self) -> int:
        """How many workers train together now."""
        return self.context.world_size

    @property
    def rng(self) -> np.random.Generator:
        """A fresh generator, the same on every rank and in every run with this seed."""
        return np.random.default_rng(self.context.seed)

    def path(self, name: str) -> Path:
        """A file that travelled beside the task; raises TaskError if it did not."""
        found = self.context.folder / name
        if not found.exists():
            raise TaskError(
                f"the task asks for {name!r}, which did not travel with it",
                "put it beside the task's file and let [job].include match it (see .smltignore too)",
            )
        return found

    def secret(self, name: str) -> str:
        """The value of a secret that `[job].secrets` names; raises TaskError if it is not to be had."""
        if name not in self.context.secrets:
            raise TaskError(f"the task asks for the secret {name!r}", f'name it: [job] secrets = ["{name}"]')
        if name not in os.environ:
            raise TaskError(f"the secret {name!r} is not set", f"locally: export {name}=…")
        return os.environ[name]

    def prepare_data(self) -> Mapping[str, Array] | None:
        """Data to make once a run, before the ranks start; arrays by name, later in `self.prepared` on every rank."""
        return None

    @abstractmethod
    def adapt(self) -> TrainingTask:
        """This task as the engine sees it; the framework's base class implements it."""


@dataclass(frozen=True)
class Region:
    """A run of equal elements in a contribution, summed over the ranks.

    Attributes:
        dtype: of an element, as numpy names it.
        elements: how many.
        tolerant: whether a lossy codec may carry them, as it may gradients; what is counted or copied must be exact.
    """

    dtype: str
    elements: int
    tolerant: bool = False

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return int(np.dtype(self.dtype).itemsize)

    @property
    def size_bytes(self) -> int:
        """Bytes of the region."""
        return self.itemsize * self.elements

    def zeros(self) -> Array:
        """Memory for it: 1-D, zeroed."""
        return np.zeros(self.elements, self.dtype)


@dataclass(frozen=True)
class TaskShape:
    """What the engine must know of a built task.

    Attributes:
        examples: how many examples an epoch visits; the length of the training data unless a sampler differs.
        eval_examples: length of the evaluation data, 0 for none.
        parameters: number of trained scalars.
        regions: what each rank contributes in a step, gradients first; the sums over all ranks come back in kind.
        fingerprint: versions and settings that must be equal on all ranks for bitwise results.
        weights: what local SGD averages: trained parameters (tolerant) and float buffers; none where it is not offered.
    """

    examples: int
    eval_examples: int
    parameters: int
    regions: tuple[Region, ...]
    fingerprint: dict[str, str] = field(default_factory=dict)
    weights: tuple[Region, ...] = ()


@dataclass(frozen=True)
class StepWork:
    """One rank's part of one step.

    Attributes:
        step: number of the step, from 0.
        epoch: number of the epoch, from 0.
        indices: this rank's examples of the global batch; may be empty.
        global_batch: number of examples of all ranks together.
        last_of_epoch: whether the epoch ends with this step.
        alone: whether `commit` will get this rank's own contribution for the sums, as if there were no other ranks.
    """

    step: int
    epoch: int
    indices: Indices
    global_batch: int
    last_of_epoch: bool = False
    alone: bool = False


@dataclass(frozen=True)
class StepLoss:
    """A loss as a sum and the weight it was summed over; both add up over ranks."""

    sum: float
    weight: float

    @property
    def mean(self) -> float:
        """The mean loss; NaN where nothing was weighed."""
        return self.sum / self.weight if self.weight else float("nan")


@dataclass(frozen=True)
class EvalPart:
    """One rank's share of an evaluation: metrics as (sum, weight), or the raw outputs that `eval_end` wants."""

    sums: dict[str, tuple[float, float]] = field(default_factory=dict)
    outputs: tuple[dict[str, Any], ...] = ()


@dataclass
class State:
    """The state of a task at a commit.

    Attributes:
        arrays: by name; may be views of live memory, valid until the next commit.
        extra: plain data (numbers, strings, lists, maps) such as a scheduler's counters.
    """

    arrays: dict[str, Array]
    extra: dict[str, Any] = field(default_factory=dict)


class TrainingTask(ABC):
    """A task as the engine drives it: build once, then steps as transactions.

    `compute` and `commit` alternate, or `compute` is followed by `forget`. Between commits nothing of a step is visible
    in `shared_state`. Everything random derives from (seed, epoch, index) for an item and from (seed, step, rank,
    micro-batch) for a forward pass, so that a step computed again gives the same bits.
    """

    @abstractmethod
    def prepare(self) -> Mapping[str, Array] | None:
        """What the user's `prepare_data` makes; called on one rank of a fresh run, before `build`."""

    @abstractmethod
    def build(self, prepared: Mapping[str, Array], total_steps: Callable[[int], int]) -> TaskShape:
        """Build data, model and optimizer.

        Args:
            prepared: what `prepare` made.
            total_steps: number of examples that an epoch visits -> number of steps of the whole job.

        Raises:
            TaskError: the model has no parameters, gradients are sparse, a hook is missing.
        """

    def measure(self, prepared: Mapping[str, Array], total_steps: Callable[[int], int]) -> TaskShape:
        """As `build`, for a task that is looked at and then only closed: what only steps need may be left out."""
        return self.build(prepared, total_steps)

    @abstractmethod
    def order(self, epoch: int) -> Indices:
        """The order in which an epoch visits the examples; the same on every rank. Shape (examples visited,)."""

    @abstractmethod
    def compute(self, work: StepWork, contribution: Sequence[Array], reached: Reached = unheard) -> StepLoss:
        """Forward and backward over this rank's examples.

        Args:
            work: which examples.
            contribution: one zero-initialised 1-D array a region, to be filled; their sums over ranks go to `commit`.
                The memory stays the caller's and must not be kept beyond the following commit.
            reached: may be told what of the first region is final, which is then read while the rest is computed.
        """

    @abstractmethod
    def forget(self) -> None:
        """Undo what `compute` did to this task, as if it had not been called."""

    @abstractmethod
    def commit(self, sums: Sequence[Array], loss: StepLoss) -> None:
        """Apply the step: the regions' sums over all ranks and the global loss. The arrays may be changed in place."""

    @abstractmethod
    def evaluate(self, indices: Indices) -> EvalPart:
        """Evaluate this rank's share of the evaluation data; changes no state."""

    @abstractmethod
    def finish_evaluation(self, parts: Sequence[EvalPart]) -> dict[str, float]:
        """The metrics from all ranks' parts, in rank order."""

    @abstractmethod
    def shared_state(self) -> State:
        """All that is equal on every rank at a commit: parameters, buffers, optimizer, scheduler, the user's own."""

    @abstractmethod
    def load_shared_state(self, state: State) -> None:
        """Take over a state that `shared_state` gave; raises TaskError naming what does not fit."""

    def read_weights(self, out: Sequence[Array]) -> None:
        """Copy the regions of `TaskShape.weights` out, one array each."""
        raise NotImplementedError(f"{type(self).__name__} offers no weights")

    def write_weights(self, values: Sequence[Array]) -> None:
        """Take the regions of `TaskShape.weights` over, one array each; copied."""
        raise NotImplementedError(f"{type(self).__name__} offers no weights")

    def close(self) -> None:  # noqa: B027  most tasks hold nothing
        """Release what the task holds, such as a thread; nothing is asked of it afterwards."""

    @abstractmethod
    def parameters(self) -> dict[str, Array]:
        """The trained parameters by name, each once; `weights_sha256` is taken over them."""

    @abstractmethod
    def model_arrays(self) -> tuple[dict[str, Array], dict[str, str]]:
        """What `model.safetensors` holds: arrays by the framework's own names, each once, and aliases name -> name."""


def mean_metrics(parts: Sequence[EvalPart]) -> dict[str, float]:
    """Metrics as sum over weight, added up in rank order."""
    totals: dict[str, tuple[float, float]] = {}
    for part in parts:
        for name, (total, weight) in part.sums.items():
            before = totals.get(name, (0.0, 0.0))
            totals[name] = (before[0] + total, before[1] + weight)
    return {name: total / weight if weight else float("nan") for name, (total, weight) in totals.items()}


def seed_of(*parts: int) -> int:
    """A 64-bit seed from integers such as (seed, epoch, index): well mixed, the same on every machine."""
    mixed = 0x9E3779B97F4A7C15
    for part in parts:  # splitmix64, Steele, Lea & Flood, OOPSLA 2014
        mixed = (mixed + part + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        mixed ^= mixed >> 31
    return mixed

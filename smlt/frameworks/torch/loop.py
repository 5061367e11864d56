"""A training loop of the user's own: it runs by turns with the engine, from batch to `ctx.sync` to the next batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from smlt.core.errors import SmltError, TaskError
from smlt.core.task import Array, Reached, StepLoss, StepWork, seed_of, unheard
from smlt.frameworks.torch.blame import blame
from smlt.frameworks.torch.data import Batches
from smlt.frameworks.torch.flat import GradientViews
from smlt.frameworks.torch.optimizers import Optimizers
from smlt.frameworks.torch.seeding import seed_everything
from smlt.frameworks.torch.steps import Stepper, precision
from smlt.frameworks.torch.strand import Ended, Paused, Strand

if TYPE_CHECKING:
    from smlt.frameworks.torch.task import TorchTask

SYNC_RULE = "a loop calls ctx.sync(model) exactly once for every batch, after backward and before the optimizers' steps"


@dataclass(frozen=True)
class WantsBatch:
    """The loop asks for the next batch; the last step is applied."""


@dataclass(frozen=True)
class WantsSync:
    """The loop has its gradients, and a loss to report."""

    loss: float


@dataclass(frozen=True)
class NextBatch:
    """The answer to WantsBatch."""

    batch: Any
    work: StepWork


class LoopContext:
    """What `loop(self, ctx)` gets.

    Attributes:
        model: the model.
        optimizers: by the keys of `build_optimizer`'s dict, or by "0", "1" ... in the order of its list.
        scheduler: the only or first scheduler, or None; the loop steps it itself.
        step, epoch: of the batch in hand, from 0.
    """

    def __init__(self, task: TorchTask, model: nn.Module, optimizers: Optimizers) -> None:
        self.model = model
        self.optimizers = dict(optimizers.optimizers)
        self.schedulers = dict(optimizers.schedulers)
        self.scheduler: Any = optimizers.only_scheduler()
        self.step = self.epoch = -1
        self._task = task
        self._pause: Callable[[Any], Any] | None = None
        self._in_step = False

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer, where there is one; raises TaskError where there are several."""
        if len(self.optimizers) > 1:
            raise TaskError("ctx.optimizer, but the task has several", f"ctx.optimizers has {list(self.optimizers)}")
        return next(iter(self.optimizers.values()))

    def batches(self) -> Iterator[Any]:
        """This rank's batches, until this worker's part of the job ends.

        A step that is given up starts `loop` anew, and so does a worker that takes over; what must outlive that belongs
        into `self` and the hooks `state` and `load_state`.
        """
        while True:
            answer = self._ask(WantsBatch(), in_step=False)
            if answer is None:
                return
            self.step, self.epoch = answer.work.step, answer.work.epoch
            self._in_step = True
            yield answer.batch

    def sync(self, model: nn.Module, loss: Tensor | float = 0.0) -> None:
        """Replace `p.grad` of all parameters by its mean over the global batch, clipped to `[train].clip_norm`.

        A rank's gradients weigh as much as its batch is long: they are to be those of a mean over it. A parameter whose
        gradient is None on every rank keeps None.

        Args:
            model: the model, whole.
            loss: the mean loss over the batch, for reports alone; 0 is reported where none is given.

        Raises:
            TaskError: not exactly one call for a batch, or another model.
        """
        if model is not self.model:
            raise TaskError("ctx.sync got something else than the task's model", "call ctx.sync(ctx.model)")
        value = float(loss.detach() if isinstance(loss, Tensor) else loss)
        self._ask(WantsSync(value), in_step=True)
        self._in_step = False

    def autocast(self) -> AbstractContextManager[object]:
        """What `[train].precision` means, for the forward passes: `with ctx.autocast(): ...`."""
        return precision(self._task.context.precision)

    def run(self, pause: Callable[[Any], Any]) -> None:
        """Run the user's loop, which pauses for batches and syncs."""
        self._pause, self._in_step = pause, False
        torch.set_num_threads(self._task.context.threads)  # OpenMP counts them by thread
        with blame(self._task, "loop"):
            self._task.loop(self)

    def _ask(self, request: WantsBatch | WantsSync, in_step: bool) -> Any:
        if self._pause is None:
            raise TaskError("ctx was used outside its loop")
        if self._in_step != in_step:
            asked = "ctx.sync was called twice for a batch, or before the first" if in_step else "there was no ctx.sync"
            raise TaskError(f"{asked} (step {self.step})", SYNC_RULE)
        return self._pause(request)


class LoopSteps(Stepper):
    """Steps made by the user's loop."""

    def __init__(self, task: TorchTask, model: nn.Module, optimizers: Optimizers, data: Batches) -> None:
        self._task, self._model, self._optimizers, self._data = task, model, optimizers, data
        self._strand: Strand | None = None
        self._between_steps = False

    def compute(self, work: StepWork, gradients: GradientViews, used: Array, reached: Reached = unheard) -> StepLoss:
        """Let the loop run from the batch to its `ctx.sync`."""
        if not len(work.indices):
            raise TaskError(
                f"rank {self._task.rank} has no examples in step {work.step}, and a loop needs a batch for every sync",
                "a larger global batch, or fewer workers",
            )
        versions = [(parameter, parameter._version) for parameter in self._model.parameters()]
        strand = self._at_batch(work)
        batch = self._data.fetch(work.indices, work.epoch)
        context = self._task.context
        seed_everything(seed_of(context.seed, work.step, context.rank, 0))
        turn = self._take(strand.resume(NextBatch(batch, work)))
        if isinstance(turn, Ended) or not isinstance(turn.request, WantsSync):
            raise TaskError(f"loop ended in the middle of step {work.step}", SYNC_RULE)
        if any(parameter._version != version for parameter, version in versions):
            raise TaskError("loop changed parameters before ctx.sync", SYNC_RULE)
        rows = len(work.indices)
        for place, (parameter, view) in enumerate(gradients.pairs):
            if parameter.grad is not None:
                view.copy_(parameter.grad if rows == work.global_batch else parameter.grad * (rows / work.global_batch))
                used[place] = 1
        return StepLoss(turn.request.loss * rows, float(rows))

    def divisor(self, work: StepWork, loss: StepLoss) -> float:
        """Gradients are those of means."""
        return 1.0

    def apply(self, work: StepWork) -> None:
        """Let the loop run on until it asks for the next batch, or ends."""
        if self._strand is not None:
            self._take(self._strand.resume())

    def restart(self) -> None:
        """Unwind the loop; the next step starts it anew."""
        if self._strand is not None:
            self._strand.unwind()
            self._strand = None

    def close(self) -> None:
        """End `ctx.batches()`, let the loop return, and let its thread go; one in the middle of a step is unwound."""
        strand, self._strand = self._strand, None
        if strand is None or strand.ended:
            return
        try:
            if self._between_steps:
                self._take(strand.resume())
        finally:
            strand.unwind()

    def _at_batch(self, work: StepWork) -> Strand:
        """The loop where it waits for a batch; started if need be."""
        if self._strand is None:
            context = LoopContext(self._task, self._model, self._optimizers)
            seed_everything(self._task.context.seed)
            self._strand = Strand(context.run, f"smlt loop of rank {self._task.rank}")
            self._take(self._strand.resume())
        if self._strand.ended:
            raise TaskError(
                f"loop returned before step {work.step}, and there are batches left",
                "iterate over all of ctx.batches()",
            )
        return self._strand

    def _take(self, turn: Paused | Ended) -> Paused | Ended:
        if isinstance(turn, Ended) and turn.error is not None:
            if isinstance(turn.error, SmltError):
                raise turn.error
            raise TaskError(f"loop was left by {type(turn.error).__name__}") from turn.error
        self._between_steps = isinstance(turn, Paused) and isinstance(turn.request, WantsBatch)
        return turn

"""`TorchTask`: what a user derives from to train a PyTorch model; every hook, with its default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from torch import Tensor, nn
from torch.utils.data import default_collate

from smlt.core.task import Array, Loss, TrainingTask, UserTask
from smlt.frameworks.torch.loop import LoopContext


class TorchTask(UserTask):
    """A PyTorch model to train: model, data, optimizer and step; all else has a default.

    ```python
    class Digits(TorchTask):
        def build_model(self):
            return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

        def build_optimizer(self, model):
            return torch.optim.Adam(model.parameters(), lr=3e-3)

        def train_data(self):
            return TensorDataset(images, labels)

        def training_step(self, model, batch):
            images, labels = batch
            return cross_entropy(model(images), labels)
    ```

    The class is built inside each worker, without arguments. Hooks see `self.params`, `self.rank`, `self.world_size`,
    `self.rng`, `self.path(name)`, `self.secret(name)` and `self.prepared`; from `build_optimizer` on also `self.model`
    and `self.total_steps`; in a step `self.step` and `self.epoch`.

    A step may be computed twice (when a worker is lost meanwhile), so a step changes nothing that lasts but through
    gradients and the model's buffers. Python's, numpy's and torch's default random generators are seeded before each
    item by (seed, epoch, index), and before each forward pass by (seed, step, rank, micro-batch).
    """

    framework: ClassVar[str] = "torch"

    scheduler_interval: Literal["step", "epoch"] = "step"
    """When the scheduler steps: after every optimizer step, or after the last one of an epoch."""

    eval_batch: int = 256
    """Most examples in one call of `eval_step`."""

    model: nn.Module
    """What `build_model` returned."""

    step: int
    """The step in hand, from 0."""

    epoch: int
    """The epoch in hand, from 0."""

    def prepare_data(self) -> Mapping[str, Array] | None:
        """Make data once a run, before the ranks start: arrays by name, later in `self.prepared` on every rank.

        Tensors become arrays. Whatever is slow or fetches from afar belongs here.
        """
        return None

    def build_model(self) -> nn.Module:
        """The model, on the CPU, with float32 (or float64) parameters.

        The random generators are seeded by the job's seed, so that all ranks start alike. Frozen parameters
        (`requires_grad = False`) may be of any dtype and stay as they are. A model in evaluation mode, as some
        libraries return it, is put into training mode; parts that you put into evaluation mode stay there.
        """
        raise NotImplementedError

    def build_optimizer(self, model: nn.Module) -> Any:
        """The optimizer, or `(optimizer, scheduler)`.

        With a `loop` of your own also a list, tuple or dict of optimizers, or a pair of such collections. Schedulers
        that need a validation metric (ReduceLROnPlateau) and LBFGS are refused.
        """
        raise NotImplementedError

    def train_data(self) -> Any:
        """The training data: a map-style dataset (`__len__`, `__getitem__`), the same on every rank.

        Where it has `__getitems__`, that is called with all indices of a forward pass, and the random generators are
        seeded once by the first of them instead of before each item.
        """
        raise NotImplementedError

    def collate(self, items: list[Any]) -> Any:
        """A batch from items; torch's default stacks tensors, arrays and numbers in tuples, lists and dicts."""
        return default_collate(items)

    def sampler(self, rng: np.random.Generator, epoch: int) -> Sequence[int] | Array | Tensor:
        """The order in which an epoch visits the training data: indices, also fewer, more or repeated ones.

        Args:
            rng: seeded by (seed, epoch), the same on every rank.
            epoch: from 0.
        """
        return rng.permutation(self._examples)

    def training_step(self, model: nn.Module, batch: Any) -> Tensor | Loss:
        """The loss of a batch; smlt calls backward, synchronises gradients, clips, and steps the optimizer.

        Returns:
            The mean over the batch, a scalar tensor; or `smlt.Loss(sum, weight)` where examples weigh differently, as
            in padded or masked data: the global loss is then the sum of all sums over the sum of all weights.
        """
        raise NotImplementedError

    def before_optimizer_step(self, model: nn.Module) -> None:
        """Look at, or change, the global gradients, after `[train].clip_norm` and before the optimizer."""

    def eval_data(self) -> Any:
        """The evaluation data, map-style; None for no evaluation."""
        return None

    def eval_step(self, model: nn.Module, batch: Any) -> Mapping[str, Any]:
        """Metrics of a batch, without gradients, in evaluation mode and full precision.

        Returns:
            By name, a mean over the batch (which weighs as much as the batch is long) or `smlt.Metric(sum, weight)`.
            With `eval_end` overridden: whatever tensors that needs.
        """
        raise NotImplementedError

    def eval_end(self, outputs: list[dict[str, Any]]) -> Mapping[str, float]:
        """Override for metrics that are no means (AUC, F1, BLEU): from all batches' outputs to metrics.

        Args:
            outputs: what `eval_step` returned for each batch, in the order of the data over all ranks; tensors have
                become numpy arrays.
        """
        raise NotImplementedError

    def state(self) -> Mapping[str, Any]:
        """State of your own that must survive (a moving average, counters): numbers, strings, lists, maps, tensors.

        It must be the same on every rank, so it changes in `before_optimizer_step` or after `ctx.sync`, not before.
        """
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned, on this or another worker; tensors are copies."""

    def loop(self, ctx: LoopContext) -> None:
        """A training loop of your own instead of `training_step`, for GANs, reinforcement learning, several optimizers.

        ```python
        def loop(self, ctx):
            for batch in ctx.batches():
                ctx.optimizer.zero_grad()
                loss = ...
                loss.backward()
                ctx.sync(ctx.model, loss=loss)
                ctx.optimizer.step()
        ```

        Exactly one `ctx.sync` for every batch, of the whole model (several models go into an `nn.ModuleDict`), before
        any parameter changes. The batch is this rank's share of the global batch, and gradients are those of a mean
        over it. The loop may be started anew at any batch: what must last belongs into `state`. Zero the gradients,
        step the schedulers (`ctx.scheduler`), and use `ctx.autocast()` for `[train].precision`; `before_optimizer_step`
        and `[train].micro_batch` have no meaning here.
        """
        raise NotImplementedError

    def adapt(self) -> TrainingTask:
        """This task as the engine sees it."""
        from smlt.frameworks.torch.training import TorchTraining

        return TorchTraining(self)

    _examples: int

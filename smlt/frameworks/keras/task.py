"""`KerasTask`: what a user derives from to train a Keras model; every hook, with its default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from smlt.core.errors import TaskError
from smlt.core.task import Array, Loss, TrainingTask, UserTask
from smlt.frameworks.keras import defaults

if TYPE_CHECKING:
    import keras


class KerasTask(UserTask):
    """A Keras 3 model to train, on the TensorFlow backend: a compiled model and data; all else has a default.

    ```python
    class Digits(KerasTask):
        def build_model(self):
            model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            model.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
            return model

        def train_data(self):
            return images, labels

        def eval_data(self):
            return test_images, test_labels
    ```

    The class is built inside each worker, without arguments. Hooks see `self.params`, `self.rank`, `self.world_size`,
    `self.rng`, `self.path(name)`, `self.secret(name)` and `self.prepared`; `build_model` and what comes after it also
    `self.total_steps`, for learning-rate schedules; `before_optimizer_step` also `self.model`, `self.step`,
    `self.epoch` and `self.gradients`.

    `training_step` and `eval_step` are compiled by `tf.function`, without AutoGraph and with the batch size left open,
    as `model.fit` does: Python in them runs once, when they are traced. Use `keras.ops` there, and for debugging
    `model.compile(..., run_eagerly=True)`. Randomness comes from Keras' layers, `keras.random` or a
    `keras.random.SeedGenerator`: their states are set before each forward pass from (seed, step, rank, micro-batch), so
    that a step computed again gives the same bits; `tf.random.normal` and its like are refused for that reason.
    """

    framework: ClassVar[str] = "tensorflow"

    eval_batch: int = 256
    """Most examples in one call of `eval_step`."""

    model: keras.Model
    """What `build_model` returned."""

    gradients: Sequence[Array | None]
    """In `before_optimizer_step`: the global gradients, in the order of `model.trainable_variables`.

    They may be changed in place. None for a variable that no rank used.
    """

    def prepare_data(self) -> Mapping[str, Array] | None:
        """Make data once a run, before the ranks start: arrays by name, later in `self.prepared` on every rank.

        Whatever is slow or fetches from afar belongs here.
        """
        return None

    def build_model(self) -> keras.Model:
        """A compiled model with float32 variables: its loss, optimizer and metrics are used.

        Python's, numpy's and Keras' random generators are seeded by the job's seed, so that all ranks start alike.
        With `[train].precision = "bf16"` Keras' policy is mixed_bfloat16 while this runs.
        """
        raise NotImplementedError

    def train_data(self) -> Any:
        """The training data, the same on every rank.

        Returns:
            `(x, y)` or `(x, y, sample_weight)`: arrays of one length, each also a dict or tuple of arrays; or a
            map-style object (`__len__`, and `__getitem__`: index -> such a tuple for one example; where it has
            `__getitems__`, that is called with all indices of a forward pass); or a finite, unbatched
            `tf.data.Dataset`, which is read into memory once, up to 2 GiB: steps pick examples by index.
        """
        raise NotImplementedError

    def sampler(self, rng: np.random.Generator, epoch: int) -> Sequence[int] | Array:
        """The order in which an epoch visits the training data: indices, equally many in every epoch.

        Args:
            rng: seeded by (seed, epoch), the same on every rank.
            epoch: from 0.
        """
        return rng.permutation(self._examples)

    def training_step(self, model: keras.Model, batch: Any) -> Any:
        """The loss of a batch, called under a GradientTape; by default the compiled loss and the model's own losses.

        Sample weights follow Keras' reduction: the weighted losses are divided by how many there are, not by their
        weights. A masked output is averaged over what its mask lets through, on all ranks together.

        Args:
            model: what `build_model` returned; call it with `training=True`.
            batch: tensors, shaped as an item of `train_data` with the batch in front.

        Returns:
            The mean over the batch, a scalar tensor; or `smlt.Loss(sum, weight)` where examples weigh differently, as
            in padded data: the global loss is then the sum of all sums over the sum of all weights.
        """
        loss: Loss | Any = defaults.compiled_loss(model, batch)
        return loss

    def before_optimizer_step(self, model: keras.Model) -> None:
        """Look at, or change, the global gradients (`self.gradients`), after `[train].clip_norm`."""

    def eval_data(self) -> Any:
        """The evaluation data, in the kinds of `train_data`; None for no evaluation."""
        return None

    def eval_step(self, model: keras.Model, batch: Any) -> Mapping[str, Any]:
        """Metrics of a batch; by default the compiled loss as "eval_loss" and the compiled metrics under their names.

        Returns:
            By name, a mean over the batch (which weighs as much as the batch is long) or `smlt.Metric(sum, weight)`.
            With `eval_end` overridden: whatever tensors that needs.
        """
        return defaults.compiled_metrics(model, batch)

    def eval_end(self, outputs: list[dict[str, Any]]) -> Mapping[str, float]:
        """Override for metrics that are no means (AUC, F1, BLEU): from all batches' outputs to metrics.

        Args:
            outputs: what `eval_step` returned for each batch, in the order of the data over all ranks; tensors have
                become numpy arrays.
        """
        raise NotImplementedError

    def state(self) -> Mapping[str, Any]:
        """State of your own that must survive (counters, a moving average): numbers, strings, lists, maps, arrays.

        It must be the same on every rank, so it changes in `before_optimizer_step`, not before.
        """
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned, on this or another worker; arrays are copies."""

    @property
    def step(self) -> int:
        """The step in hand, from 0; in `before_optimizer_step` and while data are read."""
        self._refuse_in_graph("step")
        return self._step

    @property
    def epoch(self) -> int:
        """The epoch in hand, from 0; in `before_optimizer_step` and while data are read."""
        self._refuse_in_graph("epoch")
        return self._epoch

    def adapt(self) -> TrainingTask:
        """This task as the engine sees it."""
        from smlt.frameworks.keras.environment import import_frameworks

        import_frameworks()
        from smlt.frameworks.keras.training import KerasTraining

        return KerasTraining(self)

    _examples: int
    _step: int = 0
    _epoch: int = 0

    def _refuse_in_graph(self, name: str) -> None:
        import tensorflow as tf

        if tf.inside_function():
            raise TaskError(
                f"self.{name} would stay what it was when the function was traced",
                "in a compiled function use model.optimizer.iterations, which counts steps as a variable",
            )

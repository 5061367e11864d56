"""The compiled optimizer's step from flat global gradients: clipped, shown to the user, applied in one graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from smlt.core.errors import TaskError
from smlt.core.task import Array
from smlt.frameworks.keras.variables import raw

CHUNK = 1 << 16


class Updates:
    """The optimizer of a model and its variables.

    Raises:
        TaskError: the optimizer does what smlt cannot keep equal to a plain loop.
    """

    def __init__(self, model: Any, trained: Sequence[Any]) -> None:
        self._optimizer, self._trained = model.optimizer, list(trained)
        _check(self._optimizer)
        if not self._optimizer.built:
            self._optimizer.build(self._trained)
        self._shapes = [tuple(each.shape) for each in raw(self._trained)]
        self._sizes = [int(np.prod(shape)) for shape in self._shapes]
        self._eager = bool(model.run_eagerly)
        self._graphs: dict[tuple[bool, ...], Any] = {}

    @property
    def parameters(self) -> int:
        """Number of trained scalars."""
        return sum(self._sizes)

    def warm_up(self) -> None:
        """Trace the step in which every variable has a gradient."""
        self._graph_for((True,) * len(self._trained))

    def views(self, flat: Array, used: Sequence[bool]) -> list[Array | None]:
        """The gradients of the variables, as views; None for one that no rank used."""
        pieces = np.split(flat, np.cumsum(self._sizes)[:-1])
        return [
            piece.reshape(shape) if one else None for piece, shape, one in zip(pieces, self._shapes, used, strict=True)
        ]

    def apply(self, flat: Array, used: Sequence[bool]) -> None:
        """One step of the optimizer; a variable that no rank used is passed over, decay and all."""
        self._graph_for(tuple(used))(tf.constant(flat))

    def _graph_for(self, used: tuple[bool, ...]) -> Any:
        if used not in self._graphs:

            def apply(flat: Any) -> None:
                pieces = tf.split(flat, self._sizes)
                chosen = [
                    (tf.reshape(piece, shape), variable)
                    for piece, shape, variable, one in zip(pieces, self._shapes, self._trained, used, strict=True)
                    if one
                ]
                self._optimizer.apply(*(list(side) for side in zip(*chosen, strict=True)))

            spec = tf.TensorSpec((self.parameters,), tf.float32)
            self._graphs[used] = (
                apply if self._eager else tf.function(apply, autograph=False).get_concrete_function(spec)
            )
        return self._graphs[used]


def clip(flat: Array, largest: float) -> None:
    """Scale gradients in place so that their global L2 norm is at most `largest`."""
    total = 0.0
    for start in range(0, flat.size, CHUNK):  # in double precision, without a copy of the whole
        piece = flat[start : start + CHUNK].astype(np.float64)
        total += float(np.add.reduce(piece * piece))
    norm = total**0.5
    if norm > largest:
        flat *= np.float32(largest / norm)


def _check(optimizer: Any) -> None:
    name = type(optimizer).__name__
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer) or optimizer.loss_scale_factor is not None:
        raise TaskError(
            f"the optimizer {name} scales the loss, and ranks add up gradients that are not scaled",
            'leave loss scaling out; [train].precision = "bf16" needs none',
        )
    if optimizer.use_ema and optimizer.ema_overwrite_frequency is None:
        raise TaskError(
            f"the optimizer {name} keeps an average of the weights that only the end of model.fit would use",
            "set ema_overwrite_frequency, or keep an average of your own (before_optimizer_step, state, load_state)",
        )

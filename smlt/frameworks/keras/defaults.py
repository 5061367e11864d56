"""What a compiled model says of a batch: its loss and its metrics, in forms that add up over batches and ranks."""

from __future__ import annotations

import inspect
from typing import Any

from smlt.core.errors import TaskError
from smlt.core.task import Loss, Metric

MEANS = frozenset({"sum_over_batch_size", "mean"})
EVAL_LOSS = "eval_loss"


def compiled_loss(model: Any, batch: Any) -> Any:
    """The compiled loss of a batch and the model's own losses: a mean over the batch, or a Loss where a mask weighs."""
    import keras

    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
    outputs = model(x, training=True)
    return _weigh(_loss(model, x, y, outputs, sample_weight, training=True), outputs)


def compiled_metrics(model: Any, batch: Any) -> dict[str, Any]:
    """The compiled loss and metrics of a batch, as sums and weights.

    Raises:
        TaskError: a metric is no mean.
    """
    import keras

    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
    outputs = model(x, training=False)
    model.reset_metrics()
    loss = _weigh(_loss(model, x, y, outputs, sample_weight, training=False), outputs)
    model.compute_metrics(x, y, outputs, sample_weight)
    metrics = {name: Metric(each.total.value, each.count.value) for name, each in _mean_metrics(model).items()}
    return {EVAL_LOSS: Metric(*loss) if isinstance(loss, Loss) else loss, **metrics}


def complete(model: Any, batch: Any) -> None:
    """Call a compiled model, its loss and its metrics once, so that all their variables are there."""
    import keras

    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
    outputs = model(x, training=False)
    _loss(model, x, y, outputs, sample_weight, training=False)
    model.compute_metrics(x, y, outputs, sample_weight)
    model.reset_metrics()


def check_loss(model: Any) -> None:
    """Raise TaskError for a compiled loss that is no mean over the batch."""
    import keras

    for loss in keras.tree.flatten(model.loss):
        reduction = getattr(loss, "reduction", "mean")
        if reduction not in MEANS:
            raise TaskError(
                f"the compiled loss {getattr(loss, 'name', loss)} has reduction={reduction!r}, and ranks average means",
                "leave the reduction to Keras' default, or override training_step and return smlt.Loss(sum, weight)",
            )


def _loss(model: Any, x: Any, y: Any, outputs: Any, sample_weight: Any, training: bool) -> Any:
    arguments = {"x": x, "y": y, "y_pred": outputs, "sample_weight": sample_weight}
    if "training" in inspect.signature(model.compute_loss).parameters:  # overrides from before Keras 3.3 lack it
        arguments["training"] = training
    return model.compute_loss(**arguments)


def _weigh(loss: Any, outputs: Any) -> Any:
    """Keras divides a masked loss by the number of values that its mask lets through, so that is its weight."""
    import keras

    masks = [getattr(output, "_keras_mask", None) for output in keras.tree.flatten(outputs)]
    if all(mask is None for mask in masks):
        return loss
    if len(masks) > 1:
        raise TaskError(
            "the model has several outputs, some of them masked, and their loss has no single weight",
            "override training_step (and eval_step), and return smlt.Loss(sum, weight)",
        )
    weight = keras.ops.sum(keras.ops.cast(masks[0], loss.dtype))
    return Loss(loss * weight, weight)


def _mean_metrics(model: Any) -> dict[str, Any]:
    """The compiled metrics under the names that Keras gives them in its results."""
    import keras

    compiled = next((each for each in model.metrics if each.name == "compile_metrics"), None)
    if compiled is None:
        return {}
    named = dict(zip(compiled.result(), compiled.metrics, strict=True))
    for name, metric in named.items():
        if not isinstance(metric, keras.metrics.Mean) or type(metric).result is not keras.metrics.Mean.result:
            raise TaskError(
                f"the compiled metric {name} ({type(metric).__name__}) is no mean, so it does not add up over ranks",
                "leave it out of compile(); compute it in eval_step and eval_end, which see all ranks' outputs",
            )
    return named

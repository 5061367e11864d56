"""What every framework asks of a user's hooks, and of what they returned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from smlt.core.errors import TaskError
from smlt.core.task import Array, Indices, UserTask
from smlt.frameworks.blame import overridden


def check_pairs(task: UserTask, base: type[UserTask], eval_batch: Any) -> None:
    """Raise TaskError for one of `state` and `load_state` without the other, or a size that is none."""
    name = type(task).__name__
    if overridden(task, "state", base) != overridden(task, "load_state", base):
        raise TaskError(f"{name} has one of state and load_state", "define both, or neither")
    if isinstance(eval_batch, bool) or not isinstance(eval_batch, int) or eval_batch < 1:
        raise TaskError(f"{name}.eval_batch is {eval_batch!r}", "it is a number of examples, at least 1")


def checked_prepared(prepared: Any, array_of: Callable[[Any], Any]) -> Mapping[str, Array] | None:
    """What `prepare_data` returned, as arrays.

    Args:
        prepared: what it returned.
        array_of: makes an array of a framework's tensor, and leaves anything else alone.

    Raises:
        TaskError: it is neither None nor arrays or tensors by name.
    """
    if prepared is None:
        return None
    hint = "return arrays or tensors by name, or None"
    if not isinstance(prepared, Mapping):
        raise TaskError(f"prepare_data returned a {type(prepared).__name__}", hint)
    arrays: dict[str, Array] = {}
    for name, value in prepared.items():
        array = array_of(value)
        if not isinstance(name, str) or not isinstance(array, np.ndarray) or array.dtype.hasobject:
            raise TaskError(f"prepare_data returned {name!r}: {type(value).__name__}", hint)
        arrays[name] = array
    return arrays


def checked_order(returned: Any, examples: int, epoch: int) -> Indices:
    """What `sampler` returned, as indices.

    Raises:
        TaskError: it is no order of the training data's indices.
    """
    order = np.asarray(returned)
    hint = f"return indices from 0 to {examples - 1}, as a list, array or tensor"
    if not order.size:
        raise TaskError(f"sampler returned no indices for epoch {epoch}", hint)
    if order.ndim != 1 or not np.issubdtype(order.dtype, np.integer):
        raise TaskError(f"sampler returned {order.dtype}{list(order.shape)} instead of a sequence of indices", hint)
    if order.min() < 0 or order.max() >= examples:
        raise TaskError(f"sampler returned indices from {order.min()} to {order.max()}", hint)
    return order.astype(np.int64)

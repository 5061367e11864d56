"""Tensors as numpy arrays over the same memory; dtypes that numpy lacks (bfloat16 and the like) go as bits."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from smlt.core.errors import TaskError
from smlt.core.task import Array

NUMPY_DTYPES = frozenset(
    {
        torch.float16,
        torch.float32,
        torch.float64,
        torch.complex64,
        torch.complex128,
        torch.bool,
        torch.uint8,
        torch.int8,
        torch.int16,
        torch.int32,
        torch.int64,
    }
)
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def array_of(tensor: Tensor) -> Array:
    """A live view of a dense CPU tensor: same memory, shape, strides; bits as integers where numpy lacks a dtype."""
    tensor = tensor.detach()
    if tensor.dtype not in NUMPY_DTYPES:
        tensor = tensor.view(_BITS[tensor.dtype.itemsize])
    return np.asarray(tensor.numpy())


def contiguous(array: Array) -> Array:
    """The array itself if it lies in C order, else a copy; a scalar stays a scalar, unlike np.ascontiguousarray's."""
    return np.asarray(array, order="C")


def fits(tensor: Tensor, array: Array, name: str) -> Array:
    """The array in the tensor's shape.

    Raises:
        TaskError: shape or dtype differ.
    """
    if array.shape == (1,) and tensor.dim() == 0:  # some containers know no scalars
        array = array.reshape(())
    target = array_of(tensor)
    if array.shape != target.shape or array.dtype != target.dtype:
        raise TaskError(
            f"{name} is {array.dtype}{list(array.shape)} in the saved state, "
            f"but {target.dtype}{list(target.shape)} in the task",
            "the model or its optimizer has changed since; start a new run, or undo the change",
        )
    return array


def copy_into(tensor: Tensor, array: Array) -> None:
    """Fill a tensor in place, bit for bit."""
    np.copyto(array_of(tensor), array, casting="no")

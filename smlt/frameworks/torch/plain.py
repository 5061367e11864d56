"""Plain data and back where tensors may be in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from smlt.core.task import Array
from smlt.frameworks.plain import TAG, PlainData
from smlt.frameworks.torch.memory import array_of, contiguous, copy_into, fits


class _TorchData(PlainData):
    def _do_encode_array(self, value: Any, path: str, arrays: dict[str, Array]) -> dict[str, Any] | None:
        if not isinstance(value, Tensor):
            return super()._do_encode_array(value, path, arrays)
        arrays[path] = contiguous(array_of(value))
        dtype = str(value.dtype).removeprefix("torch.")
        return {TAG: "tensor", "name": path, "dtype": dtype, "shape": list(value.shape)}

    def _do_decode_array(self, value: Mapping[str, Any], array: Array) -> Any:
        if value[TAG] != "tensor":
            return super()._do_decode_array(value, array)
        tensor = torch.empty(value["shape"], dtype=getattr(torch, value["dtype"]))
        copy_into(tensor, fits(tensor, array, value["name"]))
        return tensor


encode, decode = _TorchData().encode, _TorchData().decode
"""See `PlainData`; arrays that leave may be views of live memory."""

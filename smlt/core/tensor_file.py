"""Arrays as a safetensors file in memory that is used again, and the arrays of such a file where they lie.

The library's own `save` and `load` copy every array two or three times into new memory; a snapshot is taken while the
training waits, and a state is loaded while it waits. Format: https://huggingface.co/docs/safetensors, "Format".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

from smlt.core.errors import ConfigError
from smlt.core.task import Array

_CODES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "int64": "I64",
    "uint64": "U64",
    "int32": "I32",
    "uint32": "U32",
    "int16": "I16",
    "uint16": "U16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
    "complex64": "C64",
}
_DTYPES = {code: np.dtype(name) for name, code in _CODES.items()}
_ALIGNMENT = 8
"""Bytes: where the data begin, and with them every array, as the widest come first."""


@dataclass(frozen=True)
class _Place:
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int
    stop: int

    def of(self, data: Any) -> Array:
        """The array that lies here in a file's bytes."""
        found: Array = np.frombuffer(data, self.dtype, prod(self.shape), self.start).reshape(self.shape)
        return found


class Snapshot:
    """A copy of arrays, as the bytes of a safetensors file; the memory is kept for the next one."""

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)

    def make_room(self, arrays: Mapping[str, Array]) -> None:
        """Have the memory ready that such arrays will need: what the first `take` spends most of its time with."""
        header, places = _laid_out(arrays)
        self._grow(max((place.stop for place in places.values()), default=len(header)))

    def _grow(self, size: int) -> None:
        if self._memory.nbytes < size:
            self._memory = np.empty(size, np.uint8)
            self._memory.fill(0)  # the system gives memory when it is written to

    def take(self, arrays: Mapping[str, Array]) -> memoryview:
        """Copy the arrays, and return the file's bytes: valid until the next `take`.

        Raises:
            ConfigError: a safetensors file cannot hold one of them.
        """
        header, places = _laid_out(arrays)
        size = max((place.stop for place in places.values()), default=len(header))
        self._grow(size)
        data = self._memory[:size]
        data[: len(header)] = np.frombuffer(header, np.uint8)
        for name, array in arrays.items():
            if array.nbytes:
                np.copyto(places[name].of(data), array)
        return data.data


def views_of(data: bytes | memoryview) -> dict[str, Array]:
    """The arrays of a safetensors file, read-only and in place.

    Raises:
        ValueError: the bytes are no such file.
    """
    view = memoryview(data).toreadonly()
    try:
        begin = 8 + int.from_bytes(view[:8], "little")
        header = json.loads(bytes(view[8:begin]))
        header.pop("__metadata__", None)
        places = {name: _place_of(entry, begin) for name, entry in header.items()}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"its header is none: {error!r}") from error
    _check(places, begin, view.nbytes)
    return {name: place.of(view) if place.stop > place.start else _empty(place) for name, place in places.items()}


def _laid_out(arrays: Mapping[str, Array]) -> tuple[bytes, dict[str, _Place]]:
    """The header of a file of these arrays, and where each lies in the file."""
    order = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    entries: dict[str, Any] = {}
    start = 0
    for name in order:
        array = arrays[name]
        if array.dtype.name not in _CODES:
            raise ConfigError(f"{name} is of dtype {array.dtype}, which a safetensors file cannot hold")
        stop = start + array.nbytes
        entries[name] = {
            "dtype": _CODES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [start, stop],
        }
        start = stop
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    begin = 8 + len(text)
    places = {name: _place_of(entry, begin) for name, entry in entries.items()}
    return len(text).to_bytes(8, "little") + text, places


def _place_of(entry: Mapping[str, Any], begin: int) -> _Place:
    start, stop = entry["data_offsets"]
    return _Place(_DTYPES[entry["dtype"]], tuple(entry["shape"]), begin + start, begin + stop)


def _check(places: Mapping[str, _Place], begin: int, size: int) -> None:
    """Every byte belongs to one array, and every array has the bytes that its shape wants."""
    for name, place in places.items():
        if place.stop - place.start != prod(place.shape) * place.dtype.itemsize or min(place.shape, default=0) < 0:
            raise ValueError(f"{name} has not the bytes that its shape wants")
    bounds = sorted((place.start, place.stop) for place in places.values())
    if any(before[1] != after[0] for before, after in pairwise([(begin, begin), *bounds, (size, size)])):
        raise ValueError("its arrays have gaps between them, or overlap")


def _empty(place: _Place) -> Array:
    return np.empty(place.shape, place.dtype)

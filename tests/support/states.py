"""A state with arrays of every sort, and a checkpoint of it."""

from __future__ import annotations

import numpy as np

from smlt.core import checkpoint, layout
from smlt.core.checkpoint import Manifest
from smlt.core.sampler import Cursor
from smlt.core.task import Array
from smlt.core.tensor_file import Snapshot
from tests.support.stores import DictStore

RNG = np.random.default_rng(5)
ARRAYS: dict[str, Array] = {
    "model.weight": RNG.standard_normal((7, 5)).astype(np.float32),
    "model.transposed": RNG.standard_normal((4, 6)).T,
    "model.half": RNG.standard_normal(9).astype(np.float16),
    "optimizer.step": np.array(17, np.int64),
    "optimizer.scale": np.array(0.5, np.float32),
    "mask": np.array([True, False, True]),
    "count": np.array([-1, 2**40], np.int64),
    "bytes": np.arange(5, dtype=np.uint8),
    "empty": np.zeros((0, 3), np.float32),
}
EXTRA = {"epoch": 3, "lr": 0.1, "names": ["a", "b"], "nested": {"on": True, "none": None}}


def save(
    store: DictStore,
    step: int = 7,
    world_size: int = 2,
    arrays: dict[str, Array] = ARRAYS,
    best: float | None = None,
    by: tuple[int, int] = (1, 0),
) -> Manifest:
    """All ranks write their part, then the manifest; `by` is their generation and round."""
    folder = layout.attempt(step, *by)
    parts = []
    for rank in range(world_size):
        own = {name: arrays[name] for name in checkpoint.names_of_part(arrays, rank, world_size)}
        parts.append(checkpoint.write_part(store, layout.part(folder, rank), Snapshot().take(own)))
    manifest = Manifest(Cursor(0, 1, 16, step), world_size, tuple(parts), EXTRA, best, generation=by[0], round=by[1])
    checkpoint.write_manifest(store, manifest)
    return manifest

"""A state with arrays of every sort, and a checkpoint of it."""

from __future__ import annotations

import numpy as np

from smlt.core import checkpoint
from smlt.core.checkpoint import Manifest
from smlt.core.sampler import Cursor
from smlt.core.task import Array, State
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
    store: DictStore, step: int = 7, world_size: int = 2, arrays: dict[str, Array] = ARRAYS, best: float | None = None
) -> Manifest:
    """All ranks write their part, then the manifest."""
    state = State(dict(arrays), EXTRA)
    parts = tuple(checkpoint.write_own(store, state, None, step, rank, world_size).shared for rank in range(world_size))
    manifest = Manifest(Cursor(0, 1, 16, step), world_size, parts, state.extra, best)
    checkpoint.write_manifest(store, manifest)
    return manifest

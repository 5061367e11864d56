"""Work in parts that stay in a core's cache, in memory that each thread has once."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np

from smlt.core.task import Array

CHUNK = 1 << 16
"""Numbers worked on at a time: 256 KiB of float32, so that a few operands stay in the second-level cache."""

_ROWS = 4
_thread = threading.local()


def chunks(elements: int) -> Iterator[slice]:
    """So many numbers cut into chunks, in order."""
    for start in range(0, elements, CHUNK):
        yield slice(start, min(start + CHUNK, elements))


def scratch(elements: int) -> tuple[Array, ...]:
    """Four uint32 arrays of at most CHUNK elements, the calling thread's own; whatever was in them is still there."""
    rows: Array | None = getattr(_thread, "rows", None)
    if rows is None:
        rows = _thread.rows = np.empty((_ROWS, CHUNK), np.uint32)
    return tuple(rows[:, :elements])

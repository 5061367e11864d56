"""Determinism inside a worker: seeds for everything random, deterministic algorithms, a fixed number of threads."""

from __future__ import annotations

import random

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed Python's, numpy's legacy and torch's default generator; about 15 us.

    torch's as `torch.manual_seed(seed)` does for the CPU, numpy's from the lowest 32 bits, all that it takes.
    """
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    torch.default_generator.manual_seed(seed)


def be_deterministic(threads: int) -> None:
    """Switch this process to deterministic algorithms (a warning where an operation has none) and so many threads."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    # a debugging aid that costs a pass over new memory
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.set_num_threads(threads)


def fingerprint(precision: str) -> dict[str, str]:
    """What must be equal on all ranks for bitwise results."""
    return {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
        "precision": precision,
    }

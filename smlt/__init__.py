"""Train PyTorch and TensorFlow models on serverless functions, under a deadline and a budget.

`smlt.train` trains and `smlt.resume` goes on; `smlt.Loss` and `smlt.Metric` are for tasks. Everything is imported on
first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from smlt._version import __version__

if TYPE_CHECKING:
    from smlt.api import Result, resume, train
    from smlt.core.errors import SmltError
    from smlt.core.job import JobSpec
    from smlt.core.task import Loss, Metric

__all__ = ["JobSpec", "Loss", "Metric", "Result", "SmltError", "__version__", "resume", "train"]

_HOMES = {
    "JobSpec": "smlt.core.job",
    "Loss": "smlt.core.task",
    "Metric": "smlt.core.task",
    "Result": "smlt.api",
    "SmltError": "smlt.core.errors",
    "resume": "smlt.api",
    "train": "smlt.api",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'smlt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

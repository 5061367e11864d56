"""What must be set before TensorFlow is imported or first runs, and what of it must be equal on all ranks."""

from __future__ import annotations

import os
import sys

import numpy as np

from smlt.core.errors import TaskError
from smlt.core.task import TaskContext

ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
_DEFAULTS = {
    # Read once, at import. 1 is TensorFlow's own default on Linux x86, where convolutions are two to three times as
    # fast with it; with a fixed number of threads its sums come in a fixed order.
    "tensorflow": {ONEDNN: "1", "TF_CPP_MIN_LOG_LEVEL": "2"},
    "keras": {"KERAS_BACKEND": "tensorflow"},
}


def import_frameworks() -> None:
    """Import TensorFlow and Keras, having chosen what they read from the environment then, where the user has not.

    Raises:
        TaskError: TensorFlow is not installed, or Keras has another backend.
    """
    for module, defaults in _DEFAULTS.items():
        if module not in sys.modules:
            for name, value in defaults.items():
                os.environ.setdefault(name, value)
    try:
        import keras
        import tensorflow  # noqa: F401
    except ImportError as error:
        raise TaskError(f"TensorFlow cannot be imported: {error}", "pip install 'smlt[tensorflow]'") from error
    backend = keras.config.backend()
    if backend != "tensorflow":
        raise TaskError(
            f"Keras uses the backend {backend}, and KerasTask trains on TensorFlow",
            "set KERAS_BACKEND=tensorflow, or unset it and look into ~/.keras/keras.json",
        )


def start(context: TaskContext) -> None:
    """Make TensorFlow deterministic and give it its threads, before its first operation.

    Raises:
        TaskError: it already runs with other threads.
    """
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
    threading, threads = tf.config.threading, context.threads
    try:
        if threading.get_intra_op_parallelism_threads() != threads:
            threading.set_intra_op_parallelism_threads(threads)
        if threading.get_inter_op_parallelism_threads() != threads:
            threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError as error:
        raise TaskError(
            f"TensorFlow already ran before it could be given {threads} thread(s)",
            "make tensors, variables and models inside the task's hooks, not while its file is imported",
        ) from error


def fingerprint(precision: str) -> dict[str, str]:
    """What must be equal on all ranks for bitwise results."""
    import keras
    import tensorflow as tf

    return {
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "cpu": _widest_vectors(),
        "onednn": os.environ.get(ONEDNN, "default"),
        "threads": str(tf.config.threading.get_intra_op_parallelism_threads()),
        "precision": precision,
    }


def _widest_vectors() -> str:
    """The kind of vectors this CPU has, as far as it chooses between kernels; "baseline" for the least."""
    found = set(np.show_config(mode="dicts")["SIMD Extensions"]["found"])
    for name, marks in {"AVX512": {"X86_V4", "AVX512F"}, "AVX2": {"X86_V3", "AVX2"}, "SVE": {"SVE"}}.items():
        if found & marks:
            return name
    return "baseline"

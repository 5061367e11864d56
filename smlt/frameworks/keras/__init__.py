"""Keras on TensorFlow: `KerasTask` is what a user derives from, `load_model` reads a trained model back.

TensorFlow reads its environment when it is imported, so importing this imports neither it nor Keras.
"""

from smlt.frameworks.keras.export import load_model
from smlt.frameworks.keras.task import KerasTask

__all__ = ["KerasTask", "load_model"]

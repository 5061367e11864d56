"""PyTorch: `TorchTask` is what a user derives from, `load_model` reads a trained model back.

Whoever imports this has torch; nothing but the frameworks' side of the wall enters.
"""

from smlt.frameworks.torch.export import load_model
from smlt.frameworks.torch.loop import LoopContext
from smlt.frameworks.torch.task import TorchTask

__all__ = ["LoopContext", "TorchTask", "load_model"]

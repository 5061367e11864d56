"""What local SGD averages, on tasks of PyTorch."""

from __future__ import annotations

from averaging import Averaging
from torch_models import Classifier, Normed


class TestTorchAveraging(Averaging):
    classifier, normed = Classifier, Normed

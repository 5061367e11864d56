"""A small CNN that reads handwritten digits (8 x 8 pixels)."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from smlt.frameworks.torch import TorchTask


class Digits(TorchTask):
    def prepare_data(self) -> dict[str, np.ndarray]:
        from sklearn.datasets import load_digits  # here: the workers only read what this returns
        from sklearn.model_selection import train_test_split

        images, labels = load_digits(return_X_y=True)
        images = images.reshape(-1, 1, 8, 8).astype(np.float32) / 4
        parts = train_test_split(images, labels, test_size=0.2, stratify=labels, random_state=0)
        return dict(zip(("train_x", "test_x", "train_y", "test_y"), parts, strict=True))

    def build_model(self) -> nn.Module:
        width = self.params.get("width", 32)
        return nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(2 * width * 4 * 4, 10),
        )

    def build_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(model.parameters(), lr=3e-3)

    def train_data(self) -> TensorDataset:
        return self._dataset("train")

    def training_step(self, model: nn.Module, batch: list[Tensor]) -> Tensor:
        images, labels = batch
        return cross_entropy(model(images), labels)

    def eval_data(self) -> TensorDataset:
        return self._dataset("test")

    def eval_step(self, model: nn.Module, batch: list[Tensor]) -> dict[str, Tensor]:
        images, labels = batch
        logits = model(images)
        correct = (logits.argmax(dim=1) == labels).float()
        return {"accuracy": correct.mean(), "eval_loss": cross_entropy(logits, labels)}

    def _dataset(self, part: str) -> TensorDataset:
        images, labels = self.prepared[f"{part}_x"], self.prepared[f"{part}_y"]
        return TensorDataset(torch.from_numpy(images), torch.from_numpy(labels))

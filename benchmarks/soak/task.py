"""What is trained: a small CNN with batch norm, dropout, Adam and a schedule, at a pace that the job sets."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import TensorDataset

from smlt.frameworks.torch import TorchTask

CLASSES, EXAMPLES = 10, 640


class Digits(TorchTask):
    """Made-up digits of 8 x 8; each step takes `pause_s` longer than it must."""

    def build_model(self) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(256, 256),
            nn.ReLU(),
            nn.Linear(256, CLASSES),
        )

    def build_optimizer(self, model: nn.Module) -> tuple[torch.optim.Optimizer, CosineAnnealingLR]:
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        return optimizer, CosineAnnealingLR(optimizer, T_max=1000)

    def train_data(self) -> TensorDataset:
        generator = torch.Generator().manual_seed(0)
        labels = torch.arange(EXAMPLES) % CLASSES
        patterns = torch.randn(CLASSES, 1, 8, 8, generator=generator)
        return TensorDataset(patterns[labels] + torch.randn(EXAMPLES, 1, 8, 8, generator=generator), labels)

    def training_step(self, model: nn.Module, batch: list[Tensor]) -> Tensor:
        images, labels = batch
        time.sleep(self.params.get("pause_s", 0))
        return cross_entropy(model(images), labels)

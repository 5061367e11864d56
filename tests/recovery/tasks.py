"""Small tasks with much that a state can have: dropout, batch norm, schedulers, momentum, Adam, tied weights."""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR, StepLR
from torch.utils.data import TensorDataset

from smlt.frameworks.torch import TorchTask

EXAMPLES, HELD_OUT = 96, 24


class Digits(TorchTask):
    """Classes of 8 x 8 pictures, by a CNN with batch norm and dropout.

    `optimizer` is adam or momentum, `hidden` makes it larger, `pause_s` slower.
    """

    def build_model(self) -> nn.Module:
        hidden = self.params.get("hidden", 0)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.3),
            *([nn.Linear(64, hidden), nn.ReLU()] if hidden else []),
            nn.Linear(hidden or 64, 10),
        )

    def build_optimizer(self, model: nn.Module):
        if self.params.get("optimizer") == "momentum":
            optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
        else:
            optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        return optimizer, StepLR(optimizer, step_size=5, gamma=0.8)

    def train_data(self) -> TensorDataset:
        return _pictures(EXAMPLES, seed=1)

    def training_step(self, model: nn.Module, batch: list[Tensor]) -> Tensor:
        pictures, labels = batch
        time.sleep(self.params.get("pause_s", 0))  # a larger model
        return cross_entropy(model(pictures), labels)

    def eval_data(self) -> TensorDataset:
        return _pictures(HELD_OUT, seed=2)

    def eval_step(self, model: nn.Module, batch: list[Tensor]) -> dict[str, Tensor]:
        pictures, labels = batch
        return {"accuracy": (model(pictures).argmax(dim=1) == labels).float().mean()}


def _pictures(count: int, seed: int) -> TensorDataset:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 10
    patterns = np.random.default_rng(0).normal(size=(10, 1, 8, 8))
    pictures = (patterns[labels] + rng.normal(size=(count, 1, 8, 8))).astype(np.float32)
    return TensorDataset(torch.from_numpy(pictures), torch.from_numpy(labels))


class Gpt(TorchTask):
    """The next of 16 letters, by a transformer of one layer with dropout and tied weights."""

    def build_model(self) -> nn.Module:
        return _Transformer()

    def build_optimizer(self, model: nn.Module):
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
        return optimizer, LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 5) / (1 + step / 20))

    def train_data(self) -> TensorDataset:
        starts = torch.arange(EXAMPLES)[:, None]
        return TensorDataset((starts * 7 + torch.arange(13) * (starts % 5)) % 16)

    def training_step(self, model: nn.Module, batch: list[Tensor]) -> Tensor:
        (letters,) = batch
        return cross_entropy(model(letters[:, :-1]).flatten(0, 1), letters[:, 1:].flatten())


class _Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(16, 16)
        self.places = nn.Parameter(torch.randn(12, 16) / 4)
        self.block = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.2, batch_first=True, norm_first=True)
        self.head = nn.Linear(16, 16, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, letters: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(letters.shape[1])
        x = self.embedding(letters) + self.places[: letters.shape[1]]
        return self.head(self.block(x, src_mask=mask, is_causal=True))

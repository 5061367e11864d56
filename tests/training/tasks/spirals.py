"""Tasks whose course the tests follow: a classifier, and a masked model whose loss is weighed by tokens."""

from __future__ import annotations

import sys
import time

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset, TensorDataset

from smlt import Loss
from smlt.frameworks.torch import TorchTask

EXAMPLES = 150


def spirals() -> TensorDataset:
    rng = np.random.default_rng(7)
    angles = rng.uniform(0.5, 9.0, EXAMPLES).astype(np.float32)
    labels = rng.integers(0, 2, EXAMPLES)
    radius = angles / 9
    x = np.stack([radius * np.cos(angles + np.pi * labels), radius * np.sin(angles + np.pi * labels)], 1)
    return TensorDataset(torch.from_numpy(x.astype(np.float32)), torch.from_numpy(labels))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 2))
        self.unused = nn.Parameter(torch.ones(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


def optimizer_for(model: nn.Module) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02, weight_decay=0.1)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step / 20))


class Spirals(TorchTask):
    def build_model(self) -> nn.Module:
        print("modules", sorted({"torch", "tensorflow"} & set(sys.modules)))
        return Net()

    def build_optimizer(self, model: nn.Module):
        return optimizer_for(model)

    def train_data(self) -> TensorDataset:
        return spirals()

    def training_step(self, model: nn.Module, batch: list[torch.Tensor]) -> torch.Tensor:
        x, y = batch
        time.sleep(self.params.get("pause_s", 0))  # a larger model
        return cross_entropy(model(x), y)


class Sentences(Dataset):
    """Sequences of different lengths, padded with -1; the next token is the present one plus one, mostly."""

    def __len__(self) -> int:
        return 90

    def __getitem__(self, index: int) -> torch.Tensor:
        rng = np.random.default_rng(index)
        tokens = (rng.integers(0, 8) + np.arange(10)) % 8
        tokens[rng.integers(2, 11) :] = -1
        return torch.from_numpy(tokens)


class Masked(TorchTask):
    """Every third token is masked; how many count differs from example to example."""

    def build_model(self) -> nn.Module:
        return nn.Sequential(nn.Embedding(10, 16), nn.Flatten(1), nn.Linear(160, 80), nn.Unflatten(1, (10, 8)))

    def build_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)

    def train_data(self) -> Sentences:
        return Sentences()

    def training_step(self, model: nn.Module, tokens: torch.Tensor) -> Loss:
        masked = torch.zeros_like(tokens, dtype=torch.bool)
        masked[:, ::3] = True
        seen = tokens.masked_fill(tokens < 0, 9).masked_fill(masked, 8)
        targets = tokens.masked_fill(~masked, -1)
        logits = model(seen)
        total = cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1, reduction="sum")
        return Loss(total, (targets >= 0).sum())


class Half(Spirals):
    """An epoch visits half of the examples."""

    def sampler(self, rng: np.random.Generator, epoch: int) -> np.ndarray:
        return rng.permutation(EXAMPLES)[: EXAMPLES // 2]

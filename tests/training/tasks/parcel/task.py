"""A task of a package: relative imports, a data file beside it, a collate function, an unpicklable dataset."""

from __future__ import annotations

import json

import torch
from torch import nn

from smlt.frameworks.torch import TorchTask

from .shapes import Locked


class Parcel(TorchTask):
    def build_model(self) -> nn.Module:
        return nn.Linear(4, 2)

    def build_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.5)

    def train_data(self) -> Locked:
        return Locked(json.loads(self.path("labels.json").read_text()))

    def collate(self, items: list[tuple[torch.Tensor, int]]) -> dict[str, torch.Tensor]:
        return {"x": torch.stack([x for x, _ in items]), "y": torch.tensor([y for _, y in items])}

    def training_step(self, model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return nn.functional.cross_entropy(model(batch["x"]), batch["y"])

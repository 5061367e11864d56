"""A byte-level GPT that learns to write Python from the standard library's own sources."""

import math
from functools import partial

import numpy as np
import torch
from corpus import read_corpus
from model import GPT, SIZES, Shape
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Dataset

from smlt.frameworks.torch import TorchTask

WARM_UP_STEPS = 200
EVAL_WINDOWS = 256


class Windows(Dataset[Tensor]):
    """Pieces of `context + 1` bytes, as int64: all but the last are the input, all but the first the target."""

    def __init__(self, text: np.ndarray, starts: np.ndarray, context: int) -> None:
        self.text = text
        self.starts = starts
        self.length = context + 1

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> Tensor:
        start = self.starts[index]
        return torch.from_numpy(self.text[start : start + self.length].astype(np.int64))


class Gpt(TorchTask):
    eval_batch = 32

    @property
    def shape(self) -> Shape:
        return SIZES[self.params.get("size", "1m")]

    def prepare_data(self) -> dict[str, np.ndarray]:
        train, valid = read_corpus()
        return {"train": train, "valid": valid}

    def build_model(self) -> nn.Module:
        return GPT(self.shape)

    def build_optimizer(self, model: nn.Module) -> tuple[torch.optim.Optimizer, LambdaLR]:
        matrices = [weight for weight in model.parameters() if weight.dim() == 2]
        scales = [weight for weight in model.parameters() if weight.dim() < 2]
        optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": 0.1}, {"params": scales, "weight_decay": 0.0}],
            lr=self.params.get("learning_rate", 0.384 / self.shape.width),
            betas=(0.9, 0.98),
            fused=True,
        )
        return optimizer, LambdaLR(optimizer, partial(warm_up_and_cosine, total_steps=self.total_steps))

    def train_data(self) -> Windows:
        text, context = self.prepared["train"], self.shape.context
        return Windows(text, np.arange(0, len(text) - context, context), context)

    def training_step(self, model: nn.Module, batch: Tensor) -> Tensor:
        return cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())

    def eval_data(self) -> Windows:
        text, context = self.prepared["valid"], self.shape.context
        starts = np.linspace(0, len(text) - context - 1, EVAL_WINDOWS, dtype=np.int64)
        return Windows(text, starts, context)

    def eval_step(self, model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        return {"val_loss": self.training_step(model, batch)}  # nats per byte


def warm_up_and_cosine(step: int, total_steps: int) -> float:
    """What the learning rate is multiplied by: up to 1 in a straight line, then down to 0.02 in a half cosine."""
    cosine = 0.5 + 0.5 * math.cos(math.pi * min(1.0, step / total_steps))
    return min((step + 1) / WARM_UP_STEPS, 0.02 + 0.98 * cosine)

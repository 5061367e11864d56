"""Small tasks that the torch tests share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.data import TensorDataset

from smlt.core.task import Loss, Metric
from smlt.frameworks.torch import LoopContext, TorchTask


def points(examples: int = 37, seed: int = 5) -> TensorDataset:
    """Points in 6 dimensions and the class of each, one of 3."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(examples, 6, generator=generator)
    return TensorDataset(x, (x @ torch.randn(6, 3, generator=generator)).argmax(1))


class Classifier(TorchTask):
    """A small classifier by AdamW, with a parameter that is never used and a schedule."""

    eval_batch = 5

    def build_model(self) -> nn.Module:
        model = nn.Sequential(nn.Linear(6, 17), nn.Tanh(), nn.Linear(17, 3))
        model.register_parameter("unused", nn.Parameter(torch.ones(5)))
        return model

    def build_optimizer(self, model: nn.Module) -> Any:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step)

    def train_data(self) -> Any:
        return points()

    def training_step(self, model: nn.Module, batch: Any) -> Tensor | Loss:
        return cross_entropy(model(batch[0]), batch[1])

    def eval_data(self) -> Any:
        return points(23, seed=6)

    def eval_step(self, model: nn.Module, batch: Any) -> dict[str, Any]:
        logits = model(batch[0])
        right = (logits.argmax(1) == batch[1]).float()
        return {
            "accuracy": right.mean(),
            "right": Metric(right.sum(), len(right)),
            "loss": cross_entropy(logits, batch[1]),
        }


class SumClassifier(Classifier):
    """The same by sum and weight; every third example does not count."""

    def training_step(self, model: nn.Module, batch: Any) -> Loss:
        counts = (batch[0][:, 0] > -0.4).float()
        losses = cross_entropy(model(batch[0]), batch[1], reduction="none")
        return Loss((losses * counts).sum(), counts.sum())


class Normed(Classifier):
    """Batch norm, dropout, momentum, frozen parts, a mask, a complex table, channels_last: all that a model can be."""

    def build_model(self) -> nn.Module:
        model = nn.Sequential(
            nn.Unflatten(1, (2, 3, 1)),
            nn.Conv2d(2, 4, (3, 1), padding=(1, 0)),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Flatten(),
            nn.Linear(12, 8),
            nn.LayerNorm(8),
            nn.Linear(8, 3),
        ).to(memory_format=torch.channels_last)
        frozen = nn.Linear(2, 2).to(torch.bfloat16).requires_grad_(False)
        model.add_module("frozen", nn.Sequential(frozen, nn.Identity()))
        model.register_buffer("mask", torch.tensor([True, False, True]))
        model.register_buffer("table", torch.polar(torch.ones(3), torch.arange(3.0) / 7))
        model.register_buffer("third", torch.tensor([1 / 3], dtype=torch.float64), persistent=False)
        model.register_buffer("seen", torch.zeros((), dtype=torch.int32))
        return model

    def build_optimizer(self, model: nn.Module) -> Any:
        return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)

    def training_step(self, model: nn.Module, batch: Any) -> Tensor | Loss:
        model.get_buffer("seen").add_(len(batch[0]))
        body = nn.Sequential(*(part for name, part in model.named_children() if name != "frozen"))
        return cross_entropy(body(batch[0]), batch[1])

    def eval_step(self, model: nn.Module, batch: Any) -> dict[str, Any]:
        model.get_buffer("seen").add_(1000)  # to be undone
        body = nn.Sequential(*(part for name, part in model.named_children() if name != "frozen"))
        return {"loss": cross_entropy(body(batch[0]), batch[1])}


class TinyBert(nn.Module):
    """Token prediction with the output tied to the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.mixer = nn.Linear(8, 8)
        self.head = nn.Linear(8, 11)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.embedding(tokens)
        mixed: Tensor = self.head(torch.tanh(self.mixer(hidden) + hidden.mean(1, keepdim=True)))
        return mixed


class MaskedTokens(TorchTask):
    """Masked language modelling: the number of masked tokens differs from example to example."""

    def build_model(self) -> nn.Module:
        return TinyBert()

    def build_optimizer(self, model: nn.Module) -> Any:
        return torch.optim.AdamW(model.parameters(), lr=1e-2)

    def train_data(self) -> Any:
        generator = torch.Generator().manual_seed(1)
        tokens = torch.randint(1, 11, (40, 9), generator=generator)
        masked = torch.rand(40, 9, generator=generator) < torch.rand(40, 1, generator=generator)
        return TensorDataset(tokens, masked)

    def training_step(self, model: nn.Module, batch: Any) -> Loss:
        tokens, masked = batch
        logits = model(tokens.masked_fill(masked, 0))
        return Loss(cross_entropy(logits[masked], tokens[masked], reduction="sum"), masked.sum())


class Gan(TorchTask):
    """A GAN on a line: two models, two optimizers, one loop."""

    def build_model(self) -> nn.Module:
        return nn.ModuleDict({"g": nn.Linear(2, 1), "d": nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))})

    def build_optimizer(self, model: nn.Module) -> Any:
        assert isinstance(model, nn.ModuleDict)
        g = torch.optim.Adam(model["g"].parameters(), lr=1e-2)
        return {"g": g, "d": torch.optim.SGD(model["d"].parameters(), lr=1e-2, momentum=0.5)}

    def train_data(self) -> Any:
        return TensorDataset(torch.linspace(2, 4, 24).view(-1, 1))

    def loop(self, ctx: LoopContext) -> None:
        model, real_or_not = ctx.model, nn.functional.binary_cross_entropy_with_logits
        assert isinstance(model, nn.ModuleDict)
        for (real,) in ctx.batches():
            for optimizer in ctx.optimizers.values():
                optimizer.zero_grad()
            fake = model["g"](torch.randn(len(real), 2))
            logits = model["d"](torch.cat([real, fake.detach()]))
            truth = torch.cat([torch.ones(len(real), 1), torch.zeros(len(real), 1)])
            d_loss = real_or_not(logits, truth)
            d_loss.backward()
            g_loss = real_or_not(model["d"](fake), torch.ones(len(real), 1))
            for parameter, grad in zip(
                model["g"].parameters(), torch.autograd.grad(g_loss, list(model["g"].parameters())), strict=True
            ):
                parameter.grad = grad
            ctx.sync(model, loss=d_loss + g_loss)
            for optimizer in ctx.optimizers.values():
                optimizer.step()


class Regression(TorchTask):
    """Least squares in a loop of one's own."""

    def build_model(self) -> nn.Module:
        return nn.Linear(6, 1)

    def build_optimizer(self, model: nn.Module) -> Any:
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        return optimizer, torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)

    def train_data(self) -> Any:
        return points()

    def loop(self, ctx: LoopContext) -> None:
        for x, y in ctx.batches():
            ctx.optimizer.zero_grad()
            loss = mse_loss(ctx.model(x).squeeze(1), y.float())
            loss.backward()
            ctx.sync(ctx.model, loss=loss)
            ctx.optimizer.step()
            ctx.scheduler.step()

"""Two models of 46.7 and 48 MB and their tasks: ResNet-18 on images of 32 x 32, and a small language model.

ResNet-18: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, table 1, with the stem that small
images want (3 x 3, no pooling).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, relu
from torch.utils.data import TensorDataset

from smlt.frameworks.torch import TorchTask

CLASSES = 1000
WORDS, WIDTH, LAYERS, CONTEXT = 8192, 384, 5, 64
BATCHES = 4
"""Of different data, which steps visit in turn."""


class Block(nn.Module):
    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != out:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))
        return relu(y + self.shortcut(x))


class ResNet18(nn.Module):
    """11,681,832 parameters."""

    def __init__(self) -> None:
        super().__init__()
        blocks, channels = [], 64
        for out, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            blocks += [Block(channels, out, stride), Block(out, out, 1)]
            channels = out
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU())
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(512, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.blocks(self.stem(images)).mean(dim=(2, 3)))


class Transformer(nn.Module):
    """Next word of 64; the embedding, whose gradient is complete last, is the output layer too."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.places = nn.Embedding(CONTEXT, WIDTH)
        nn.init.normal_(self.words.weight, std=0.02)
        nn.init.normal_(self.places.weight, std=0.02)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(WIDTH, 6, 4 * WIDTH, dropout=0.0, batch_first=True, norm_first=True)
            for _ in range(LAYERS)
        )
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, words: Tensor) -> Tensor:
        x = self.words(words) + self.places.weight
        mask = nn.Transformer.generate_square_subsequent_mask(CONTEXT)
        for layer in self.layers:
            x = layer(x, src_mask=mask, is_causal=True)
        return self.norm(x) @ self.words.weight.T


class BenchTask(TorchTask):
    """SGD with momentum on random data; a rank's batch is `batch` examples."""

    batch: int

    def build_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    @property
    def examples(self) -> int:
        return BATCHES * self.batch * self.world_size

    def training_step(self, model: nn.Module, batch: Any) -> Tensor:
        inputs, targets = batch
        return cross_entropy(model(inputs).flatten(0, -2), targets.flatten())


class ResNetTask(BenchTask):
    batch = 8

    def build_model(self) -> nn.Module:
        return ResNet18()

    def train_data(self) -> TensorDataset:
        generator = torch.Generator().manual_seed(1)
        return TensorDataset(
            torch.randn(self.examples, 3, 32, 32, generator=generator),
            torch.randint(CLASSES, (self.examples,), generator=generator),
        )


class TransformerTask(BenchTask):
    batch = 4

    def build_model(self) -> nn.Module:
        return Transformer()

    def train_data(self) -> TensorDataset:
        words = torch.randint(WORDS, (self.examples, CONTEXT + 1), generator=torch.Generator().manual_seed(1))
        return TensorDataset(words[:, :-1], words[:, 1:])


class PerceptronTask(BenchTask):
    """0.2 MB: to try things out."""

    batch = 8

    def build_model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 10))

    def train_data(self) -> TensorDataset:
        generator = torch.Generator().manual_seed(1)
        return TensorDataset(
            torch.randn(self.examples, 64, generator=generator),
            torch.randint(10, (self.examples,), generator=generator),
        )


TASKS: Mapping[str, Callable[[], BenchTask]] = {
    "resnet18": ResNetTask,
    "transformer": TransformerTask,
    "perceptron": PerceptronTask,
}

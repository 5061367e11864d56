"""A dataset that no pickle takes."""

from __future__ import annotations

import threading

import torch


class Locked:
    def __init__(self, labels: list[int]) -> None:
        self.lock = threading.Lock()
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        with self.lock:
            return torch.nn.functional.one_hot(torch.tensor(index % 4), 4).float(), self.labels[index]

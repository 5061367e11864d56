"""How long a hand-over stalls a job: ResNet-18 (46.7 MB) with Adam, whose functions a time limit ends again and again.

    python -m benchmarks.handover [--workers 2] [--handovers 10] [--time-limit 20s] [--channel shared_memory]

A stall is the time from the end of a generation's last step to the start of the next one's first forward. Beside it
stand the step time, and how much slower steps were while the next generation made itself ready. Exit code 1 where the
median of the stalls is longer than two steps and than 0.7 s, or their 90th percentile than 2 s.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

import smlt
from benchmarks.step.models import CLASSES, ResNet18
from smlt.core.units import parse_duration_s
from smlt.frameworks.torch import TorchTask

IMAGES_A_RANK = 8
MUST_P90_S = 2.0


class Images(TorchTask):
    """Random images of 32 x 32."""

    def build_model(self) -> torch.nn.Module:
        return ResNet18()

    def build_optimizer(self, model: torch.nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(model.parameters(), lr=1e-4)

    def train_data(self) -> TensorDataset:
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(256, 3, 32, 32, generator=generator)
        return TensorDataset(images, torch.randint(CLASSES, (256,), generator=generator))

    def training_step(self, model: torch.nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        images, labels = batch
        return cross_entropy(model(images), labels)


def measure(workers: int, handovers: int, time_limit: str, channel: str) -> dict[str, Any]:
    """One job with so many hand-overs, and what its log says of them."""
    steps_s = 0.4 * workers / 2  # a guess that only decides how long the job is
    with tempfile.TemporaryDirectory() as folder:
        result = smlt.train(
            "benchmarks/handover.py:Images",
            workers=workers,
            steps=int((handovers + 2) * parse_duration_s(time_limit) / steps_s),
            runs_dir=folder,
            settings={
                "job.global_batch": IMAGES_A_RANK * workers,
                "backend.function_time_limit": time_limit,
                "sync.channel": channel,
            },
        )
        events = Path(result.model_path).with_name("events.jsonl").read_text(encoding="utf-8").splitlines()
    alone, beside = _step_seconds([json.loads(event) for event in events])
    stalls = result.summary.handover_stall_seconds
    return {
        "workers": workers,
        "handovers": len(stalls),
        "stall_s_median": statistics.median(stalls),
        "stall_s_p90": float(np.quantile(stalls, 0.9)),
        "stalls_s": [round(stall, 3) for stall in stalls],
        "step_s_median": statistics.median(alone),
        "slow_down_while_both_live": statistics.median(beside) / statistics.median(alone) if beside else None,
        "must_s": max(2 * statistics.median(alone), 0.7),
        "must_p90_s": MUST_P90_S,
    }


def _step_seconds(events: list[dict[str, object]]) -> tuple[list[float], list[float]]:
    """Seconds of the steps made while one generation lived, and of those beside a second one."""
    alone: list[float] = []
    beside: list[float] = []
    spans: list[tuple[float, float]] = []
    for event in events:
        if event["kind"] == "hand_over":
            spans.append((event["time"], float("inf")))
        elif event["kind"] == "round_opened" and spans and spans[-1][1] == float("inf"):
            spans[-1] = (spans[-1][0], event["time"])
    for event in events:
        for item in event.get("items", []) if event["kind"] == "steps" else []:
            during = any(start < item["ended"] < stop for start, stop in spans)
            (beside if during else alone).append(item["seconds"])
    return alone, beside


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--handovers", type=int, default=10)
    parser.add_argument("--time-limit", default="20s")
    parser.add_argument("--channel", default="auto")
    arguments = parser.parse_args()
    result = measure(arguments.workers, arguments.handovers, arguments.time_limit, arguments.channel)
    json.dump(result, sys.stdout, indent=2)
    print()
    if result["stall_s_median"] > result["must_s"] or result["stall_s_p90"] > result["must_p90_s"]:
        sys.exit("hand-overs stall training for longer than they may")


if __name__ == "__main__":
    main()

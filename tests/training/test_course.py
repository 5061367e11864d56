"""Training is right: the same course whatever the number of workers, and with one worker the plain loop's bits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

import smlt
from smlt.core.task import seed_of
from tests.training.tasks.spirals import Net, optimizer_for, spirals

TASKS = Path(__file__).parent / "tasks"
BATCH, EPOCHS, SEED = 32, 3, 5


def train(tmp_path: Path, task: str, workers: int, **more: object) -> smlt.Result:
    return smlt.train(
        f"{TASKS / 'spirals.py'}:{task}",
        workers=workers,
        epochs=EPOCHS,
        global_batch=BATCH,
        seed=SEED,
        runs_dir=tmp_path,
        settings={"backend.worker_threads": 1},
        **more,
    )


@pytest.mark.parametrize("task", ["Spirals", "Masked"])
def test_any_number_of_workers_follows_the_same_course(tmp_path: Path, task: str) -> None:
    results = {workers: train(tmp_path, task, workers) for workers in (1, 2, 3, 4)}
    alone = results[1].metrics["loss"]
    for workers, result in results.items():
        assert result.metrics["loss"] == pytest.approx(alone, rel=1e-3), workers
        assert result.summary.steps == results[1].summary.steps


def test_the_same_job_twice_gives_the_same_bits(tmp_path: Path) -> None:
    first, second = (train(tmp_path, "Spirals", 2) for _ in range(2))
    assert first.weights_sha256 == second.weights_sha256
    assert first.summary.state_sha256 == second.summary.state_sha256


def test_another_seed_gives_other_bits(tmp_path: Path) -> None:
    first = train(tmp_path, "Spirals", 1)
    other = smlt.train(
        f"{TASKS / 'spirals.py'}:Spirals",
        workers=1,
        epochs=EPOCHS,
        global_batch=BATCH,
        seed=SEED + 1,
        runs_dir=tmp_path,
    )
    assert first.weights_sha256 != other.weights_sha256


def test_one_worker_is_a_plain_loop_bit_for_bit(tmp_path: Path) -> None:
    """AdamW with weight decay, a scheduler, a parameter that no loss depends on, a last batch that is smaller."""
    result = train(tmp_path, "Spirals", 1)
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    model, data = Net(), spirals()
    optimizer, scheduler = optimizer_for(model)
    for epoch in range(EPOCHS):
        order = np.random.default_rng(seed_of(SEED, epoch)).permutation(len(data))
        for start in range(0, len(order), BATCH):
            x, y = data[order[start : start + BATCH].tolist()]
            loss = cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
    trained = load_file(result.model_path)
    for name, tensor in model.state_dict().items():
        assert torch.equal(trained[name], tensor), name
    assert result.metrics["loss"] == loss.item()


def test_a_sampler_may_visit_fewer_examples(tmp_path: Path) -> None:
    assert train(tmp_path, "Half", 2).summary.steps == EPOCHS * 3  # 75 examples in batches of 32


def test_a_torch_job_imports_no_tensorflow(tmp_path: Path) -> None:
    result = train(tmp_path, "Spirals", 1)
    lines = result.model_path.with_name("events.jsonl").read_text().splitlines()
    printed = [event["text"] for event in map(json.loads, lines) if event["kind"] == "output"]
    assert printed == ["modules ['torch']"]

"""The digits examples, as a user runs them: the accuracy, and a model that any program can read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

import smlt

EXAMPLES = Path(__file__).parents[2] / "examples"

PLAIN_TORCH = """
import sys, torch
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

images, labels = load_digits(return_X_y=True)
_, x, _, y = train_test_split(images, labels, test_size=0.2, stratify=labels, random_state=0)
model = nn.Sequential(
    nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
    nn.Flatten(), nn.Linear(64 * 4 * 4, 10),
)
model.load_state_dict(load_file(sys.argv[1]))
found = model(torch.tensor(x, dtype=torch.float32).view(-1, 1, 8, 8) / 4).argmax(1)
assert "smlt" not in sys.modules
print((found == torch.tensor(y)).float().mean().item())
"""


def train(example: str, runs_dir: Path, *more: str) -> dict[str, Any]:
    """The summary of `smlt train --workers 2` in an example's folder."""
    command = [
        sys.executable,
        "-m",
        "smlt",
        "train",
        "--workers",
        "2",
        "-o",
        "json",
        "--runs-dir",
        str(runs_dir),
    ]
    done = subprocess.run([*command, *more], cwd=EXAMPLES / example, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def test_a_model_of_the_digits_reads_them_outside_smlt_as_well(tmp_path: Path) -> None:
    summary = train("digits", tmp_path)
    assert summary["metrics"]["accuracy"] >= 0.97
    done = subprocess.run(
        [sys.executable, "-c", PLAIN_TORCH, summary["model_path"]], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) == pytest.approx(summary["metrics"]["accuracy"], abs=1e-6)


def test_the_same_digits_in_keras(tmp_path: Path) -> None:
    summary = train("digits_keras", tmp_path)
    assert summary["metrics"]["accuracy"] >= 0.97
    assert summary["steps"] == 230
    assert load_file(summary["model_path"])


@pytest.mark.soak
@pytest.mark.parametrize("example", ["digits", "digits_keras"])
def test_nine_of_ten_seeds_read_97_percent(tmp_path: Path, example: str) -> None:
    found = [train(example, tmp_path, "--set", f"job.seed={seed}")["metrics"]["accuracy"] for seed in range(10)]
    assert sum(accuracy >= 0.97 for accuracy in found) >= 9, found


@pytest.mark.soak
def test_ten_minutes_of_the_gpt_learn_to_write_python(tmp_path: Path) -> None:
    summary = train("gpt", tmp_path, "--deadline", "10m")
    assert summary["metrics"]["val_loss"] <= 1.5


PROBE = """

class Probe(Digits):
    def build_model(self):
        import sys
        print("modules", sorted({"torch", "tensorflow"} & set(sys.modules)))
        return super().build_model()
"""


def test_a_keras_job_imports_no_torch(tmp_path: Path) -> None:
    source = (EXAMPLES / "digits_keras" / "task.py").read_text()
    (tmp_path / "task.py").write_text(source + PROBE)
    result = smlt.train(f"{tmp_path / 'task.py'}:Probe", workers=1, steps=1, runs_dir=tmp_path / "runs")
    lines = result.model_path.with_name("events.jsonl").read_text().splitlines()
    printed = [event["text"] for event in map(json.loads, lines) if event["kind"] == "output"]
    assert printed == ["modules ['tensorflow']"]
